"""What grows with the work: seconds by batch and by length, memory by vocabulary, a long file.

python benchmarks/scale.py [--threads 1|2] [--quick] [--lines 1000000] [--device auto|cpu]
python benchmarks/scale.py table

`batch`: greedy sentences a second by the size of the batch. `length`: milliseconds a target token
by the number of source tokens, captions joined to that length and decoded to at most as many target
tokens. `vocabulary`: the most memory a training step adds, in a fresh process for each, with all
logits at once and as `Seq2SeqLoss.of_features` does it. `lines`: so many captions through
`translate_file`, and the memory that the process held at its most, early on and at the end.

The model is the one of decoding.py. --quick is small and saves nothing. Everything else goes to
benchmarks/results/scale.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import import_module
from itertools import chain, cycle, islice
from pathlib import Path

import torch
from decoding import captions, trained_model
from measuring import (
    RESULTS,
    alternate,
    device_for,
    device_name,
    keep,
    machine,
    markdown,
    median_of,
    pin,
)

from s2s_helpers.data import collate
from s2s_helpers.decoding import greedy_decode, translate, translate_file
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.training import set_seed
from s2s_helpers.vocabulary import EOS, Vocabulary

FILE = RESULTS / "scale.json"
BATCHES = (1, 4, 16, 64, 256, 1024)
LENGTHS = (8, 16, 32, 64, 120)
VOCABULARIES = (1_000, 10_000, 50_000, 100_000)
ROWS, TARGET = 256, 20  # of the training step whose memory is measured


def by_batch(model, sentences: list[str], rounds: int) -> dict[int, float]:
    """Sentences a second, text to text, for every size of a batch."""
    sizes = [size for size in BATCHES if size <= len(sentences)]
    jobs = {
        size: partial(
            translate, model, sentences[: max(size, 64)], batch_size=size, attention=False
        )
        for size in sizes
    }
    times, outputs = alternate(jobs, rounds)
    return {size: len(outputs[size]) / median_of(times[size], 0) for size in sizes}


def by_length(model, sentences: list, rounds: int, rows: int = 32) -> dict[int, float]:
    """Milliseconds a target token, for batches of `rows` sources of each length, which all decode
    that many tokens."""
    stream = list(chain.from_iterable(sentence.ids[:-1] for sentence in sentences))
    most = model.max_positions or max(LENGTHS)
    jobs = {}
    device = next(model.parameters()).device
    for length in (length for length in LENGTHS if length <= most):
        ids = list(islice(cycle(stream), rows * (length - 1)))
        sources = [[*ids[i * (length - 1) : (i + 1) * (length - 1)], EOS] for i in range(rows)]
        batch = collate([(source, None) for source in sources]).to(device)
        jobs[length] = partial(decode_on, model, batch, length)
    times, outputs = alternate(jobs, rounds)
    return {length: 1000 * median_of(times[length], 0) / outputs[length] for length in jobs}


def decode_on(model, batch, length: int) -> int:
    """Greedy decoding of at most `length` tokens a sentence; how many were written."""
    found = greedy_decode(model, batch.source, batch.source_mask, length, attention=False)
    return sum(len(hypothesis.ids) for hypothesis in found)


def peak() -> float:
    """MB that this process has held at its most."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the process that started this one held, too
        return int(status.read_text("utf-8").partition("VmHWM:")[2].split()[0]) / 1e3
    import resource  # not on Windows

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (1e6 if sys.platform == "darwin" else 1e3)


def memory_of_step(size: int, split: bool, device: str = "cpu") -> float:
    """MB that one training step adds at its most, in this process or on its GPU, for a vocabulary
    of `size`."""
    set_seed(0)
    vocabulary = Vocabulary.numbered(size)
    model = TransformerSeq2Seq(vocabulary, vocabulary, width=128, layers=2, feedforward=256)
    model.to(device)
    ids = torch.randint(4, size, (ROWS, TARGET)).tolist()
    batch = collate([(row, row) for row in ids]).to(device)
    loss = Seq2SeqLoss(0.1)
    for parameter in model.parameters():  # not counted: they are there either way
        parameter.grad = torch.zeros_like(parameter)

    def held() -> float:
        return torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else peak()

    before = held()
    if split:
        values, layer, _ = model.features(batch)
        total, _ = loss.of_features(values, layer, batch.target_output)
    else:
        total, _ = loss.total(model(batch)[0], batch.target_output)
    total.backward()
    return held() - before


def by_vocabulary(sizes, device: str = "cpu") -> dict[int, dict[str, float]]:
    """For every size the memory of a step in both ways, each in a process of its own."""
    found = {}
    for size in sizes:
        found[size] = {}
        for name, split in ("all logits", 0), ("of features", 1):
            command = [sys.executable, __file__, "step", "--step", str(size), str(split)]
            command += ["--device", device]
            done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
            found[size][name] = float(done.stdout)
    return found


def of_lines(model, sentences: list[str], lines: int) -> dict:
    """Stream `lines` captions through `translate_file`: seconds, and memory at its most (MB) after
    the first tenth and at the end."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "captions.en", Path(folder) / "captions.fr"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in islice(cycle(sentences), lines))
        files, early = import_module("s2s_helpers.decoding.translate_file"), []
        real, started = files.save_state, time.perf_counter()

        def watched(path, state):
            real(path, state)
            if not early and state["lines"] >= lines / 10:
                early.append(peak())

        files.save_state = watched
        try:
            translate_file(model, source, target)
        finally:
            files.save_state = real
        seconds = time.perf_counter() - started
        with target.open(encoding="utf-8") as file:
            first = list(islice(file, 64))
            written = len(first) + sum(1 for _ in file)
    alone = translate(model, sentences[:64], attention=False)
    return {
        "lines": written, "seconds": seconds, "sentences_per_second": lines / seconds,
        "megabytes_early": early[0], "megabytes_end": peak(),
        "same_as_translate": [line.rstrip("\n") for line in first] == [t.text for t in alone[:64]],
    }  # fmt: skip


def run(model, count: int, rounds: int, sizes, lines: int) -> dict:
    """All four measurements."""
    sentences = captions(model.source_vocabulary, count)
    texts = [sentence.text for sentence in sentences]
    device = next(model.parameters()).device
    return {
        "batch": by_batch(model, texts, rounds),
        "length": by_length(model, sentences, rounds),
        "vocabulary": by_vocabulary(sizes, "auto" if device.type == "cuda" else "cpu"),
        "lines": of_lines(model, texts, lines),
        "machine": machine("sentencepiece"),
    }


def table(results: dict) -> str:
    """The four tables of all devices, a line above each."""
    runs = results["runs"]
    some = next(iter(runs.values()))
    vocabulary = [
        [on, f"{int(size):,}", f"{row['all logits']:.0f}", f"{row['of features']:.0f}"]
        for on, run in runs.items()
        for size, row in run["vocabulary"].items()
    ]
    lines = [
        [
            on, f"{line['lines']:,}", f"{line['seconds'] / 60:.1f}",
            f"{line['sentences_per_second']:.0f}", f"{line['megabytes_early']:.0f}",
            f"{line['megabytes_end']:.0f}",
        ]
        for on, line in ((on, run["lines"]) for on, run in runs.items())
    ]  # fmt: skip

    def of_all(key: str, form: str) -> str:
        rows = [[on, *(f"{x:{form}}" for x in run[key].values())] for on, run in runs.items()]
        return markdown(["on", *map(str, some[key])], rows)

    return "\n\n".join([
        "Greedy, sentences a second by the size of the batch:",
        of_all("batch", ",.0f"),
        "Greedy, batches of 32, milliseconds a target token by source and target length:",
        of_all("length", ".2f"),
        "MB that a training step adds at its most, by vocabulary (5,120 target tokens):",
        markdown(["on", "vocabulary", "all logits at once", "`of_features`"], vocabulary),
        "A file through `translate_file`, and the process's memory:",
        markdown(
            ["on", "lines", "minutes", "sentences/s", "MB after a tenth", "MB at the end"], lines
        ),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="run", choices=["run", "table", "step"])
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--quick", action="store_true", help="small, not saved")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--step", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "step":
        print(
            memory_of_step(options.step[0], bool(options.step[1]), device_for(options.device).type)
        )
        return
    if options.what == "table":
        print(table(json.loads(FILE.read_text("utf-8"))))
        return
    pin(options.threads)
    device = device_for(options.device)
    model, on = trained_model(options.quick).to(device), device_name(device, options.threads)
    if options.quick:
        results = {"runs": {on: run(model, 256, 1, VOCABULARIES[:2], 2_000)}}
    else:
        results = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"runs": {}}
        results["runs"][on] = run(model, 1024, 5, VOCABULARIES, options.lines)
        keep(results, FILE)
    print(table(results))


if __name__ == "__main__":
    main()
