"""What each step from the naive loop to the speedrun is worth: a minute of one core each time.

python benchmarks/ladder.py run [--seeds 0 1 2]
python benchmarks/ladder.py table
python benchmarks/ladder.py run --quick    two seconds each, not saved

The model is the speedrun's: 3 + 3 layers, width 128, 4,000 subwords of lower-cased captions. A rung
keeps all that the rungs above it in the table changed. Seconds are CPU time; what comes before the
first batch, and the translating, are not counted. Everything goes to
benchmarks/results/ladder.json; notebook 08 shows it.
"""

import argparse
import json

import torch
from measuring import RESULTS, device_name, fit_for, keep, machine, markdown, pin, spread
from multi30k import score
from speedrun import quick_dropout, start_by_counting, start_quietly, vocabulary
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from s2s_helpers.corpora import multi30k
from s2s_helpers.data import Seq2SeqDataset, collate, make_loader
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.training import (
    Seq2SeqTrainer,
    constant,
    gains_by_bf16,
    linear_warmup,
    set_seed,
    training_config,
)
from s2s_helpers.vocabulary import PAD

FILE = RESULTS / "ladder.json"
SECONDS = 60.0
NAIVE = dict(
    max_tokens=None, lr=1e-3, muon_lr=None, falls=False, ema=None, whole_logits=True, bf16=False,
    quick=False, quiet=False, counted=False,
)  # fmt: skip
RUNGS: dict[str, dict] = {
    "a plain loop: AdamW, 64 pairs a batch": {},
    "batches of like lengths, 1,280 tokens": dict(max_tokens=1280),
    "five times the rate, falling to 0": dict(lr=5e-3, falls=True),
    "running mean of the weights": dict(ema=0.99),
    "loss of a few rows at a time": dict(whole_logits=False),
    "products in bfloat16": dict(bf16=True),
    "dropout's masks of 16 bits": dict(quick=True),
    "Muon for the hidden matrices": dict(lr=7e-3, muon_lr=0.014),
    "residual branches start at 0": dict(quiet=True),
    "embeddings start from counts": dict(counted=True),
}


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy as a plain loop has it, of all logits at once."""
    logits, targets = logits.flatten(0, 1), targets.flatten()
    return F.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=0.1)


def settings(name: str) -> dict:
    """What this rung and all above it in the table change in the plain loop."""
    told, names = NAIVE.copy(), list(RUNGS)
    for changed in names[: names.index(name) + 1]:
        told |= RUNGS[changed]
    return told


def run(name: str, seed: int, seconds: float) -> dict:
    """Train by all rungs up to this one; BLEU of the validation captions, greedily."""
    told = settings(name)
    shared, captions = vocabulary(lowercase=True), multi30k.load()
    data = Seq2SeqDataset(captions.train, shared, shared)
    if told["max_tokens"] is None:
        order = torch.Generator().manual_seed(seed)
        loader = DataLoader(data, 64, shuffle=True, collate_fn=collate, generator=order)
    else:
        loader = make_loader(data, max_tokens=told["max_tokens"], shuffle=True, seed=seed)
    set_seed(seed)
    model = TransformerSeq2Seq(shared, shared, width=128, feedforward=256, dropout=0.1)
    if told["quick"]:
        quick_dropout(model)
    if told["quiet"]:
        start_quietly(model)
    if told["counted"]:
        start_by_counting(model, data)
    bf16 = told["bf16"] and gains_by_bf16()
    config = training_config(
        10**4, told["lr"], bf16=bf16, muon_lr=told["muon_lr"], progress=False, device="cpu"
    )
    loss = smoothed if told["whole_logits"] else Seq2SeqLoss(0.1)
    trainer = Seq2SeqTrainer(model, config, loader, loss=loss, ema=told["ema"], seed=seed)
    fit_for(seconds, trainer, linear_warmup(10, 100) if told["falls"] else constant(1))
    tokens = sum(step["tokens"] for step in trainer.history.steps)
    return {
        "seed": seed, "steps": trainer.step, "tokens_per_second": tokens / seconds, "bf16": bf16,
        **score(model, captions.validation, 1),
    }  # fmt: skip


def table(results: dict) -> str:
    """A row for each rung, means and spread over the seeds."""
    rows = [
        [
            name, spread([run["tokens_per_second"] for run in runs], ",.0f"),
            spread([run["bleu_tokenised"] for run in runs]),
        ]
        for name, runs in results["rungs"].items()
    ]  # fmt: skip
    return markdown(["step (all above it stay)", "tokens/s", "tokenised BLEU, validation"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="two seconds each, not saved")
    told = parser.parse_args()
    if told.what == "table":
        print(table(json.loads(FILE.read_text("utf-8"))))
        return
    pin(1)
    seconds, seeds = (2.0, told.seeds[:1]) if told.quick else (SECONDS, told.seeds)
    run(next(reversed(RUNGS)), 0, 2.0)  # the first steps of a process cost more
    rungs = {name: [] for name in RUNGS}
    for seed in seeds:  # by turns: a slow hour of the machine is every rung's
        for name, runs in rungs.items():
            runs.append(run(name, seed, seconds))
            print(name, runs[-1], flush=True)
    results = {"rungs": rungs, "seconds": seconds, "machine": machine("sacrebleu", "sentencepiece")}
    results["device"] = device_name(torch.device("cpu"), 1)
    if not told.quick:
        keep(results, FILE)
    print(table(results))


if __name__ == "__main__":
    main()
