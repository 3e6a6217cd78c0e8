"""Translate a file of any length: in bounded memory, in order, and on from where it stopped."""

import hashlib
import json
import os
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from s2s_helpers.decoding.translate import encode_source, translate
from s2s_helpers.files import atomic_write

CHUNK = 4096  # lines at once: enough for batches of like lengths


def translate_file(
    model, source, target, beam_size=1, length_penalty=0.6, chunk=CHUNK, progress=True
) -> int:
    """Translate the text file `source`, a sentence a line, into the file `target`; returns how many
    lines these are.

    Memory holds `chunk` lines at a time. Until all is done the lines stand in `target`.part, and
    `target`.state says how far they are good; a call that was stopped, however, goes on from there
    when it is made again. An empty line stays empty.

    Raises FileNotFoundError without a source; ValueError for a line that the model can't read, with
    its number (mend it, and call again), and where what was begun has another model, other
    settings, or another text before the line where it stopped.
    """
    source, target = Path(source), Path(target)
    part, state_file = (target.with_name(target.name + end) for end in (".part", ".state"))
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 line, got {chunk}")
    settings = {"model": digest_of(model), "beam_size": beam_size, "length_penalty": length_penalty}
    with source.open("rb") as lines:
        state, read = begun(state_file, part, lines, settings)
        with (
            part.open("r+b" if part.exists() else "w+b") as out,
            tqdm(
                total=source.stat().st_size, unit="B", unit_scale=True, disable=not progress
            ) as bar,
        ):
            out.truncate(state["written"])  # what came after the last full chunk is made again
            out.seek(state["written"])
            bar.update(state["read"])
            while block := list(islice(lines, chunk)):
                for text in translated(model, block, state["lines"], beam_size, length_penalty):
                    out.write(text.encode("utf-8") + b"\n")
                out.flush()
                os.fsync(out.fileno())
                for line in block:
                    read.update(line)
                size = sum(map(len, block))
                state |= {"lines": state["lines"] + len(block), "read": state["read"] + size}
                state |= {"written": out.tell(), "digest": read.hexdigest()}
                save_state(state_file, state)
                bar.update(size)
    os.replace(part, target)
    state_file.unlink(missing_ok=True)
    return state["lines"]


def translated(model, block: list[bytes], before: int, beam_size, length_penalty) -> list[str]:
    """The translations of a block of lines, of which the first is line `before` + 1."""
    texts = []
    for number, line in enumerate(block, before + 1):
        try:
            texts.append(line.decode("utf-8").strip())
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number} is not UTF-8: {error}") from None
    filled = [place for place, text in enumerate(texts) if text]
    wanted = [texts[place] for place in filled]
    try:
        found = translate(model, wanted, beam_size, length_penalty, attention=False)
    except ValueError:
        for place in filled:  # `translate` counts from 0, without the empty lines
            encode_source(model, before + 1 + place, texts[place])
        raise
    result = [""] * len(texts)
    for place, translation in zip(filled, found, strict=True):
        result[place] = " ".join(translation.text.split("\n"))
    return result


def digest_of(model) -> str:
    """A hash of the model's weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def begun(state_file: Path, part: Path, lines, settings: dict) -> tuple[dict, object]:
    """The state to go on from, and the hash of the source so far; `lines` is moved there."""
    read = hashlib.sha256()
    if not (state_file.exists() and part.exists()):
        part.unlink(missing_ok=True)
        return {"settings": settings, "lines": 0, "read": 0, "written": 0}, read
    advice = f"use another target, or delete {state_file} to start anew"
    try:
        state = json.loads(state_file.read_text())
        known, count, size, digest = (state[k] for k in ("settings", "lines", "read", "digest"))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{state_file} is broken: {advice}") from None
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
