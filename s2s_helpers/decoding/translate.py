"""Texts in, texts out: a list of them, or a file of any length."""

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from tqdm import tqdm

from s2s_helpers.data import collate
from s2s_helpers.decoding.search import LINES, TOKENS, Hypothesis, beam_search, greedy_decode
from s2s_helpers.files import atomic_write
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.models.view import VIEW
from s2s_helpers.text import each_of, normalise

FILE_LINES = 4096  # of a file at once: enough for batches of like lengths
LONGEST_LINE, FILE_BYTES = 2**20, 2**24  # bytes: of one line at most, and of all lines at once


@dataclass
class Translation:
    """A translated sentence: text, score (see `Hypothesis`), and who looked where.

    finished: False where max_length, or the model's positions, cut it off before its end.
    source_tokens and tokens are what the model read and wrote, "<eos>" included. attention is
    (target, source), or (layers, heads, target, source) for a transformer, or None.
    """

    text: str
    score: float
    source_tokens: list[str]
    tokens: list[str]
    attention: Tensor | None = None
    finished: bool = True

    def attention_matrix(self) -> Tensor:
        """Attention (target, source): for a transformer the mean over its layers and heads."""
        if self.attention is None:
            raise ValueError("this model has no attention to show")
        return self.attention if self.attention.dim() == 2 else self.attention.mean(dim=(0, 1))


def translate(
    model: Any, texts: Sequence[str], beam_size: int = 1, length_penalty: float = 0.6,
    search: Callable | None = None, n_best: int | None = None, batch_size: int | None = None,
    max_length: int | None = None, attention: bool = True,
) -> list:  # fmt: skip
    """Translate texts, in their order, with the model's own vocabularies.

    beam_size 1 is greedy decoding. Any other `search` is a function (model, source, source_mask,
    max_length=..., attention=...) to a hypothesis for each row, or a list of them, such as
    functools.partial(sample, top_p=0.9). One that has a parameter `rows` gets the texts' numbers.

    Returns a `Translation` for each text, or with `n_best` a list of at most so many, the best
    score first. Texts are sorted by length, so that batches hold little padding; a batch has at
    most `batch_size` lines (default: 256 / beam_size), and fewer of long ones, so that memory does
    not grow with them. `attention=False` spares the weights.

    Raises TypeError for a single string, a dict or a table; ValueError for settings that do not
    fit, and, naming which, for a text that is empty, as one of invisible characters is too (see
    `text.normalise`), or longer than the model's positions.
    """
    if beam_size < 1 or (n_best is not None and n_best < 1):
        raise ValueError(f"these must be at least 1: {beam_size=}, {n_best=}")
    if search is not None and beam_size != 1:
        raise ValueError("a search of its own has no use for beam_size: give one of the two")
    if search is None:
        search = chosen_search(beam_size, length_penalty, n_best)
    batch_size = max(LINES // beam_size, 1) if batch_size is None else batch_size
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    texts = list(each_of(texts, "texts"))
    encoded = [encode_source(model, text, f"sentence {at}") for at, text in enumerate(texts)]
    results: list = [None] * len(encoded)
    decoded = decode(model, encoded, search, batch_size, max_length, attention)
    for number, found in decoded:
        several = sorted(found, key=lambda hypothesis: -hypothesis.score)[: n_best or 1]
        done = [as_translation(model, texts[number], encoded[number], h) for h in several]
        results[number] = done[0] if n_best is None else done
    return results


def chosen_search(beam_size: int, length_penalty: float, n_best: int | None = None) -> Callable:
    """The search that these settings of `translate` stand for."""
    if beam_size == 1 and n_best in (None, 1):
        return greedy_decode
    several = n_best or 1
    return partial(beam_search, beam_size=beam_size, length_penalty=length_penalty, n_best=several)


def decode(
    model: Any, encoded: Sequence[list[int]], search: Callable, batch_size: int = LINES,
    max_length: int | None = None, attention: bool = False, first: int = 0,
) -> Iterator[tuple[int, list[Hypothesis]]]:  # fmt: skip
    """The place of each source, given as ids, and what was found for it, by length. `first` is the
    number of the first for a search that wants to know the `rows`."""
    wants_rows = "rows" in inspect.signature(search).parameters
    device = next(model.parameters(), torch.empty(0)).device
    with torch.inference_mode():
        view = prepacked(model)
    for places in batches_of([len(ids) for ids in encoded], batch_size):
        batch = collate([(encoded[place], None) for place in places]).to(device)
        numbers = dict(rows=[first + place for place in places]) if wants_rows else {}
        options = dict(max_length=max_length, attention=attention, **numbers)
        with torch.no_grad():
            found = search(view, batch.source, batch.source_mask, **options)
        for place, one in zip(places, found, strict=True):
            yield place, one if isinstance(one, list) else [one]


def batches_of(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """The places of so many lengths, the short ones first: at most `batch_size` of them together,
    and no more than, padded, have room where that many of `TOKENS` have."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = (len(batch) + 1) * lengths[place] > batch_size * TOKENS
        if batch and (full or len(batch) == batch_size):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def encode_source(model: Any, text: str, name: str = "the text") -> list[int]:
    """The ids of a text. Raises ValueError that says which, by `name`, where it is no text, empty,
    or longer than the model's positions."""
    try:
        ids = model.source_vocabulary.encode(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}, {text!r}: {error}") from None
    if model.max_positions is not None and len(ids) > model.max_positions:
        raise ValueError(
            f"{name} has {len(ids)} tokens, but the model has only {model.max_positions} positions"
        )
    return ids


def as_translation(
    model: Any, text: str, source_ids: list[int], hypothesis: Hypothesis
) -> Translation:
    """A hypothesis as text and tokens; a vocabulary that copies finds the words in `text`."""
    return Translation(
        text=model.target_vocabulary.decode(hypothesis.ids, source=text),
        score=hypothesis.score,
        source_tokens=model.source_vocabulary.tokens(source_ids, source=text),
        tokens=model.target_vocabulary.tokens(hypothesis.ids, source=text),
        attention=hypothesis.attention,
        finished=hypothesis.finished,
    )


def translate_file(
    model: Any, source: str | os.PathLike, target: str | os.PathLike, beam_size: int = 1,
    length_penalty: float = 0.6, lines_at_once: int = FILE_LINES, progress: bool = True,
) -> int:  # fmt: skip
    """Translate the text file `source`, a sentence a line, into the file `target`; returns how many
    lines these are.

    Memory holds `lines_at_once` lines at a time, of at most 16 MB together. Until all is done the
    lines stand in `target`.part, and `target`.state says how far they are good; a call that was
    stopped, however, goes on from there when it is made again. An empty line stays empty, and so
    does one of invisible characters alone.

    Raises FileNotFoundError without a source; ValueError where source and target are one file, for
    a line that the model can't read, or of more than 1 MB, with its number (mend it, and call
    again), and where what was begun has another model, other settings, or another text before the
    line where it stopped.
    """
    source, target = Path(source), Path(os.path.realpath(target))  # a link stays a link
    part, state_file = (target.with_name(target.name + end) for end in (".part", ".state"))
    if lines_at_once < 1:
        raise ValueError(f"lines_at_once must be at least 1, got {lines_at_once}")
    for path in target, part, state_file:
        if path.exists() and os.path.samefile(source, path):
            raise ValueError(f"{source} cannot be translated into itself, as {path} is that file")
    if target.is_dir():
        raise ValueError(f"{target} is a folder: give the name of a file")
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is a device or a pipe: give the name of a file")
    search = chosen_search(beam_size, length_penalty)
    settings = {"model": digest_of(model), "beam_size": beam_size, "length_penalty": length_penalty}
    with source.open("rb") as lines:
        state, read = begun(state_file, part, lines, settings)
        out = part.open("r+b" if part.exists() else "w+b")
        size = source.stat().st_size
        bar = tqdm(total=size, unit="B", unit_scale=True, disable=not progress)
        with out, bar:
            out.truncate(state["written"])  # what came after the last full chunk is made again
            out.seek(state["written"])
            bar.update(state["read"])
            for block in blocks(lines, state["lines"], lines_at_once):
                for text in translated(model, block, state["lines"], search, beam_size):
                    out.write(text.encode("utf-8") + b"\n")
                out.flush()
                os.fsync(out.fileno())
                for line in block:
                    read.update(line)
                    bar.update(len(line))
                state |= {"lines": state["lines"] + len(block), "read": lines.tell()}
                state |= {"written": out.tell(), "digest": read.hexdigest()}
                save_state(state_file, state)
    if target.exists():
        shutil.copymode(target, part)
    os.replace(part, target)
    state_file.unlink(missing_ok=True)
    return state["lines"]


def blocks(lines: BinaryIO, before: int, most: int) -> Iterator[list[bytes]]:
    """The lines of a file from where it stands, at most so many at a time; `before` came already.
    Raises ValueError where one is too long."""
    block, size = [], 0
    while line := lines.readline(LONGEST_LINE + 1):
        before += 1
        if len(line) > LONGEST_LINE:
            raise ValueError(f"line {before} has more than {LONGEST_LINE:,} bytes")
        block.append(line)
        size += len(line)
        if len(block) == most or size > FILE_BYTES - LONGEST_LINE:
            yield block
            block, size = [], 0
    if block:
        yield block


def translated(
    model: Any, block: list[bytes], before: int, search: Callable, beam_size: int
) -> list[str]:
    """The translations of a block of lines, of which the first is line `before` + 1."""
    texts, encoded = {}, {}
    for place, line in enumerate(block):
        name = f"line {before + 1 + place}"
        try:
            text = normalise(line.decode("utf-8")).strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} is not UTF-8: {error}") from None
        if text:
            texts[place], encoded[place] = text, encode_source(model, text, name)
    result, places = [""] * len(block), list(texts)
    for number, found in decode(model, [*encoded.values()], search, max(LINES // beam_size, 1)):
        place = places[number]
        text = model.target_vocabulary.decode(found[0].ids, source=texts[place])
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
