"""Optimisers of encoder-decoders side by side: equal seconds, rates tuned by one grid, three seeds.

python benchmarks/optimizers.py run [--tasks phrasebook captions] [--only Muon ...]
python benchmarks/optimizers.py table
python benchmarks/optimizers.py run --quick    one rate and two seconds each, not saved

Every optimiser has the same model, batches and seconds of one core (CPU time, so that a neighbour
on the machine takes nothing away), and its rate follows the share of the seconds that is spent: up
in the first tenth, then straight down to 0. Two keep what belongs to them: Adam the paper's
schedule (up, then 1 / sqrt(t)), and Schedule-Free a rate that does not fall. Seed 0 tries every
rate of `GRID`; the one of the lowest validation perplexity is trained with seeds 1 and 2.

SOAP and Schedule-Free are those of the package pytorch-optimizer: pip install -e '.[benchmarks]'.
Everything goes to benchmarks/results/optimizers.json; notebook 05 shows it.
"""

import argparse
import importlib
import importlib.util
import json
import math
from collections.abc import Callable
from functools import partial

import multi30k
from measuring import RESULTS, fit_for, keep, machine, markdown, pin, spread
from treadmill import OptimizerConfig

from s2s_helpers import metrics
from s2s_helpers.corpora import multi30k as captions
from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.recipes import multi30k_trainer, phrasebook_trainer
from s2s_helpers.decoding import translate
from s2s_helpers.training import inverse_square_root, linear_warmup
from s2s_helpers.training.muon import Muon

FILE = RESULTS / "optimizers.json"
GRID = (2e-3, 4e-3, 8e-3, 16e-3)
SEEDS = (0, 1, 2)
WARMUP = 10  # percent of the seconds
FALLING = linear_warmup(WARMUP, 100)
PAPER = dict(betas=(0.9, 0.98), eps=1e-9)  # Vaswani et al. 2017, section 5.3


# Each: where its class is, its settings, and its schedule.
OPTIMIZERS: dict[str, tuple[str, dict, Callable]] = {
    "AdamW": ("torch.optim.AdamW", PAPER | dict(fused=True), FALLING),
    "Adam, the paper's schedule": (
        "torch.optim.Adam", PAPER | dict(fused=True, weight_decay=0.0), inverse_square_root(WARMUP)
    ),
    "NAdamW": ("torch.optim.NAdam", PAPER | dict(decoupled_weight_decay=True), FALLING),
    "Muon, AdamW for the rest": (
        "s2s_helpers.training.muon.Muon", PAPER | dict(fused=True), FALLING
    ),
    "Schedule-Free AdamW": (
        "pytorch_optimizer.ScheduleFreeAdamW", dict(betas=(0.9, 0.98)),
        lambda percent: min(percent / WARMUP, 1.0),  # level, after the warm-up
    ),
    # No preconditioner for the sides of a matrix that are words.
    "SOAP": (
        "pytorch_optimizer.SOAP", dict(betas=(0.9, 0.98), max_precondition_dim=512), FALLING
    ),
}  # fmt: skip
TASKS = {"phrasebook": 15.0, "captions": 30.0}  # seconds of one core


def run(task: str, name: str, lr: float, seed: int, seconds: float) -> dict:
    """Train one model and say how good it is."""
    where, settings, schedule = OPTIMIZERS[name]
    module, _, kind = where.rpartition(".")
    own = getattr(importlib.import_module(module), kind)
    averages = hasattr(own, "eval")  # the weights, as Schedule-Free does: no running mean then
    make = multi30k_trainer if task == "captions" else partial(phrasebook_trainer, "transformer")
    trainer = make(seed, progress=False, epochs=10**4, **dict(ema=None) if averages else {})
    settings = {"weight_decay": 0.01} | settings | ({"muon_lr": 2 * lr} if own is Muon else {})
    trainer.config.optimizer = OptimizerConfig(own, lr, settings.pop("weight_decay"), settings)
    trainer._setup_optimizer()
    trainer.base_lrs = [group["lr"] for group in trainer.optimizer.param_groups]
    validation = trainer.val_dataloader
    if averages:
        trainer.optimizer.train()
    about = {"lr": lr, "seed": seed}
    try:
        fit_for(seconds, trainer, schedule)
    except FloatingPointError:  # the rate is too high for this optimiser
        return about | {"perplexity": math.inf, "score": 0.0, "steps": trainer.step}
    if averages:
        trainer.optimizer.eval()
    perplexity = trainer.evaluate(validation)["perplexity"]
    if task == "captions":
        score = multi30k.score(trainer.model, captions.load().test, 1)["bleu"]
    else:
        score = phrasebook_accuracy(trainer.model)
    return about | {"perplexity": perplexity, "score": score, "steps": trainer.step}


def phrasebook_accuracy(model) -> float:
    """Test sentences that are translated without an error, percent."""
    pairs = phrasebook.load().test
    texts = [each.text for each in translate(model, [p.source for p in pairs], attention=False)]
    return 100 * metrics.sequence_accuracy(texts, [pair.target for pair in pairs])


def best(runs: list[dict]) -> list[dict]:
    """The runs of the rate whose seed 0 has the lowest validation perplexity."""
    rate = min((run for run in runs if run["seed"] == 0), key=lambda run: run["perplexity"])["lr"]
    return [run for run in runs if run["lr"] == rate]


def table(results: dict) -> str:
    """For each task the optimisers, the best score first; means and spread over the seeds."""
    head = ["task", "optimiser", "best rate", "steps", "seeds", "validation perplexity", "score"]
    rows = []
    for task, optimizers in results["tasks"].items():
        chosen = {name: best(runs) for name, runs in optimizers.items()}
        means = {n: sum(run["score"] for run in runs) / len(runs) for n, runs in chosen.items()}
        for name in sorted(chosen, key=lambda name: -means[name]):
            runs = chosen[name]
            steps = sum(run["steps"] for run in runs) / len(runs)
            rows.append([
                task, name, f"{runs[0]['lr']:g}", f"{steps:,.0f}", str(len(runs)),
                spread([run["perplexity"] for run in runs], ".2f"),
                spread([run["score"] for run in runs]),
            ])  # fmt: skip
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--only", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    parser.add_argument("--quick", action="store_true", help="one rate, two seconds, not saved")
    told = parser.parse_args()
    pin(1)
    results = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"tasks": {}}
    if told.what == "run":
        names = told.only
        if importlib.util.find_spec("pytorch_optimizer") is None:
            names = [n for n in names if not OPTIMIZERS[n][0].startswith("pytorch_optimizer")]
            print("without pytorch-optimizer there is no SOAP and no Schedule-Free")
        if told.quick:
            results = {"tasks": {}}
        for task in told.tasks:
            for name in names:
                seconds = 2.0 if told.quick else TASKS[task]
                run(task, name, GRID[0], 0, 2.0)  # the first steps of a process cost more
                runs = []
                for lr in GRID[2:3] if told.quick else GRID:
                    runs.append(run(task, name, lr, 0, seconds))
                    print(task, name, runs[-1], flush=True)
                rate = best(runs)[0]["lr"]
                for seed in () if told.quick else SEEDS[1:]:
                    runs.append(run(task, name, rate, seed, seconds))
                results["tasks"].setdefault(task, {})[name] = runs
                results["machine"] = machine("pytorch_optimizer", "sacrebleu")
                results["seconds"] = dict(TASKS)
                if not told.quick:
                    keep(results, FILE)
    print(table(results))


if __name__ == "__main__":
    main()
