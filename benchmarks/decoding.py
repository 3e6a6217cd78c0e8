"""How fast the package decodes, beside others who decode with the same weights.

python benchmarks/decoding.py [--threads 1|2] [--device auto|cpu] [--quick]
                              [--peers ours,transformers,...]
python benchmarks/decoding.py table

The peers (decoding_peers.py): Hugging Face's MarianMTModel, CTranslate2 in float32 and int8, Joey
NMT, and nn.Transformer in a loop that runs the whole prefix again for each token; and the package's
own other ways, with a vocabulary shortlist and on CTranslate2. What is not
installed is left out; `pip install -e '.[benchmarks]'` has them all.

A post-norm transformer is trained on Multi30k (once, some minutes; then kept beside the notebooks'
models), its weights are carried over, and real captions that it has not seen are translated by all
in turn: in every round each peer once, the rounds to and fro. Nobody's loading of the model counts.
All get the same limit and the same objective in beam search, the sum of log-probabilities without a
length penalty, and all get their sentences sorted by length. Process pinned to --threads cores.
On a GPU, if there is one, those are compared that run there as they are.
Everything goes to benchmarks/results/decoding.json.
"""

import argparse
import json
import random
import sys
from functools import partial
from pathlib import Path

import torch
from decoding_peers import BATCH, ON_GPU, PEERS, QUICK, SEARCHES, Sentence, installed
from measuring import (
    alternate,
    device_for,
    device_name,
    keep,
    machine,
    median_of,
    pin,
    times_as_fast,
)

from s2s_helpers.corpora import multi30k
from s2s_helpers.course.recipes import cache_folder
from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.metrics import bleu
from s2s_helpers.models import TransformerSeq2Seq, load_model, save_model
from s2s_helpers.training import Seq2SeqTrainer, linear_warmup, set_seed, training_config
from s2s_helpers.vocabulary import EOS, PAD, SOS, SubwordVocabulary

RESULTS = Path(__file__).parent / "results" / "decoding.json"
SHAPE = dict(width=128, heads=4, layers=4, feedforward=256, dropout=0.0, norm_first=False)
VOCABULARY, LENGTHS = 10_000, range(8, 21)


# The model and what it translates


def trained_model(quick: bool = False):
    """The model that all decode with: from the cache, or trained for two passes over Multi30k; to
    be quick, on a quarter of one, which is enough to end its sentences."""
    path = cache_folder() / f"decoding-benchmark{'-quick' if quick else ''}.pt"
    if path.exists():
        model = load_model(path)
        if all(model.settings[name] == value for name, value in SHAPE.items()):
            return model
    print("Training the model that all decode with; it is kept for the next time.")
    pairs = multi30k.load().train
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    shared = SubwordVocabulary.train(texts, VOCABULARY)
    pairs, epochs, max_tokens, warmup = (
        (pairs[:8000], 1, 512, 50) if quick else (pairs, 2, 1024, 300)
    )
    set_seed(0)
    model = TransformerSeq2Seq(shared, shared, **SHAPE)
    data = Seq2SeqDataset(pairs, shared, shared)
    loader = make_loader(data, max_tokens=max_tokens, shuffle=True)
    trainer = Seq2SeqTrainer(
        model,
        training_config(epochs, lr=1.5e-3, device="cpu"),
        loader,
        loss=Seq2SeqLoss(label_smoothing=0.1),
        schedule=linear_warmup(warmup, epochs * len(loader)),
        ema=0.99,
    )
    trainer.fit()
    save_model(model, path)
    return model.eval()


def captions(vocabulary, count: int, seed: int = 0) -> list[Sentence]:
    """`count` distinct captions of the validation and test splits with 8 to 20 tokens, EOS
    included, shuffled."""
    data = multi30k.load()
    texts = {p.source: p.target for p in [*data.validation, *data.test, *data.test_2017]}
    known = {pair.source for pair in data.train}
    sentences = [
        Sentence(text, vocabulary.encode(text), reference)
        for text, reference in texts.items()
        if text not in known
    ]
    sentences = [sentence for sentence in sentences if len(sentence.ids) in LENGTHS]
    random.Random(seed).shuffle(sentences)
    if len(sentences) < count:
        raise ValueError(f"there are only {len(sentences)} such captions, not {count}")
    return sentences[:count]


# Measuring


def speed(ours: list[tuple], theirs: list[tuple], count: int) -> dict:
    """What a peer took for `count` sentences, and how many times as fast ours was."""
    wall, cpu = median_of(theirs, 0), median_of(theirs, 1)
    return {
        "wall_seconds": wall, "cpu_seconds": cpu, "rounds": len(theirs),
        "sentences_per_second": count / wall, "sentences_per_cpu_second": count / cpu,
        "ours_times_as_fast": times_as_fast(ours, theirs, 0),
        "ours_times_as_fast_cpu": times_as_fast(ours, theirs, 1),
    }  # fmt: skip


def agreement(ours: list[list[int]], theirs: list[list[int]]) -> dict:
    """How many sentences are token for token the same, and what else could make them differ."""
    return {
        "sentences": len(theirs),
        "same": sum(a == b for a, b in zip(ours, theirs, strict=True)),
        "unfinished": sum(EOS not in ids for ids in theirs),
        "with_pad_or_sos": sum(PAD in ids or SOS in ids for ids in theirs),
    }


@torch.inference_mode()
def mean_score(model, sentences: list[Sentence], outputs: list[list[int]]) -> float:
    """Mean over sentences of log p(output | sentence)."""
    total = 0.0
    for first in range(0, len(sentences), BATCH):
        pairs = zip(sentences[first : first + BATCH], outputs[first : first + BATCH], strict=True)
        batch = collate([(sentence.ids, ids) for sentence, ids in pairs])
        batch = batch.to(next(model.parameters()).device)
        scores = model(batch)[0].log_softmax(-1).gather(-1, batch.target_output[..., None])
        total += scores.squeeze(-1)[batch.target_output != PAD].sum().item()
    return total / len(sentences)


def best_batches(decoders: dict, sentences, beam: int, which: int) -> dict:
    """For each peer the batch size that took the least wall (0) or CPU (1) time in two runs."""
    best = {}
    for name, decode in decoders.items():
        sizes = PEERS[name].batches
        times, _ = alternate({size: partial(decode, sentences, beam, size) for size in sizes}, 2)
        best[name] = min(sizes, key=lambda size: min(pair[which] for pair in times[size]))
    return best


def throughput(model, decoders: dict, sentences, beam: int, rounds: int, best: dict) -> dict:
    """Every peer at batch 64 and, where it is another, at its best size, all in the same rounds.
    "same_batch" and "best_batch" compare with ours at 64 and at its best."""
    sizes = {name: {BATCH, best.get(name, BATCH)} for name in decoders}
    jobs = {
        (name, size): partial(decoders[name], sentences, beam, size)
        for name in decoders
        for size in sorted(sizes[name], key=str)
    }
    times, outputs = alternate(jobs, rounds)
    rows = {}
    for setting, chosen in ("same_batch", dict.fromkeys(decoders, BATCH)), ("best_batch", best):
        for name, size in chosen.items():
            row = speed(times["ours", chosen["ours"]], times[name, size], len(sentences))
            rows.setdefault(name, {})[setting] = {"batch": size, **row}
    for name, row in rows.items():
        found = outputs[name, BATCH]
        row["agreement"] = agreement(outputs["ours", BATCH], found)
        row["agreement"]["log_probability"] = mean_score(model, sentences, found)
        texts = [model.target_vocabulary.decode(ids) for ids in found]
        row["agreement"]["bleu"] = bleu(texts, [sentence.reference for sentence in sentences])
    return rows


def latency(decoders: dict, sentences, beam: int) -> dict:
    """Each sentence alone, by all peers in turn; the median over the sentences."""
    times = {name: [] for name in decoders}
    for sentence in sentences:
        jobs = {name: partial(decode, [sentence], beam, 1) for name, decode in decoders.items()}
        for name, measured in alternate(jobs, 1)[0].items():
            times[name] += measured
    return {name: {"one_sentence": speed(times["ours"], times[name], 1)} for name in decoders}


def run(names, threads: int, quick: bool, count: int, device: str = "cpu") -> dict:
    """Measure these peers on so many captions: {search: {"batches" or "one sentence": {peer:
    rows}}}."""
    pin(threads)
    device = device_for(device)
    model = trained_model(quick).to(device)
    if device.type == "cuda":
        names = [name for name in names if name in ON_GPU]
    decoders = {name: PEERS[name].build(model) for name in installed(names)}
    sentences = captions(model.source_vocabulary, count)
    result = {
        "sentences": count,
        "machine": machine("transformers", "ctranslate2", "joeynmt"),
        "threads": threads,
        "device": device.type,
        "on": device_name(device, threads),
    }
    for search, beam in SEARCHES.items():
        able = {name: d for name, d in decoders.items() if search in PEERS[name].searches}
        for decode in able.values():
            decode(sentences[:BATCH], beam, BATCH)  # warm up
        # CPU time is steadier, but with two cores what counts is the wall.
        clock = 1 if threads == 1 and device.type == "cpu" else 0
        best = {} if quick else best_batches(able, sentences[:256], beam, clock)
        result[search] = {
            "batches": throughput(model, able, sentences, beam, 3 if quick else 5, best),
            "one sentence": latency(able, sentences[: 10 if quick else 50], beam),
        }
        report(search, result[search])
    return result


def report(search: str, measured: dict) -> None:
    """Print what was measured: a line for each peer and setting."""
    for what, rows in measured.items():
        print(f"\n{search}, {what}")
        for name, row in rows.items():
            for setting, got in row.items():
                if setting == "agreement":
                    continue
                line = f"  {PEERS[name].label:32}{got['sentences_per_second']:8.1f} sentences/s"
                line += f" {got['sentences_per_cpu_second']:8.1f} a CPU second; ours is"
                line += f" {got['ours_times_as_fast']:5.2f} times as fast"
                line += f" (CPU {got['ours_times_as_fast_cpu']:5.2f}), {setting}"
                print(line + (f" {got['batch']}" if "batch" in got else ""))
            if same := row.get("agreement"):
                print(f"{'':34}{same}")
    sys.stdout.flush()


def table(run: dict) -> str:
    """A Markdown table of one run: sentences a second and milliseconds, and in brackets how many
    times as fast ours is. By CPU time on one core, which other programs disturb less, else by the
    wall."""
    by_cpu = run["threads"] == 1 and run["device"] == "cpu"
    clock, kind = ("cpu", "_cpu") if by_cpu else ("wall", "")
    per_second = "sentences_per_cpu_second" if kind else "sentences_per_second"
    head = ["decoder"]
    for search in SEARCHES:
        head += [f"{search}: sentences/s", "its best batch", "one sentence, ms", "same outputs, %"]
    lines = [head, ["---"] * len(head)]
    for name in run["greedy"]["batches"]:
        cells = [PEERS[name].label]
        for search in SEARCHES:
            row = run[search]["batches"].get(name)
            if row is None:
                cells += ["-"] * 4
                continue
            alone = run[search]["one sentence"][name]["one_sentence"]
            for got, figure in [
                (row["same_batch"], f"{row['same_batch'][per_second]:,.0f}"),
                (row["best_batch"], f"{row['best_batch'][per_second]:,.0f}"),
                (alone, f"{1000 * alone[f'{clock}_seconds']:.1f}"),
            ]:
                cells.append(f"{figure} ({got[f'ours_times_as_fast{kind}']:.2f})")
            cells.append(f"{100 * row['agreement']['same'] / row['agreement']['sentences']:.1f}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["run", "table"], default="run")
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--quick", action="store_true", help="3 rounds at batch 64, not saved")
    parser.add_argument("--sentences", type=int, default=256, help="how many captions, up to 1000")
    parser.add_argument(
        "--peers", help=f"some of {','.join(PEERS)}; default all, if quick the fast"
    )
    told = parser.parse_args()
    names = told.peers.split(",") if told.peers else QUICK if told.quick else list(PEERS)
    if unknown := set(names) - set(PEERS):
        parser.error(f"unknown peers {sorted(unknown)}; there are: {', '.join(PEERS)}")
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if told.what == "run":
        names = ["ours", *(name for name in names if name != "ours")]
        count = min(told.sentences, 96) if told.quick else told.sentences
        result = run(names, told.threads, told.quick, count, told.device)
        if told.quick:
            return
        results[result["on"]] = result
        keep(results, RESULTS)
    for on, result in results.items():
        print(f"\n{on}:\n\n{table(result)}")


if __name__ == "__main__":
    main()
