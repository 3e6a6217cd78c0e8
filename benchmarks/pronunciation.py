"""Spelling to pronunciation: error rates on 12,000 test words of CMUdict, beside published ones.

python benchmarks/pronunciation.py short              the model of notebook 11, three seeds
python benchmarks/pronunciation.py long [--seed 0] [--minutes 30] [--processes 2]
                                                      a transformer, by the clock
python benchmarks/pronunciation.py table
python benchmarks/pronunciation.py short --quick      200 words, not saved

`long` trains as the speedrun does (speedrun.py), from the dictionary to the test words in so many
minutes. Test words are looked at once, after the training. Everything goes to
benchmarks/results/pronunciation.json; notebook 11 shows it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from measuring import RESULTS, device_name, keep, machine, markdown, pin, spread
from speedrun import fit_until, in_processes, quick_trainer

from s2s_helpers.corpora.pronunciation import PUBLISHED, error_rates, load, pairs, vocabularies
from s2s_helpers.course.recipes import pronunciation_trainer
from s2s_helpers.data import Seq2SeqDataset
from s2s_helpers.decoding import translate

FILE = RESULTS / "pronunciation.json"
SEEDS = (0, 1, 2)
SEARCHES = {"greedy": 1, "beam 5": 5}
QUICK = dict(words=200, epochs=1, warmup_steps=1)
LONG = dict(
    width=128, layers=3, dropout=0.1, lr=7e-3, muon_lr=0.014, ema=0.999, max_tokens=1280,
    label_smoothing=0.1,
)  # fmt: skip
RESERVE = 45.0  # seconds of the long training to end in
NAMES = {"short": "notebook 11, one epoch", "long": "longer training"}


def score(model, words: list, beam_size: int) -> dict:
    """PER and WER (%) of these words, against the closest accepted pronunciation of each."""
    started = time.perf_counter()
    spoken = translate(model, [word.source for word in words], beam_size, attention=False)
    per, wer = error_rates([each.text for each in spoken], [word.accepted for word in words])
    return {"per": per, "wer": wer, "seconds": time.perf_counter() - started}


def run(settings: dict, seed: int, words: list | None = None) -> dict:
    """Train the model of notebook 11, and what came of it on the test words."""
    trainer = pronunciation_trainer(seed, **settings)
    history = trainer.fit(restore_best=False)
    seconds = sum(row["seconds"] for row in history.epochs)
    return results_of(trainer, settings, seed, seconds, words or load().test)


def results_of(trainer, settings: dict, seed: int, seconds: float, words: list) -> dict:
    """What is kept of a training of so many seconds, with the errors on these words."""
    return {
        "settings": settings, "seed": seed, "training_seconds": seconds, "steps": trainer.step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "threads": torch.get_num_threads(), "test_words": len(words),
        "device": device_name(torch.device("cpu"), torch.get_num_threads()),
        **{name: score(trainer.model, words, beam) for name, beam in SEARCHES.items()},
    }  # fmt: skip


def work(told: argparse.Namespace) -> None:
    """What each process of the long training does; the first one writes what it found."""
    splits = load()
    data = Seq2SeqDataset(pairs(splits.train), *vocabularies(splits.train))
    trainer, started = quick_trainer(data, LONG, told.seed), time.time()
    fit_until(told.deadline, trainer, falls=0.8)
    if trainer.processes.is_main:
        seconds = time.time() - started
        torch.set_num_threads(told.processes * torch.get_num_threads())
        found = results_of(trainer, LONG, told.seed, seconds, splits.test)
        found["validation"] = score(trainer.model, splits.validation, 5)
        Path(told.out).write_text(json.dumps(found), encoding="utf-8")


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
    parser.add_argument("what", choices=["short", "long", "table", "work"])
    parser.add_argument("--seed", type=int, default=0, help="of the long training")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="200 words, not saved")
    parser.add_argument("--out", help="where `work` writes what it found")
    parser.add_argument("--deadline", type=float, help="when its training ends, by time.time")
    told = parser.parse_args(arguments)
    if told.what == "work":
        return work(told)
    results = {"runs": {}} | (json.loads(FILE.read_text("utf-8")) if FILE.exists() else {})
    if told.what == "short":
        pin(1)
        if told.quick:
            results = {"runs": {"short": {"0": run(QUICK, 0, load().test[:200])}}}
        for seed in () if told.quick else SEEDS:
            results["runs"].setdefault("short", {})[str(seed)] = run({}, seed)
            write(results)
    elif told.what == "long":
        seconds = 60 * told.minutes - RESERVE
        found = in_processes(__file__, told.processes, seconds, "--seed", told.seed)
        results["runs"].setdefault("long", {})[str(told.seed)] = found
        write(results)
    print(table(results))


if __name__ == "__main__":
    main()
