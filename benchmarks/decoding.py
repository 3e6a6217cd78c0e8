"""How fast the package decodes, beside others who decode with the same weights.

python benchmarks/decoding.py [--threads 1|2] [--quick] [--peers ours,transformers,...]
python benchmarks/decoding.py table

The peers (decoding_peers.py): Hugging Face's MarianMTModel, CTranslate2 in float32 and int8, Joey
NMT, and nn.Transformer in a loop that runs the whole prefix again for each token. What is not
installed is left out; `pip install -e '.[benchmarks]'` has them all.

A post-norm transformer is trained on Multi30k (once, some minutes; then kept beside the notebooks'
models), its weights are carried over, and real captions that it has not seen are translated by all
in turn: in every round each peer once, the rounds to and fro. Nobody's loading of the model counts.
All get the same limit and the same objective in beam search, the sum of log-probabilities without a
length penalty, and all get their sentences sorted by length. Process pinned to --threads cores.
Everything goes to benchmarks/results/decoding.json.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from decoding_peers import BATCH, PEERS, QUICK, SEARCHES, Sentence, installed

from s2s_helpers.corpora import multi30k
from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq, load_model, save_model
from s2s_helpers.recipes import cache_folder
from s2s_helpers.training import Seq2SeqTrainer, linear_warmup, set_seed, training_config
from s2s_helpers.vocabulary import EOS, PAD, SOS, SubwordVocabulary

RESULTS = Path(__file__).parent / "results" / "decoding.json"
SHAPE = dict(width=128, heads=4, layers=4, feedforward=256, dropout=0.0, norm_first=False)
VOCABULARY, LENGTHS = 10_000, range(8, 21)


# The model and what it translates


def trained_model():
    """The model that all decode with: from the cache, or trained for two passes over Multi30k."""
    path = cache_folder() / "decoding-benchmark.pt"
    if path.exists():
        model = load_model(path)
        if all(model.settings[name] == value for name, value in SHAPE.items()):
            return model
    print("Training the model that all decode with; it is kept for the next time.")
    pairs = multi30k.load("train")
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    shared = SubwordVocabulary.train(texts, VOCABULARY)
    set_seed(0)
    model = TransformerSeq2Seq(shared, shared, **SHAPE)
    loader = make_loader(Seq2SeqDataset(pairs, shared, shared), max_tokens=1024, shuffle=True)
    epochs = 2
    trainer = Seq2SeqTrainer(
        model,
        training_config(epochs, lr=1.5e-3, device="cpu"),
        loader,
        loss=Seq2SeqLoss(label_smoothing=0.1),
        schedule=linear_warmup(300, epochs * len(loader)),
        ema=0.99,
    )
    if trainer.fit().stopped == "interrupted":
        raise KeyboardInterrupt
    save_model(model, path)
    return model.eval()


def captions(vocabulary, count: int, seed: int = 0) -> list[Sentence]:
    """`count` distinct captions of the validation and test splits with 8 to 20 tokens, EOS
    included, shuffled."""
    texts = {p.source: None for split in multi30k.SPLITS[1:] for p in multi30k.load(split)}
    known = {pair.source for pair in multi30k.load("train")}
    sentences = [Sentence(text, vocabulary.encode(text)) for text in texts if text not in known]
    sentences = [sentence for sentence in sentences if len(sentence.ids) in LENGTHS]
    random.Random(seed).shuffle(sentences)
    if len(sentences) < count:
        raise ValueError(f"there are only {len(sentences)} such captions, not {count}")
    return sentences[:count]


# Measuring


def alternate(jobs: dict, rounds: int) -> tuple[dict, dict]:
    """Call every job once in each round, to and fro. Returns for each its (wall, CPU) seconds of
    all rounds, and what it gave."""
    times, outputs = {name: [] for name in jobs}, {}
    for number in range(rounds):
        for name in list(jobs) if number % 2 == 0 else reversed(jobs):
            wall, cpu = time.perf_counter(), time.process_time()
            outputs[name] = jobs[name]()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times, outputs


def median_of(times: list[tuple], which: int) -> float:
    """Median of the wall (0) or CPU (1) seconds."""
    return statistics.median(pair[which] for pair in times)


def times_as_fast(ours: list[tuple], theirs: list[tuple], which: int) -> float:
    """Their seconds over ours, round by round, and the median of that: what slows a whole round
    down does not count."""
    return statistics.median(b[which] / a[which] for a, b in zip(ours, theirs, strict=True))


def summary(times: dict, count: int) -> dict:
    """Seconds and speeds of each job, and how many times as fast "ours" was."""
    rows = {}
    for name, measured in times.items():
        wall, cpu = median_of(measured, 0), median_of(measured, 1)
        rows[name] = {
            "wall_seconds": wall, "cpu_seconds": cpu, "rounds": len(measured),
            "sentences_per_second": count / wall, "sentences_per_cpu_second": count / cpu,
        }  # fmt: skip
        if "ours" in times:
            rows[name]["ours_times_as_fast"] = times_as_fast(times["ours"], measured, 0)
            rows[name]["ours_times_as_fast_cpu"] = times_as_fast(times["ours"], measured, 1)
    return rows


def agreement(model, sentences: list[Sentence], outputs: dict) -> dict:
    """For each peer the sentences with the very ids that "ours" wrote, and the mean
    log-probability of what it wrote, under our model."""
    rows = {}
    for name, found in outputs.items():
        rows[name] = {
            "sentences": len(found),
            "log_probability": mean_score(model, sentences, found),
        }
        if "ours" in outputs:
            rows[name]["same"] = sum(a == b for a, b in zip(outputs["ours"], found, strict=True))
        rows[name]["unfinished"] = sum(EOS not in ids for ids in found)
        rows[name]["with_pad_or_sos"] = sum(PAD in ids or SOS in ids for ids in found)
    return rows


@torch.inference_mode()
def mean_score(model, sentences: list[Sentence], outputs: list[list[int]]) -> float:
    """Mean over sentences of log p(output | sentence)."""
    total = 0.0
    for first in range(0, len(sentences), BATCH):
        pairs = zip(sentences[first : first + BATCH], outputs[first : first + BATCH], strict=True)
        batch = collate([(sentence.ids, ids) for sentence, ids in pairs])
        scores = model(batch)[0].log_softmax(-1).gather(-1, batch.target_output[..., None])
        total += scores.squeeze(-1)[batch.target_output != PAD].sum().item()
    return total / len(sentences)


def best_batch(decode, sentences, beam: int, batches, which: int):
    """The batch size that took the least wall (0) or CPU (1) time, the better of two runs each."""
    jobs = {size: partial(decode, sentences, beam, size) for size in batches}
    times, _ = alternate(jobs, 2)
    return min(batches, key=lambda size: min(pair[which] for pair in times[size]))


def throughput(decoders: dict, sentences, search: str, rounds: int, sizes: dict) -> tuple:
    """Rows of `summary` with each peer at its batch size, and what was written."""
    jobs = {
        name: partial(decoders[name], sentences, SEARCHES[search], size)
        for name, size in sizes.items()
    }
    times, outputs = alternate(jobs, rounds)
    rows = summary(times, len(sentences))
    for name, row in rows.items():
        row["batch"] = sizes[name]
    return rows, outputs


def latency(decoders: dict, sentences, search: str) -> dict:
    """Median milliseconds for one sentence alone, all peers in turn at each sentence."""
    times = {name: [] for name in decoders}
    for sentence in sentences:
        jobs = {
            name: partial(decode, [sentence], SEARCHES[search], 1)
            for name, decode in decoders.items()
        }
        for name, measured in alternate(jobs, 1)[0].items():
            times[name] += measured
    rows = summary(times, 1)
    return {
        name: {
            "wall_ms": 1000 * row["wall_seconds"], "cpu_ms": 1000 * row["cpu_seconds"],
            "ours_times_as_fast": row.get("ours_times_as_fast"),
            "ours_times_as_fast_cpu": row.get("ours_times_as_fast_cpu"),
        }
        for name, row in rows.items()
    }  # fmt: skip


def machine() -> dict:
    """What it ran on, and with which versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for package in ("torch", "transformers", "ctranslate2", "joeynmt"):
        if importlib.util.find_spec(package):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def run(names, threads: int, quick: bool) -> dict:
    """Measure these peers on so many cores."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            sys.exit(f"--threads {threads} needs as many cores; this process may use {len(cores)}")
        os.sched_setaffinity(0, cores[:threads])
    torch.set_num_threads(threads)
    model = trained_model()
    names = installed(names)
    decoders = {name: PEERS[name].build(model) for name in names}
    sentences = captions(model.source_vocabulary, 256 if quick else 1000)
    rounds, clock = (3, 1) if quick else (5, 1 if threads == 1 else 0)
    result = {"threads": threads, "throughput": {}, "agreement": {}, "one_sentence": {}}
    for search, beam in SEARCHES.items():
        able = [name for name in names if search in PEERS[name].searches]
        for name in able:
            decoders[name](sentences[:BATCH], beam, BATCH)  # warm up
        for count in (256,) if quick else (256, 1000):
            some, entry = sentences[:count], f"{search}, {count} sentences"
            rows, outputs = throughput(decoders, some, search, rounds, dict.fromkeys(able, BATCH))
            result["throughput"][f"{entry}, batch {BATCH}"] = rows
            result["agreement"][entry] = agreement(model, some, outputs)
            report(f"{entry}, batch {BATCH}", rows, result["agreement"][entry])
            if not quick:
                sizes = {
                    name: best_batch(decoders[name], some, beam, PEERS[name].batches, clock)
                    for name in able
                }
                rows, _ = throughput(decoders, some, search, rounds, sizes)
                result["throughput"][f"{entry}, best batch"] = rows
                report(f"{entry}, best batch", rows)
        few = {name: decoders[name] for name in able}
        result["one_sentence"][search] = latency(few, sentences[: 10 if quick else 50], search)
        report(f"{search}, one sentence", result["one_sentence"][search])
    return result


def report(title: str, rows: dict, same: dict | None = None) -> None:
    """Print rows as they come."""
    print(f"\n{title}")
    for name, row in rows.items():
        line = f"  {PEERS[name].label:32}"
        if "wall_ms" in row:
            line += f"{row['wall_ms']:8.1f} ms wall {row['cpu_ms']:8.1f} ms CPU"
        else:
            line += f"{row['sentences_per_second']:8.1f} sentences/s"
            line += f"{row['sentences_per_cpu_second']:8.1f} a CPU second, batch {row['batch']}"
        if row.get("ours_times_as_fast") is not None:
            line += f"; ours {row['ours_times_as_fast']:5.2f} x"
            line += f" (CPU {row['ours_times_as_fast_cpu']:.2f} x)"
        if same is not None and "same" in same[name]:
            line += f"; {same[name]['same']} of {same[name]['sentences']} as ours"
            line += f", log p {same[name]['log_probability']:.4f}"
        print(line, flush=True)


def table(results: dict, threads: int) -> str:
    """A Markdown table of one run: sentences a second, in brackets ours over theirs (wall time)."""
    run = results["runs"][str(threads)]
    head = ["decoder"]
    for search in SEARCHES:
        head += [
            f"{search}, batch {BATCH}",
            f"{search}, its best batch",
            f"{search}, 1 sentence, ms",
        ]
    head += [f"same as ours, {search}, %" for search in SEARCHES]
    lines = [head, ["---"] * len(head)]
    for name, peer in PEERS.items():
        cells, known = [peer.label], False
        for search in SEARCHES:
            for setting in (f"batch {BATCH}", "best batch"):
                row = run["throughput"].get(f"{search}, 1000 sentences, {setting}", {}).get(name)
                cells.append(cell(row, "sentences_per_second", 0))
                known = known or row is not None
            cells.append(cell(run["one_sentence"].get(search, {}).get(name), "wall_ms", 1))
        for search in SEARCHES:
            row = run["agreement"].get(f"{search}, 1000 sentences", {}).get(name)
            cells.append("-" if row is None else f"{100 * row['same'] / row['sentences']:.1f}")
        if known:
            lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(row: dict | None, key: str, digits: int) -> str:
    """A figure with the times that ours is as fast, or a dash."""
    if row is None:
        return "-"
    return f"{row[key]:,.{digits}f} ({row['ours_times_as_fast']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["run", "table"], default="run")
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--quick", action="store_true", help="256 sentences, 3 rounds, not saved")
    parser.add_argument(
        "--peers", help=f"some of {','.join(PEERS)}; default all, if quick the fast"
    )
    told = parser.parse_args()
    names = told.peers.split(",") if told.peers else QUICK if told.quick else list(PEERS)
    if unknown := set(names) - set(PEERS):
        parser.error(f"unknown peers {sorted(unknown)}; there are: {', '.join(PEERS)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    if told.what == "run":
        result = run(names, told.threads, told.quick)
        if told.quick:
            return
        results["machine"] = machine()
        results["runs"][str(told.threads)] = result
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for threads in results["runs"]:
        print(f"\nOn {threads} core(s):\n\n{table(results, int(threads))}")


if __name__ == "__main__":
    main()
