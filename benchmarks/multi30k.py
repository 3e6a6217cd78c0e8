"""BLEU against the clock: real captions, from the raw files to the test score, in one command.

python benchmarks/multi30k.py train [--passes 5|20] [--seed 0] [--model transformer] [--resume]
python benchmarks/multi30k.py train --quick    one pass, not saved
python benchmarks/multi30k.py choices    short trainings, with one choice changed in each
python benchmarks/multi30k.py table

`train` learns the subwords, encodes the captions, trains and translates test_2016_flickr with a
beam of 5. It can be stopped and goes on with --resume. Its seconds are all of that but the
translations, of the test set and for the learning curve. Everything goes to
benchmarks/results/captions.json; notebook 08 shows it.

BLEU and chrF are sacreBLEU's on cased, detokenised text. "Tokenised" is what papers on this data
set report: lower-cased, punctuation normalised, cut by Moses' rules for French.
"""

import argparse
import json
import time
from statistics import mean

import torch
from measuring import RESULTS, keep, machine, markdown, pin
from treadmill import Callback

from s2s_helpers import metrics
from s2s_helpers.corpora import multi30k
from s2s_helpers.decoding import translate
from s2s_helpers.models import AttentionSeq2Seq
from s2s_helpers.recipes import cache_folder, multi30k_datasets, multi30k_trainer
from s2s_helpers.training import gains_by_bf16

FILE = RESULTS / "captions.json"
SCORES = ("bleu", "chrf", "bleu_tokenised")
BASE = dict(
    vocabulary=4000, layers=3, dropout=0.1, label_smoothing=0.1, max_tokens=1024, lr=3e-3,
    warmup_steps=300, decay=0.5, ema=0.995,
)  # fmt: skip
RUNS = {
    5: dict(BASE, epochs=5, max_tokens=1536),
    20: dict(BASE, epochs=20, max_tokens=2048, lr=4e-3, dropout=0.2, ema=0.998),
}
# The models before the transformer, with settings of their own in place of its layers.
LSTM = dict(embedding=192, hidden=256, layers=1, cell="lstm", lr=3e-3)
MODELS = {
    "transformer": {},
    "lstm-bahdanau": dict(LSTM, model_class=AttentionSeq2Seq, attention="bahdanau"),
    "lstm-luong": dict(
        LSTM, model_class=AttentionSeq2Seq, attention="luong", score="general", input_feeding=False
    ),
}
# What notebook 08 shows: one pass each, and one choice that differs.
SHORT = dict(BASE, epochs=1, warmup_steps=50)
CHOICES = {
    "as it is": {},
    "2,000 subwords": dict(vocabulary=2000),
    "8,000 subwords": dict(vocabulary=8000),
    "1 + 1 layers": dict(layers=1),
    "no averaged weights": dict(ema=None),
    "batches of 4,096 tokens": dict(max_tokens=4096),
}


def tokenised_bleu(hypotheses: list[str], references: list[str]) -> float:
    """BLEU as papers on Multi30k report it."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    clean, cut = MosesPunctNormalizer(lang="fr"), MosesTokenizer(lang="fr")

    def tokens(texts):
        plain = [clean.normalize(text.lower()) for text in texts]
        return [cut.tokenize(text, return_str=True, escape=False) for text in plain]

    return metrics.bleu(tokens(hypotheses), tokens(references), tokenize="none", force=True)


def score(model, split: str, beam_size: int) -> dict:
    """BLEU, chrF and tokenised BLEU of a split, and the seconds it took to translate."""
    pairs = multi30k.load(split)
    references, started = [pair.target.strip() for pair in pairs], time.perf_counter()
    sources = [pair.source for pair in pairs]
    found = translate(model, sources, beam_size, length_penalty=1.0, attention=False)
    texts = [translation.text for translation in found]
    return {
        "seconds": time.perf_counter() - started,
        "bleu": metrics.bleu(texts, references),
        "chrf": metrics.chrf(texts, references),
        "bleu_tokenised": tokenised_bleu(texts, references),
    }


class Curve(Callback):
    """BLEU of the validation captions, greedily, `points` times on the way."""

    def __init__(self, points: int):
        self.points, self.rows, self.seconds = points, [], 0.0

    def on_epoch_end(self, trainer, epoch, metrics, **kwargs):
        every = max(1, trainer.config.epochs // self.points)
        if (epoch + 1) % every:
            return
        started = time.perf_counter()
        with trainer.averaged_weights():
            found = score(trainer.model, "val", 1)
        trained = sum(row["seconds"] for row in trainer.history.epochs)
        self.rows.append({"epoch": epoch + 1, "training_seconds": trained, **found})
        self.seconds += time.perf_counter() - started


def run(settings: dict, seed: int, points: int, folder=None, resume=False) -> tuple:
    """Train with these settings; what came of it, and the model."""
    started = time.perf_counter()
    curve = Curve(points)
    trainer = multi30k_trainer(
        seed, checkpoint_dir=folder, bf16=gains_by_bf16(), callbacks=[curve], **settings
    )
    prepared = time.perf_counter() - started
    history = trainer.fit(resume=resume, restore_best=False)
    if history.stopped == "interrupted":
        raise SystemExit("stopped; --resume goes on from the last full epoch")
    train, _ = multi30k_datasets(settings["vocabulary"])
    trained = sum(row["seconds"] for row in history.epochs)
    return {
        "settings": {name: value for name, value in settings.items() if name != "model_class"},
        "seed": seed, "bf16": gains_by_bf16(),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "seconds": prepared + trained, "preparation_seconds": prepared, "training_seconds": trained,
        "resumed": resume,
        "tokens_per_second": settings["epochs"] * sum(train.target_lengths) / trained,
        "threads": torch.get_num_threads(), "curve": curve.rows,
        "validation_perplexity": history.epochs[-1]["perplexity"],
    }, trainer.model  # fmt: skip


def table(results: dict) -> str:
    """One row for each run, means over its seeds."""
    head = ["run", "seeds", "seconds", "tokens/s", "search", "BLEU", "chrF", "BLEU, tokenised"]
    rows = []
    for name, seeds in results["runs"].items():
        runs = list(seeds.values())
        seconds, speed = (
            mean(run[key] for run in runs) for key in ("seconds", "tokens_per_second")
        )
        for search in ("greedy", "beam 5"):
            scores = [mean(run[search][key] for run in runs) for key in SCORES]
            cells = [name, str(len(runs)), f"{seconds:.0f}", f"{speed:,.0f}", search]
            rows.append([*cells, *(f"{score:.1f}" for score in scores)])
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "choices", "table"])
    parser.add_argument("--passes", type=int, choices=[5, 20], default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, choices=[1, 2], default=2)
    parser.add_argument("--model", choices=list(MODELS), default="transformer")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one pass, not saved")
    told = parser.parse_args()
    results = {"runs": {}, "choices": {}} | (json.loads(FILE.read_text()) if FILE.exists() else {})
    if told.what != "table":
        pin(told.threads)
    if told.what == "train":
        own, name = MODELS[told.model], f"{told.passes} passes"
        if told.model != "transformer":
            name += f", {told.model}"
        if told.quick:
            result, model = run(SHORT | own, told.seed, 1)
        else:
            folder = cache_folder() / f"captions-{told.model}-{told.passes}-{told.seed}"
            result, model = run(RUNS[told.passes] | own, told.seed, 8, folder, told.resume)
        for search, beam in ("greedy", 1), ("beam 5", 5):
            result[search] = score(model, "test_2016_flickr", beam)
        if told.quick:
            results["runs"] = {"1 pass": {str(told.seed): result}}
        else:
            results["runs"].setdefault(name, {})[str(told.seed)] = result
            write(results)
    elif told.what == "choices":
        for name, change in CHOICES.items():
            if name not in results["choices"]:
                result, _ = run(SHORT | change, told.seed, 1)
                results["choices"][name] = result
                write(results)
                print(name, [round(row["bleu"], 1) for row in result["curve"]], flush=True)
    print(table(results))


def write(results: dict) -> None:
    """Write the results, with what they ran on and how BLEU was counted."""
    results["machine"] = machine("sacrebleu", "sacremoses", "sentencepiece")
    results["signature"] = metrics.bleu_signature()
    keep(results, FILE)


if __name__ == "__main__":
    main()
