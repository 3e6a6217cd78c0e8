"""Summarization pairs from this machine's Python: a docstring's summary line, and what it sums up.

A docstring begins with a summary line, and a blank line parts it from the rest (PEP 257). The
source is here the words of the function's or class's name, a colon, and the rest; the target is the
summary line. Files are parsed (`ast`), never imported. Which packages there are, and in which
versions, differs between machines, and so do the pairs.
"""

import ast
import gc
import re
import sys
import sysconfig
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from s2s_helpers.corpora import Pair, Splits
from s2s_helpers.vocabulary import word_tokenize

# The standard library ("") and packages that this course brings along.
PACKAGES = (
    *("", "torch", "pandas", "matplotlib", "sklearn", "networkx", "numpy", "IPython", "tornado"),
)
SKIPPED = {"site-packages", "test", "tests", "testing", "idlelib", "lib2to3", "ensurepip"}
BODY_WORDS = 25
_HEADING = re.compile(r"[^\n]*\n\s*[-=~^]{3,}")
_NOT_PROSE = re.compile(r"(>>>|\.\. |:\w+.*:|[-*+|] |\w+:\s*\n)|.*>>>", re.DOTALL)


@dataclass(frozen=True)
class Docstring(Pair):
    """`source`: "name in words: the text below the summary line"; `target`: that line; `module`:
    where it stands, such as "torch.nn.functional"."""

    module: str = ""


@cache
def load(packages: tuple[str, ...] = PACKAGES, progress: bool = True) -> Splits[Docstring]:
    """The pairs of these packages ("" is the standard library), in about ten seconds. No module
    stands in two splits.

    Modules go to training, validation and test by a checksum of their first two names
    ("torch.nn"), about 8 : 1 : 1, so a module is in the same split everywhere. Of pairs with the
    same summary or body, letter case and punctuation aside, the first stays. Raises ValueError
    where the packages hold no pairs for one of the splits, such as when none is installed.
    """
    seen: set[str] = set()
    splits: Splits[Docstring] = Splits([], [], [])
    site, stdlib = (Path(sysconfig.get_paths()[key]) for key in ("purelib", "stdlib"))
    collecting = gc.isenabled()
    gc.disable()  # syntax trees make it run all the time, for nothing: half of the time is saved
    try:
        for package in tqdm(packages, "packages", file=sys.stdout, disable=not progress):
            for pair in harvest(site / package, site) if package else harvest(stdlib, stdlib):
                body = pair.source.partition(": ")[2]
                keys = {re.sub(r"\W+", " ", text.lower()).strip() for text in (pair.target, body)}
                if not keys & seen:
                    seen |= keys
                    part = zlib.crc32(".".join(pair.module.split(".")[:2]).encode()) % 10
                    (splits.test, splits.validation, *[splits.train] * 8)[part].append(pair)
    finally:
        if collecting:
            gc.enable()
    if not (splits.train and splits.validation and splits.test):
        raise ValueError(f"too few docstrings in {packages}: a split is empty; name more packages")
    return splits


def harvest(folder: Path, root: Path) -> Iterator[Docstring]:
    """The pairs of all Python files below `folder`; modules are named from `root` on."""
    for path in sorted(folder.rglob("*.py")):
        names = path.relative_to(root).with_suffix("").parts
        if not SKIPPED.isdisjoint(names) or any(name.startswith("_") for name in names[:-1]):
            continue  # tests, and what is private
        text = path.read_text(encoding="utf-8", errors="replace")
        if '"""' not in text:
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # an odd escape in somebody's string
                tree = ast.parse(text)
        except (SyntaxError, ValueError):  # a template, or a file for another Python
            continue
        module = ".".join(names).removesuffix(".__init__")
        for node in _definitions(tree.body):
            if pair := as_pair(node.name, ast.get_docstring(node) or ""):
                yield Docstring(*pair, module=module)


def _definitions(body: Sequence[ast.stmt]) -> Iterator:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        if isinstance(node, ast.ClassDef | ast.If | ast.Try):
            yield from _definitions(node.body)


def as_pair(name: str, docstring: str) -> tuple[str, str] | None:
    """(source, summary) of a docstring, or None where it makes no good pair.

    The text ends at the first heading, list, field, table or example, and after 25 words. A good
    summary has 3 to 16 tokens, a good text 8 or more.
    """
    summary, *paragraphs = re.split(r"\n\s*\n", docstring.strip())
    body = []
    for paragraph in paragraphs:
        if _HEADING.match(paragraph) or _NOT_PROSE.match(paragraph):
            break
        body += _plain(paragraph).removesuffix("::").split()
    summary, text = _plain(summary), " ".join(body[:BODY_WORDS])
    if not 3 <= len(word_tokenize(summary)) <= 16 or len(word_tokenize(text)) < 8:
        return None
    return f"{name_in_words(name)}: {text}", summary


def name_in_words(name: str) -> str:
    """The words of an identifier: "getHTTPResponse_2" gives "get http response 2"."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return " ".join(word.lower() for word in words) or name


def lead(pair: Pair) -> str:
    """Lead-1, the baseline: the first sentence of the text."""
    return re.split(r"(?<=[.!?]) ", pair.source.partition(": ")[2], maxsplit=1)[0]


def _plain(text: str) -> str:
    """Without the marks of reStructuredText and Markdown, on one line."""
    text = re.sub(r":[\w:]+:`~?([^`<]*?)(?: *<[^`]*>)?`", r"\1", text)
    return " ".join(re.sub(r"[`*]|\[\d+\]_", "", text).split())
