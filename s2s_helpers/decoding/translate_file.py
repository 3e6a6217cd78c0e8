"""A file of any length, a sentence a line, into another, however often it is stopped on the way."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from s2s_helpers.decoding.search import LINES
from s2s_helpers.decoding.translate import chosen_search, decode, encode_source
from s2s_helpers.files import atomic_write, naming
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.models.view import VIEW
from s2s_helpers.text import normalise

FILE_LINES = 4096  # of a file at once: enough for batches of like lengths
LONGEST_LINE, FILE_BYTES = 2**20, 2**24  # bytes: of one line at most, and of all lines at once


def translate_file(
    model: Any, source: str | os.PathLike, target: str | os.PathLike, beam_size: int = 1,
    length_penalty: float = 0.6, lines_at_once: int = FILE_LINES, bad_lines: str = "stop",
    progress: bool = True,
) -> int:  # fmt: skip
    """Translate the text file `source`, a sentence a line, into the file `target`; returns how many
    lines these are.

    Memory holds `lines_at_once` lines at a time, of at most 16 MB together. Until all is done the
    lines stand in `target`.part, and `target`.state says how far they are good; a call that was
    stopped, however, goes on from there when it is made again. An empty line stays empty, and so
    does one of invisible characters alone. What to do with a line that the model can't read, that
    is not UTF-8, or of more than 1 MB: `bad_lines` "stop" raises ValueError with its number (mend
    it, or call again with "empty"); "empty" leaves it empty, and a warning at the end says which.

    Raises FileNotFoundError without a source; BlockingIOError where another process writes the same
    target; ValueError where source and target are one file, and where what was begun has another
    model, other settings, or another text before the line where it stopped.
    """
    source, target = Path(source), Path(os.path.realpath(target))  # a link stays a link
    part, state_file = (target.with_name(target.name + end) for end in (".part", ".state"))
    if lines_at_once < 1:
        raise ValueError(f"lines_at_once must be at least 1, got {lines_at_once}")
    if bad_lines not in ("stop", "empty"):
        raise ValueError(f'bad_lines is "stop" or "empty", got {bad_lines!r}')
    for path in target, part, state_file:
        if path.exists() and os.path.samefile(source, path):
            raise ValueError(f"{source} cannot be translated into itself, as {path} is that file")
    if target.is_dir():
        raise ValueError(f"{target} is a folder: give the name of a file")
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is a device or a pipe: give the name of a file")
    search = chosen_search(model, beam_size, length_penalty)
    settings = {"model": digest_of(model), "beam_size": beam_size, "length_penalty": length_penalty}
    left: list[str] = []
    with source.open("rb") as lines, alone(target):
        state, read = begun(state_file, part, lines, settings)
        out = part.open("r+b" if part.exists() else "w+b")
        size = source.stat().st_size
        bar = tqdm(total=size, unit="B", unit_scale=True, disable=not progress)
        with naming(part), out, bar:
            out.truncate(state["written"])  # what came after the last full chunk is made again
            out.seek(state["written"])
            bar.update(state["read"])
            for block in blocks(lines, lines_at_once, read):
                texts, bad = texts_of_lines(model, block, state["lines"])
                if bad and bad_lines == "stop":
                    raise ValueError(bad[0])
                left += bad
                for text in translated(model, texts, search, beam_size):
                    out.write(text.encode("utf-8") + b"\n")
                out.flush()
                os.fsync(out.fileno())
                state |= {"lines": state["lines"] + len(block), "read": lines.tell()}
                state |= {"written": out.tell(), "digest": read.hexdigest()}
                save_state(state_file, state)
                bar.update(lines.tell() - bar.n)
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
        state_file.unlink(missing_ok=True)
    if left:
        more = f", and {len(left) - 10} more" if len(left) > 10 else ""
        warnings.warn(f"lines left empty: {'; '.join(left[:10])}{more}", stacklevel=2)
    return state["lines"]


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Keep other processes off this target. Raises BlockingIOError where one is at work on it."""
    lock = target.with_name(target.name + ".lock")
    try:
        with FileLock(lock, timeout=0):
            yield
            lock.unlink(missing_ok=True) if os.name != "nt" else None
    except Timeout:
        raise BlockingIOError(
            f"another process is writing {target}: wait for it, or choose another target"
        ) from None


def blocks(lines: BinaryIO, most: int, digest: Any) -> Iterator[list[bytes]]:
    """The lines of a file from where it stands, at most so many at a time, and `digest` told of all
    that is read. A line that is too long is cut, a byte after the limit."""
    block, size = [], 0
    while line := lines.readline(LONGEST_LINE + 1):
        digest.update(line)
        rest = line
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            digest.update(rest := lines.readline(LONGEST_LINE + 1))
        block.append(line)
        size += len(line)
        if len(block) == most or size > FILE_BYTES - LONGEST_LINE:
            yield block
            block, size = [], 0
    if block:
        yield block


def texts_of_lines(
    model: Any, block: list[bytes], before: int
) -> tuple[list[tuple[str, list[int]]], list[str]]:
    """The text and ids of each line of a block, "" and none where nothing is to be translated; and
    what is wrong with which. `before` is the number of the line before the first."""
    texts, bad = [], []
    for number, line in enumerate(block, before + 1):
        text, ids = "", []
        try:
            if len(line) > LONGEST_LINE:
                raise ValueError(f"line {number} has more than {LONGEST_LINE:,} bytes")
            if text := normalise(line.decode("utf-8")).strip():
                ids = encode_source(model, text, f"line {number}")
        except UnicodeDecodeError as error:
            bad.append(f"line {number} is not UTF-8: {error}")
        except ValueError as error:
            bad.append(str(error))
        texts.append((text, ids))
    return texts, bad


def translated(
    model: Any, texts: list[tuple[str, list[int]]], search: Callable, beam_size: int
) -> list[str]:
    """The translation of each text, given with its ids, as a line; "" where there are none."""
    result = [""] * len(texts)
    places = [place for place, (_, ids) in enumerate(texts) if ids]
    encoded = [texts[place][1] for place in places]
    for number, found in decode(model, encoded, search, max(LINES // beam_size, 1)):
        place = places[number]
        text = model.target_vocabulary.decode(found[0].ids, source=texts[place][0])
        result[place] = " ".join(text.split("\n"))
    return result


def digest_of(model: Any) -> str:
    """A hash of all that decides a model's translations: the classes of its parts, settings (of an
    exported model the hash of its files), vocabularies, weights, and what is multiplied in."""
    with torch.inference_mode():
        model = prepacked(model)
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    about = {
        "parts": [f"{name} {type(part).__name__}" for name, part in model.named_modules()],
        "settings": getattr(model, "settings", None),
        "vocabularies": [v.to_dict() for v in (model.source_vocabulary, model.target_vocabulary)],
        "weights": [f"{name} {t.dtype} {tuple(t.shape)}" for name, t in tensors.items()],
        "multiplied in": vars(model)[VIEW],
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for tensor in tensors.values():
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def begun(
    state_file: Path, part: Path, lines: BinaryIO, settings: dict
) -> tuple[dict, "hashlib._Hash"]:
    """The state to go on from, and the hash of the source so far; `lines` is moved there."""
    read = hashlib.sha256()
    if not (state_file.exists() and part.exists()):
        part.unlink(missing_ok=True)
        return {"settings": settings, "lines": 0, "read": 0, "written": 0}, read
    advice = f"use another target, or delete {state_file} to start anew"
    try:
        state = json.loads(state_file.read_text("utf-8"))
        known, count, size, digest = (state[k] for k in ("settings", "lines", "read", "digest"))
        if min(count, size, state["written"]) < 0 or part.stat().st_size < state["written"]:
            raise ValueError("more was written than is there")
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{state_file} or {part} is broken: {advice}") from None
    for name, value in settings.items():
        if known.get(name) != value:
            raise ValueError(f"it was begun with another {name.replace('_', ' ')}: {advice}")
    while (rest := size - lines.tell()) > 0:
        if not (piece := lines.read(min(rest, 2**20))):
            break
        read.update(piece)
    if read.hexdigest() != digest:
        raise ValueError(f"the source has changed before line {count + 1}: {advice}")
    return state, read


def save_state(path: Path, state: dict) -> None:
    """Write the state whole, or not at all."""
    with atomic_write(path) as file:
        file.write(json.dumps(state).encode())
