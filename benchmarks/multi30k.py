"""BLEU against the clock: real captions, from the raw files to the test score, in one command.

python benchmarks/multi30k.py train [--passes 5|8|15|20|24|60] [--seed 0] [--model transformer]
                                    [--threads 1|2] [--device auto|cpu] [--resume]
python benchmarks/multi30k.py train --quick    one pass of a small net, not saved
python benchmarks/multi30k.py choices    short trainings, with one choice changed in each
python benchmarks/multi30k.py table

`train` learns the subwords, encodes the captions, trains and translates test_2016_flickr with a
beam of 5. It can be stopped and goes on with --resume. Its seconds are all of that but the
translations, of the test set and for the learning curve. A GPU is taken if there is one.
Everything goes to benchmarks/results/captions.json; notebook 08 shows it.

BLEU and chrF are sacreBLEU's on cased, detokenised text. "Tokenised" is what papers on this data
set report: lower-cased, punctuation normalised, cut by Moses' rules for French. All scores are of a
beam of 5 and the running mean of the weights, where the table does not say something else; what
stands right of "tokenised" is tokenised BLEU, too.
"""

import argparse
import importlib.util
import json
import time

import torch
from filelock import FileLock
from measuring import (
    RESULTS,
    device_for,
    device_name,
    keep,
    machine,
    markdown,
    pin,
    spread,
)
from treadmill import Callback

from s2s_helpers import metrics
from s2s_helpers.corpora import multi30k
from s2s_helpers.course.recipes import cache_folder, multi30k_datasets, multi30k_trainer
from s2s_helpers.decoding import translate
from s2s_helpers.models import AttentionSeq2Seq
from s2s_helpers.training import gains_by_bf16

FILE = RESULTS / "captions.json"
SCORES = ("bleu", "chrf", "bleu_tokenised")
BASE = dict(
    vocabulary=4000, layers=3, dropout=0.1, label_smoothing=0.1, max_tokens=1024, lr=3e-3,
    warmup_steps=300, decay=0.5, ema=0.995, muon_lr=None,
)  # fmt: skip
LONGER = dict(BASE, max_tokens=2048, lr=4e-3, dropout=0.2, ema=0.998)
HASTY = dict(BASE, vocabulary=8000, dropout=0.05, lr=5e-3, decay=0.8, max_tokens=1280)
RUNS = {
    5: dict(HASTY, epochs=5),
    8: dict(BASE, epochs=8, max_tokens=1536, vocabulary=8000),
    15: dict(HASTY, epochs=15, max_tokens=2048, dropout=0.15, ema=0.998),
    20: dict(LONGER, epochs=20),
    24: dict(LONGER, epochs=24, vocabulary=8000),
    60: dict(
        LONGER, epochs=60, vocabulary=8000, width=256, feedforward=512, dropout=0.3, lr=3e-3,
        max_tokens=4096,
    ),
}  # fmt: skip
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
LAST = 5  # passes whose weights are averaged, as Vaswani et al. 2017, section 6.1 do
MEAN = f"mean of {LAST} passes"


def tokenised_bleu(hypotheses: list[str], references: list[str]) -> float:
    """BLEU as papers on Multi30k report it."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    clean, cut = MosesPunctNormalizer(lang="fr"), MosesTokenizer(lang="fr")

    def tokens(texts):
        plain = [clean.normalize(text.lower()) for text in texts]
        return [cut.tokenize(text, return_str=True, escape=False) for text in plain]

    return metrics.bleu(tokens(hypotheses), tokens(references), tokenize="none", force=True)


def score(model, pairs: list, beam_size: int) -> dict:
    """BLEU, chrF and tokenised BLEU of these captions, and the seconds it took to translate."""
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
        found = score(trainer.evaluated_model, multi30k.load().validation, 1)
        trained = sum(row["seconds"] for row in trainer.history.epochs)
        self.rows.append({"epoch": epoch + 1, "training_seconds": trained, **found})
        self.seconds += time.perf_counter() - started


class LastWeights(Callback):
    """The weights, not averaged, at the end of each of the last passes."""

    def __init__(self):
        self.kept = []

    def on_batch_end(self, trainer, batch_idx, metrics, **kwargs):
        last = batch_idx + 1 == len(trainer.train_dataloader)
        if last and trainer.current_epoch >= trainer.config.epochs - LAST:
            self.kept.append({k: v.detach().clone() for k, v in trainer.model.state_dict().items()})

    def mean(self) -> dict:
        names = self.kept[-1]
        return {k: torch.stack([w[k] for w in self.kept]).float().mean(0) for k in names}


def run(settings: dict, seed: int, points: int, folder=None, resume=False, device="cpu") -> tuple:
    """Train with these settings; what came of it, and the model."""
    started = time.perf_counter()
    curve, weights = Curve(points), LastWeights()
    device = device_for(device).type
    bf16 = device == "cpu" and gains_by_bf16()
    # The notebook's transformer is narrower; the models before it have no such settings.
    shape = {} if "model_class" in settings else dict(width=128, feedforward=256)
    trainer = multi30k_trainer(
        seed, checkpoint_dir=folder, bf16=bf16, callbacks=[curve, weights],
        device=device, **shape | settings,
    )  # fmt: skip
    prepared = time.perf_counter() - started
    try:
        history = trainer.fit(resume=resume, restore_best=False)
    except KeyboardInterrupt:
        raise SystemExit("stopped; --resume goes on from the last full epoch") from None
    train, _ = multi30k_datasets(settings["vocabulary"])
    trained = sum(row["seconds"] for row in history.epochs)
    return {
        "settings": {name: value for name, value in settings.items() if name != "model_class"},
        "seed": seed, "bf16": bf16,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "seconds": prepared + trained, "preparation_seconds": prepared, "training_seconds": trained,
        "resumed": resume,
        "tokens_per_second": settings["epochs"] * sum(train.target_lengths) / trained,
        "threads": torch.get_num_threads(), "curve": curve.rows,
        "device": device_name(trainer.device, torch.get_num_threads()),
        "validation_perplexity": history.epochs[-1]["perplexity"],
    }, trainer.model, weights  # fmt: skip


def table(results: dict) -> str:
    """A row for each run: mean and spread over its seeds."""
    head = ["run", "on", "seeds", "seconds", "tokens/s", "BLEU", "chrF", "tokenised"]
    head += ["greedy", "last weights", MEAN]
    rows = []
    for name, seeds in results["runs"].items():
        runs = list(seeds.values())

        def of(*keys, form=".1f", runs=runs):
            values = runs
            for key in keys:
                values = [value[key] for value in values if key in value]
            return spread(values, form)

        about = [name.partition(" on ")[0], runs[0]["device"], str(len(runs))]
        about += [of(key, form=",.0f") for key in ("seconds", "tokens_per_second")]
        scores = [of("beam 5", key) for key in SCORES] + [of("greedy", "bleu_tokenised")]
        scores += [of("weights", key, "beam 5", "bleu_tokenised") for key in ("last", MEAN)]
        rows.append([*about, *scores])
    return markdown(head, rows)


def train(told) -> None:
    """One training; its scores, saved and shown."""
    pin(told.threads)
    own = MODELS[told.model]
    small = dict(SHORT, layers=1, vocabulary=2000)
    settings, points = (small, 1) if told.quick else (RUNS[told.passes], 4)
    folder = None
    if not told.quick:
        folder = cache_folder() / f"captions-{told.model}-{told.passes}-{told.seed}"
    result, model, weights = run(
        settings | own, told.seed, points, folder, told.resume, told.device
    )
    test = multi30k.load().test  # test_2016_flickr
    for search, beam in ("greedy", 1), ("beam 5", 5):
        result[search] = score(model, test, beam)
    # Not where it was resumed in between, nor where the last passes are all there were.
    if not told.quick and told.passes > LAST and len(weights.kept) == LAST:
        result["weights"] = {}
        for name, state in ("last", weights.kept[-1]), (MEAN, weights.mean()):
            model.load_state_dict(state)
            result["weights"][name] = {"beam 5": score(model, test, 5)}
    name = ("1 pass" if told.quick else f"{told.passes} passes") + (
        "" if told.model == "transformer" else f", {told.model}"
    )
    name += f" on {result['device']}"
    if told.quick:
        print(table({"runs": {name: {str(told.seed): result}}}))
    else:
        print(table(write("runs", name, result, str(told.seed))))


def write(kind: str, name: str, result: dict, seed: str | None = None) -> dict:
    """Put a result into the file, with what it ran on and how BLEU was counted; all of the file."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder() / "captions.lock"):  # several trainings may run at once
        results = {"runs": {}, "choices": {}}
        results |= json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
        result = result | {"machine": machine("sacrebleu", "sacremoses", "sentencepiece")}
        if seed is None:
            results[kind][name] = result
        else:
            results[kind].setdefault(name, {})[seed] = result
        by_passes = sorted(results["runs"], key=lambda run: (int(run.partition(" ")[0]), run))
        results["runs"] = {run: results["runs"][run] for run in by_passes}
        results["signature"] = metrics.bleu_signature()
        keep(results, FILE)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "choices", "table"])
    parser.add_argument("--passes", type=int, choices=list(RUNS), default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, choices=[1, 2], default=2)
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    parser.add_argument("--model", choices=list(MODELS), default="transformer")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one pass of a small net, not saved")
    told = parser.parse_args()
    if told.what != "table" and importlib.util.find_spec("sacremoses") is None:
        parser.error("it scores with sacremoses: pip install -e '.[test]'")
    if told.what == "table":
        print(table(json.loads(FILE.read_text("utf-8"))))
    elif told.what == "train":
        train(told)
    else:
        pin(told.threads)
        there = json.loads(FILE.read_text("utf-8"))["choices"] if FILE.exists() else {}
        for name, change in CHOICES.items():
            if name not in there:
                result, *_ = run(SHORT | change, told.seed, 1)
                write("choices", name, result)
                print(name, [round(row["bleu"], 1) for row in result["curve"]], flush=True)


if __name__ == "__main__":
    main()
