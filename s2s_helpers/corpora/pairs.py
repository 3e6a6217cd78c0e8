"""Pairs of texts: what every corpus gives, and a reader of one's own."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from s2s_helpers.text import normalise


@dataclass(frozen=True)
class Pair:
    """A sentence and its translation.

    `alignment` holds links (source position, target position) between word tokens, in the order of
    `vocabulary.word_tokenize`, or None where no gold alignment is known.
    """

    source: str
    target: str
    alignment: tuple[tuple[int, int], ...] | None = None


P = TypeVar("P", bound=Pair)


@dataclass(frozen=True)
class Splits(Generic[P]):
    """What `load()` of every corpus gives: three lists of pairs, of which none is in two."""

    train: list[P]
    validation: list[P]
    test: list[P]


class Pairs(list[Pair]):
    """A list of pairs; `skipped` counts the rows left out because a side, or both, were empty."""

    skipped: int = 0


DELIMITERS = {".csv": ",", ".tsv": "\t"}
# A first row of such names is a header.
NAMES = """source target src tgt trg input output question answer text summary
english french german spanish italian portuguese dutch polish russian chinese
en fr de es it pt nl pl ru uk cs sv da fi el tr ar he hi zh ja ko vi ro hu"""


def read_pairs(
    path: str | PathLike, target: str | PathLike | None = None,
    columns: tuple[str, str] | None = None, header: bool | None = None,
    delimiter: str | None = None, quotes: bool = True, limit: int | None = None,
) -> Pairs:  # fmt: skip
    """The first `limit` (None: all) pairs of one's own file or files, in UTF-8.

    Two text files, `path` and `target`, have a sentence a line, the translation in the same line.
    Without `target`, the name of `path` ends, in small letters or capitals, in

    - .csv or .tsv: a pair a row, parted by a comma, a tab, or `delimiter`. A text in quotation
      marks may hold any character, a mark itself doubled; with `quotes=False` marks are text.
      `header` says whether the first row names the columns; None finds out: it does if it has
      `columns` in it, or two different names such as source, target, English, fr. The texts are in
      `columns`, or those named source and target, or the only two, source first.
    - .jsonl: an object a line, with the texts under `columns`, or else "source" and "target"; or
      these in an object "translation", as WMT has it, which may also have any two names.

    Texts are `normalise`d, and the space around them is dropped. A row with an empty side, or two,
    is left out and counted in `skipped`. Raises OSError; ValueError with file and row for a
    quotation mark that is not closed, a row without both texts, a number for a text, what is not
    UTF-8 or has zero bytes; and for text files of unlike length and files without any pair.
    """
    path, suffix = Path(path), Path(path).suffix.lower()
    check_limit(limit)
    if columns is not None and (isinstance(columns, str) or len({*columns}) != 2):
        raise ValueError(f"columns must be two different names, not {columns!r}")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(f"delimiter must be one character, and no quotation mark: {delimiter!r}")
    if target is not None:
        rows = _lines(path, Path(target))
    elif suffix in DELIMITERS:
        rows = _table(path, columns, header, delimiter or DELIMITERS[suffix], quotes)
    elif suffix == ".jsonl":
        rows = _objects(path, columns)
    else:
        raise ValueError(f"{path} must end in .csv, .tsv or .jsonl, or have a second text file")
    pairs = Pairs()
    for number, texts in rows:
        source = _text(texts[0], path, number)
        translation = _text(texts[1], target or path, number)
        if not (source and translation):
            pairs.skipped += 1
            continue
        pairs.append(Pair(source, translation))
        if len(pairs) == limit:
            break
    if not pairs:
        raise ValueError(f"{path} has no pairs; rows with an empty side: {pairs.skipped}")
    return pairs


def check_limit(limit: int | None) -> None:
    """Raise ValueError where a number of pairs is below 1."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")


Rows = Iterator[tuple[int, Sequence[Any]]]  # the number of each row, from 1, and its two texts


def _open(path: Path, newline: str) -> TextIO:
    # What is not UTF-8 is let through to `_text`, which knows the row.
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _text(value: Any, path: str | PathLike, number: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{path}: row {number} has {value!r} where a text should be")
    try:
        text = normalise(value).strip()
    except ValueError:
        raise ValueError(f"{path}: row {number} is not UTF-8: {value!r}") from None
    if "\0" in value:
        raise ValueError(f"{path}: row {number} has a zero byte, as UTF-16 has: {value!r}")
    return text


def _lines(path: Path, target: Path) -> Rows:
    # Only "\n" ends a line: a sentence may hold another character that Python takes for an end.
    with _open(path, "\n") as sources, _open(target, "\n") as targets:
        for number, texts in enumerate(zip_longest(sources, targets), 1):
            if None in texts and any(text and text.strip() for text in texts):
                counts = [number - (text is None) for text in texts]
                rest = sum(1 for _ in (sources if texts[1] is None else targets))
                counts[texts[0] is None] += rest
                raise ValueError(f"{path} has {counts[0]} lines, but {target} has {counts[1]}")
            yield number, texts


def _table(
    path: Path, columns: tuple[str, str] | None, header: bool | None, delimiter: str, quotes: bool
) -> Rows:
    quoting: Any = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    with _open(path, "") as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        number, places, width = 0, None, 2
        while True:
            number, line = number + 1, reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise ValueError(
                    f"{path}: row {number}, which begins in line {line}: {error}. Where a "
                    "quotation mark opens a text, close it, double it, or give quotes=False"
                ) from None
            if row is None:
                return
            if places is None or len(row) != width:
                row = [_text(cell, path, number) for cell in row]
            if not any(cell.strip() for cell in row):
                yield number, ("", "")
                continue
            if places is None:
                places, named = _places(path, row, columns, header, delimiter)
                width = len(row)
                if named:
                    continue
            if len(row) != width:
                raise ValueError(f"{path}: row {number} has {len(row)} columns, not {width}: {row}")
            yield number, [row[place] for place in places]


def _places(
    path: Path, names: list[str], columns: tuple[str, str] | None, header: bool | None,
    delimiter: str,
) -> tuple[list[int], bool]:  # fmt: skip
    """Where in a row the two texts are, and whether the first row names the columns."""
    small = [name.lower() for name in names]
    if header is None:
        known = (
            {*columns} <= {*names} if columns else len({*small} & {*NAMES.split()}) == len(names)
        )
        header = known or {"source", "target"} <= {*small}
    if columns:
        if not (header and {*columns} <= {*names}):
            raise ValueError(f"{path}: the first row does not name {columns}: {names}")
        return [names.index(name) for name in columns], True
    if header and {"source", "target"} <= {*small}:
        return [small.index("source"), small.index("target")], True
    if len(names) != 2:
        raise ValueError(
            f"{path}: the first row has {len(names)} columns between marks {delimiter!r}, not 2: "
            f"{names}. Give another delimiter, or the two columns by name"
        )
    return [0, 1], header


def _objects(path: Path, columns: tuple[str, str] | None) -> Rows:
    with _open(path, "\n") as file:
        for number, line in enumerate(file, 1):
            if not (line := _text(line, path, number)):
                yield number, ("", "")
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: row {number} is not JSON: {error}") from None
            names, texts = columns or ("source", "target"), row
            if isinstance(row, dict) and isinstance(row.get("translation"), dict):
                texts = row["translation"]
                if columns is None and len(texts) == 2 and not {*names} <= {*texts}:
                    names = columns = tuple(texts)  # those of the first row serve all
            if not isinstance(texts, dict) or not {*names} <= {*texts}:
                raise ValueError(f"{path}: row {number} needs {' and '.join(names)}: {row!r}")
            yield number, [texts[name] for name in names]
