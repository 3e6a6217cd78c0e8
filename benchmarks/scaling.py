"""A training on one and on two processes: speed, equal weights, a killed worker, waiting.

python benchmarks/scaling.py           three seeds, about four minutes on two free cores
python benchmarks/scaling.py --quick   one seed and few pairs; nothing is saved

Sentences of the phrasebook, steps of two batches of 1,024 tokens in every run. "Waiting" is by
tokens, not by the clock; the mean of means is measured on the first steps' gradients.
"""

import argparse
import csv
import json
import os
import signal
import statistics
import tempfile
from pathlib import Path

import measuring
import torch

from s2s_helpers.corpora import phrasebook
from s2s_helpers.course import scaling
from s2s_helpers.data import LengthBuckets, Seq2SeqDataset, collate
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.training import checkpoint, distributed
from s2s_helpers.vocabulary import Vocabulary

BATCHES = {
    "32 sentences": (False, dict(batch_size=32)),
    "32 sentences, neighbours": (True, dict(batch_size=32)),
    "512 tokens": (False, dict(max_tokens=512)),
    "512 tokens, neighbours": (True, dict(max_tokens=512)),
}
WORLDS = (2, 4, 8)


def trained(folder: Path, *arguments, kill_after: int | None = None, processes: int = 2) -> dict:
    """The last checkpoint of a run; rank 1 is killed once after so many steps."""
    workers, killed = {}, kill_after is None
    restarts = int(not killed)
    for line in scaling.torchrun(folder, *arguments, processes=processes, restarts=restarts):
        if "process" in line:
            workers[line.split()[1]] = int(line.split()[-1])
        if not killed and line.startswith(f"step {kill_after},"):
            os.kill(workers["1"], getattr(signal, "SIGKILL", signal.SIGTERM))
            killed = True
    return checkpoint.read(folder / "last.pt")


def difference(first: dict, second: dict) -> float:
    """The largest difference between the weights of two checkpoints."""
    there = second["model"]["weights"]
    return max((w - there[key]).abs().max().item() for key, w in first["model"]["weights"].items())


def tokens_a_second(saved: dict) -> float:
    """Target tokens of all processes in the second epoch; in the first they warm up."""
    _, epoch = saved["history"]["epochs"]
    return sum(step["tokens"] for step in saved["history"]["steps"]) / 2 / epoch["seconds"]


def one_seed(pairs: list, seed: int, every: int) -> dict:
    """Train alone, in two processes, and in two of which one is killed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows((pair.source, pair.target) for pair in pairs)
        same = [folder / "pairs.csv", "--batches-per-step", 2, "--save-every", every]
        same += ["--epochs", 2, "--seed", seed, "--held-out", 0]
        runs = {n: trained(folder / str(n), *same, processes=n) for n in (1, 2)}
        killed = trained(folder / "killed", *same, kill_after=2 * every)
    tokens = [[s["tokens"] for s in saved["history"]["steps"]] for saved in (runs[2], killed)]
    return {
        "seed": seed,
        "steps": runs[2]["step"],
        "tokens_a_second": {n: tokens_a_second(saved) for n, saved in runs.items()},
        "difference_1_2": difference(runs[1], runs[2]),
        "difference_killed": difference(runs[2], killed),
        "killed_counts_the_same_tokens": tokens[0] == tokens[1],
    }


def mean_of_means_error(model, dataset, sampler, steps: int) -> float:
    """How far the mean of the ranks' mean gradients is from the right one, over its norm."""

    def gradient(batch):
        model.zero_grad()
        Seq2SeqLoss()(model(batch)[0], batch.target_output).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    errors = []
    for step in sampler.steps(0)[:steps]:
        batches = [collate([dataset[n] for n in rows]) for rows in step]
        found = torch.stack([gradient(batch) for batch in batches])
        share = torch.tensor([float(batch.tokens) for batch in batches])
        right = (found * (share / share.sum())[:, None]).sum(dim=0)
        errors.append(((found.mean(dim=0) - right).norm() / right.norm()).item())
    return statistics.mean(errors)


def batches_of(pairs: list, steps: int) -> dict:
    """For each way to make batches, the share of time ranks wait, and the mean of means' error."""
    words = [Vocabulary.build([getattr(p, side) for p in pairs]) for side in ("source", "target")]
    dataset = Seq2SeqDataset(pairs, *words)
    lengths = list(zip(dataset.source_lengths, dataset.target_lengths, strict=True))
    torch.manual_seed(0)
    model, found = TransformerSeq2Seq(*words, width=64, layers=1, dropout=0.0), {}
    for name, (neighbours, size) in BATCHES.items():
        waiting = {}
        for world in WORLDS:
            sampler = distributed.ShardedBuckets(
                LengthBuckets(lengths, **size), world=world, neighbours=neighbours
            )
            loads = torch.tensor([[float(sampler.load(b)) for b in s] for s in sampler.steps(0)])
            waiting[world] = (1 - loads.mean() / loads.amax(dim=1).mean()).item()
            if world == WORLDS[0]:
                error = mean_of_means_error(model, dataset, sampler, steps)
        found[name] = {"waiting": waiting, "mean_of_means_error": error}
    return found


def table(results: dict) -> str:
    """The README's tables: the runs, and the batches."""
    runs = results["runs"]
    speeds = [run["tokens_a_second"] for run in runs]
    one, two = ([speed[n] for speed in speeds] for n in ("1", "2"))
    gains = [b / a for a, b in zip(one, two, strict=True)]

    away = [max(run[key] for run in runs) for key in ("difference_1_2", "difference_killed")]
    first = measuring.markdown(
        ["processes", "tokens/s", "times as fast", "largest difference of a weight"],
        [
            ["one", measuring.spread(one, ",.0f"), "1", "-"],
            [
                "two",
                measuring.spread(two, ",.0f"),
                measuring.spread(gains, ".2f"),
                f"{away[0]:.0e} from one",
            ],
            ["two, one killed", "-", "-", f"{away[1]:.0e} from two"],
        ],
    )
    head = [f"{world} ranks wait, %" for world in WORLDS]
    rows = [
        [
            name,
            *(
                f"{100 * share:.1f}"
                for share in (*row["waiting"].values(), row["mean_of_means_error"])
            ),
        ]
        for name, row in results["batches"].items()
    ]
    head = ["a rank's batch", *head, "mean of means: gradient off by, %"]
    return f"{first}\n\n{measuring.markdown(head, rows)}"


def main(quick: bool) -> None:
    seeds, pairs, every = ((0,), 400, 2) if quick else ((0, 1, 2), 6_000, 10)
    pairs = phrasebook.load().train[:pairs]
    batches = batches_of(pairs, 3 if quick else 50)
    runs = [one_seed(pairs, seed, every) for seed in seeds]
    results = {"machine": measuring.machine("accelerate"), "runs": runs, "batches": batches}
    if not quick:
        measuring.keep(results, measuring.RESULTS / "scaling.json")
    print(table(json.loads(json.dumps(results))))  # as from the file, where keys are texts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute, not saved")
    main(parser.parse_args().quick)
