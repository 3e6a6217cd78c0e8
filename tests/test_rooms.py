"""The rooms of the package: imports go down, the core needs no notebook, names are what one looks
up; and what the core's requirements install is enough for it."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = Path(__file__).parents[1] / "s2s_helpers"
# From the ground up; those of one line do not import each other.
ROOMS = [
    {"files", "optional", "text"},
    {"vocabulary"},
    {"data", "loss", "metrics"},
    {"corpora"},
    {"models"},
    {"decoding"},
    {"training"},
    {"production"},
    {"course"},
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
NOT_IN_THE_CORE = {"matplotlib", "IPython", "ipywidgets", "anywidget", "tqdm.notebook", "tqdm.auto"}
# Names that said nothing to who looks them up.
OLD_NAMES = {
    *("packing", "streaming", "variety", "needed", "together", "passes", "frames", "looks"),
    *("draws", "told", "wants_attention", "for_decoding", "forward_is_split", "teacher_forced"),
}
LONGEST = 450  # lines of a file
LONGER = {"corpora/phrasebook.py"}  # a grammar


def sources(core=True):
    paths = sorted(PACKAGE.rglob("*.py"))
    return [path for path in paths if not (core and path.is_relative_to(PACKAGE / "course"))]


def place(path, line):
    return f"s2s_helpers/{path.relative_to(PACKAGE).as_posix()}:{line}"


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path, text=None):
    """(line, whole name) of everything that a file imports, wherever in it."""
    package = ("s2s_helpers", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(text or path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{each.name}") for each in node.names)


def upward(path, text=None):
    """What is wrong with the imports of a file."""
    here = room_of(path)
    for line, name in imported(path, text):
        parts = name.split(".")
        if parts[0] != "s2s_helpers" or parts[1:2] in ([], ["__version__"]):
            continue
        there = parts[1]
        if there not in LEVEL:
            yield f"{place(path, line)} imports {name}, which is in no room"
        elif here != "__init__" and there != here and LEVEL[there] >= LEVEL.get(here, -1):
            yield f"{place(path, line)} imports {name}: {here} stands below {there}, or beside it"


def outside(path, text=None):
    for line, name in imported(path, text):
        if any(f"{name}.".startswith(f"{each}.") for each in NOT_IN_THE_CORE):
            yield f"{place(path, line)} imports {name}, which is for course/ alone"


def old_names(path, text=None):
    """Old names that are defined, read or set; not keywords of somebody else's function."""
    for node in ast.walk(ast.parse(text or path.read_text("utf-8"))):
        if isinstance(node, ast.keyword):
            continue
        names = [getattr(node, key, None) for key in ("id", "attr", "arg", "name")]
        for name in OLD_NAMES.intersection(each for each in names if isinstance(each, str)):
            yield f"{place(path, node.lineno)} has the name {name}"


def test_every_file_is_in_a_room():
    rooms = {room_of(path) for path in sources(core=False)} - {"__init__"}
    assert rooms <= LEVEL.keys(), rooms - LEVEL.keys()


def test_imports_go_down():
    wrong = [each for path in sources(core=False) for each in upward(path)]
    assert not wrong, "\n".join(wrong)


def test_the_core_imports_nothing_of_notebooks():
    wrong = [each for path in sources() for each in outside(path)]
    assert not wrong, "\n".join(wrong)


def test_old_names_are_gone():
    wrong = [each for path in sources() for each in old_names(path)]
    wrong += [place(path, 1) for path in sources() if path.stem in OLD_NAMES]
    assert not wrong, "\n".join(wrong)


def test_no_two_classes_of_the_core_share_a_name():
    places = {}
    for path in sources():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(place(path, node.lineno))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, twice


def test_no_file_of_the_core_is_long():
    lines = {
        path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8").count("\n")
        for path in sources()
    }
    assert not {n: c for n, c in lines.items() if c > LONGEST and n not in LONGER}


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("data.py", "\nfrom s2s_helpers.models import x", "s2s_helpers/data.py:2 imports .*models"),
        ("data.py", "import s2s_helpers.loss", "data stands below loss, or beside it"),
        ("data.py", "def f():\n    from . import course", "data.py:2 imports s2s_helpers.course"),
        ("models/rnn.py", "from ..decoding import search", r"rnn.py:1 imports s2s_helpers\.dec"),
        ("models/rnn.py", "from s2s_helpers import nowhere", "in no room"),
        ("models/rnn.py", "from .cache import Cache\nimport s2s_helpers.data", None),
        ("course/show.py", "from s2s_helpers.production import onnx", None),
        ("loss.py", "import tqdm.notebook", "loss.py:1 imports tqdm.notebook, which is for cou"),
        ("loss.py", "from matplotlib import pyplot", "imports matplotlib.pyplot"),
        ("loss.py", "from tqdm import auto", "imports tqdm.auto"),
        ("loss.py", "from tqdm import tqdm", None),
        ("loss.py", "x = 1\ndef draws(): pass", "loss.py:2 has the name draws"),
        ("loss.py", "model.wants_attention = 1", "has the name wants_attention"),
        ("loss.py", "def f(a, together=2): pass", "has the name together"),
        ("loss.py", "load_dataset(streaming=True)", None),
    ],
)
def test_the_test_sees(file, text, message):
    path = PACKAGE / file
    found = [*upward(path, text), *outside(path, text), *old_names(path, text)]
    if message is None:
        assert found == []
    else:
        assert len(found) == 1 and re.search(message, found[0]), found


# The core's own requirements are enough.

CORE = """
import sys
from importlib.machinery import PathFinder

class Fewer(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in BLOCKED:
            return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Fewer
import tempfile
from pathlib import Path

import torch
from s2s_helpers.corpora import phrasebook, read_pairs
from s2s_helpers.data import Seq2SeqDataset, make_loader
from s2s_helpers.decoding import translate
from s2s_helpers.models import TransformerSeq2Seq, load_model, save_model
from s2s_helpers.training import Seq2SeqTrainer, training_config
from s2s_helpers.vocabulary import Vocabulary

torch.manual_seed(0)
folder = Path(tempfile.mkdtemp())
rows = "".join(f'"a b {n}","b a {n}"\\n' for n in range(8))
(folder / "pairs.csv").write_text(rows)
pairs = read_pairs(folder / "pairs.csv")
words = Vocabulary.build([text for pair in pairs for text in (pair.source, pair.target)])
model = TransformerSeq2Seq(words, words, width=8, heads=2, layers=1, feedforward=8)
loader = make_loader(Seq2SeqDataset(pairs, words, words), batch_size=4)
trainer = Seq2SeqTrainer(model, training_config(1, progress=False, device="cpu"), loader, loader)
history = trainer.fit()
assert len(history.steps) == 2
save_model(model, folder / "model.pt")
model.eval()
(before,), (after,) = (
    translate(each, ["a b 3"], beam_size=2) for each in (model, load_model(folder / "model.pt"))
)
assert before.text == after.text
try:
    import matplotlib
except ModuleNotFoundError:
    print("works")
"""


def closure(name, extras=frozenset()):
    """The distributions that installing this one brings, by their names as pip compares them."""
    found, todo = set(), [(canonicalize_name(name), extras)]
    while todo:
        name, extras = todo.pop()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            environments = [{"extra": extra} for extra in extras or {""}]
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {name for name, _ in found}


def test_the_core_works_with_its_own_requirements_alone():
    asked = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [Requirement(line) for line in asked["dependencies"]]
    brought = set().union(*(closure(each.name, frozenset(each.extras)) for each in asked))
    blocked = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not brought & {canonicalize_name(owner) for owner in owners}
    } - {"s2s_helpers"}
    assert {"matplotlib", "IPython", "ipywidgets", "pandas", "transformers"} <= blocked
    assert not {"torch", "treadmill", "numpy", "tqdm", "sacrebleu"} & blocked
    done = subprocess.run(
        [sys.executable, "-c", f"BLOCKED = {sorted(blocked)!r}\n{CORE}"],
        capture_output=True, text=True, cwd=PACKAGE.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("works\n")
