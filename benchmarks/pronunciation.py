"""Spelling to pronunciation: error rates on 12,000 test words of CMUdict, beside published ones.

python benchmarks/pronunciation.py short              the model of notebook 11, three seeds
python benchmarks/pronunciation.py long [--resume]    a larger model, 14 epochs, about half an hour
python benchmarks/pronunciation.py table
python benchmarks/pronunciation.py short --quick      200 words, not saved

A stopped training goes on with --resume, from its last full epoch; --epochs N makes the long one
another length. Test words are looked at once, after the training; the curve is of the validation
words, greedily. Everything goes to benchmarks/results/pronunciation.json; notebook 11 shows it.
"""

import argparse
import json
import statistics
import time

import torch
from measuring import RESULTS, keep, machine, markdown, pin, spread
from treadmill import Callback

from s2s_helpers.corpora.pronunciation import PUBLISHED, error_rates, load
from s2s_helpers.course.recipes import cache_folder, pronunciation_trainer
from s2s_helpers.decoding import translate

FILE = RESULTS / "pronunciation.json"
SEEDS = (0, 1, 2)
SEARCHES = {"greedy": 1, "beam 5": 5}
RUNS = {
    "short": {},  # the recipe as it is
    "long": dict(
        hidden=256, embedding=128, dropout=0.2, epochs=14, batch_size=128, lr=5e-3,
        warmup_steps=400, ema=0.999, label_smoothing=0.1,
    ),
}  # fmt: skip
QUICK = dict(words=200, epochs=1, warmup_steps=1)
NAMES = {"short": "notebook 11, one epoch", "long": "longer training"}


def score(model, words: list, beam_size: int) -> dict:
    """PER and WER (%) of these words, against the closest accepted pronunciation of each."""
    started = time.perf_counter()
    spoken = translate(model, [word.source for word in words], beam_size, attention=False)
    per, wer = error_rates([each.text for each in spoken], [word.accepted for word in words])
    return {"per": per, "wer": wer, "seconds": time.perf_counter() - started}


class Curve(Callback):
    """Writes the validation words' error rates into the record of every epoch."""

    def on_epoch_end(self, trainer, epoch, metrics, **kwargs):
        found = score(trainer.evaluated_model, load().validation, 1)
        trainer.history.epochs[-1] |= {"per": found["per"], "wer": found["wer"]}


def run(settings: dict, seed: int, folder=None, resume=False, words: list | None = None) -> dict:
    """Train with these settings, and what came of it on the test words."""
    trainer = pronunciation_trainer(seed, checkpoint_dir=folder, callbacks=[Curve()], **settings)
    try:
        history = trainer.fit(resume=resume, restore_best=False)
    except KeyboardInterrupt:
        raise SystemExit("stopped; --resume goes on from the last full epoch") from None
    words = words or load().test
    return {
        "settings": settings,
        "seed": seed,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "training_seconds": sum(row["seconds"] for row in history.epochs),
        "threads": torch.get_num_threads(),
        "resumed": resume,
        "test_words": len(words),
        "curve": history.epochs,
        **{name: score(trainer.model, words, beam) for name, beam in SEARCHES.items()},
    }


def table(results: dict) -> str:
    """Ours, means over the seeds and their spread, and then the published."""
    rows = []
    for name, seeds in results["runs"].items():
        runs = list(seeds.values())
        minutes = statistics.mean(each["training_seconds"] for each in runs) / 60
        size = f"{runs[0]['parameters'] / 1e6:.1f} M"
        for search in SEARCHES:
            rates = [spread([each[search][key] for each in runs], ".2f") for key in ("per", "wer")]
            label = f"{NAMES[name]}, {search}"
            rows.append([label, size, f"{minutes:.1f}", str(len(runs)), *rates])
    for name, (per, wer) in PUBLISHED.items():
        rows.append([name, "-", "-", "-", f"{per:.2f}", f"{wer:.2f}"])
    return markdown(["model", "parameters", "training, min", "seeds", "PER, %", "WER, %"], rows)


def write(results: dict) -> None:
    """Write the results with what they ran on."""
    keep(results | {"machine": machine("rapidfuzz")}, FILE)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["short", "long", "table"])
    parser.add_argument("--epochs", type=int, help="of the long training")
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quick", action="store_true", help="200 words, not saved")
    options = parser.parse_args(arguments)
    results = {"runs": {}} | (json.loads(FILE.read_text("utf-8")) if FILE.exists() else {})
    if options.what != "table":
        pin(options.threads)
        settings = dict(RUNS[options.what])
        if options.epochs and options.what == "long":
            settings["epochs"] = options.epochs
        if options.quick:
            found = run(settings | QUICK, 0, words=load().test[:200])
            results = {"runs": {options.what: {"0": found}}}
        for seed in () if options.quick else SEEDS[: 1 if options.what == "long" else None]:
            folder = cache_folder() / f"pronunciation-{options.what}-{seed}"
            found = run(settings, seed, folder, options.resume and (folder / "last.pt").exists())
            results["runs"].setdefault(options.what, {})[str(seed)] = found
            write(results)
    print(table(results))


if __name__ == "__main__":
    main()
