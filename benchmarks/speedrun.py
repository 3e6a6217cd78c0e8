"""The speedrun: from raw captions to a test score on two cores, against the clock.

python benchmarks/speedrun.py run --minutes 5|15 [--seed 0] [--text lower|cased] [--processes 2]
                                 [--quick]
python benchmarks/speedrun.py table

`run` reads the files, learns subwords, trains, and translates test_2016_flickr; its seconds are all
of that, from the start of Python on. The rules are in speedrun.md; results/speedrun.json holds the
records. To join, change `train` and `TRACKS`, or write a script of your own that keeps the rules.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from measuring import RESULTS, device_name, keep, machine, markdown, spread
from multi30k import score
from torch import Tensor, nn

from s2s_helpers import metrics
from s2s_helpers.corpora import multi30k
from s2s_helpers.course.scaling import torchrun
from s2s_helpers.data import Seq2SeqDataset
from s2s_helpers.loss import Seq2SeqLoss
from s2s_helpers.models import TransformerSeq2Seq
from s2s_helpers.training import (
    Seq2SeqTrainer,
    gains_by_bf16,
    linear_warmup,
    set_seed,
    training_config,
)
from s2s_helpers.training.distributed import Processes, sharded_loader
from s2s_helpers.vocabulary import SubwordVocabulary


class QuickDropout(nn.Dropout):
    """Dropout by masks of 16 bits: four to each random number. Alone a third of nn.Dropout's time;
    end to end a step takes 6 % less."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.long).random_(-(2**63), None)
        draws = draws.view(torch.int16)[: x.numel()].view(x.shape)  # from -2^15 to 2^15 - 1
        kept = draws >= round(self.p * 2**16) - 2**15
        return x * (kept.to(x.dtype) / (1 - self.p))


FILE = RESULTS / "speedrun.json"
TRACKS = {
    5: dict(passes=9, width=128, dropout=0.1, lr=7e-3, muon_lr=0.014, ema=0.995),
    15: dict(passes=32, width=128, dropout=0.2, lr=7e-3, muon_lr=0.014, ema=0.998),
}
TEXTS = {"lower": True, "cased": False}  # whether all is lower-cased before subwords are learned


def train(
    passes: int, width: int, dropout: float, lr: float, muon_lr: float, ema: float,
    lowercase: bool, seed: int, vocabulary: int = 4000, max_tokens: int = 1280,
) -> Seq2SeqTrainer:  # fmt: skip
    """Train on this process, or with the others that torchrun started."""
    processes, pairs = Processes.find(), multi30k.load().train
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    shared = SubwordVocabulary.train(texts, vocabulary, lowercase=lowercase)
    data = Seq2SeqDataset(pairs, shared, shared)
    loader = sharded_loader(data, max_tokens=max_tokens, seed=seed, processes=processes)
    set_seed(seed)
    model = TransformerSeq2Seq(shared, shared, width=width, feedforward=2 * width, dropout=dropout)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, QuickDropout(child.p))
    steps = passes * len(loader)
    warmup = min(100, steps // 10)
    trainer = Seq2SeqTrainer(
        model, training_config(passes, lr, muon_lr=muon_lr, bf16=gains_by_bf16(), device="cpu"),
        loader, loss=Seq2SeqLoss(0.1), schedule=linear_warmup(warmup, steps, round(0.8 * steps)),
        ema=ema, seed=seed, processes=processes,
    )  # fmt: skip
    trainer.fit()
    return trainer


def work(told: argparse.Namespace) -> None:
    """What each process does; the first one translates and writes what it found."""
    settings = TRACKS[told.minutes] | (dict(passes=1) if told.quick else {})
    trainer = train(**settings, lowercase=TEXTS[told.text], seed=told.seed)
    if not trainer.processes.is_main:
        return
    trained = sum(epoch["seconds"] for epoch in trainer.history.epochs)
    tokens = sum(step["tokens"] for step in trainer.history.steps)
    torch.set_num_threads(told.processes * torch.get_num_threads())
    found = {
        "settings": settings, "seed": told.seed, "training_seconds": trained,
        "tokens_per_second": tokens / trained,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": device_name(torch.device("cpu"), torch.get_num_threads()),
        "test": score(trainer.model, multi30k.load().test, 5),
    }  # fmt: skip
    Path(told.out).write_text(json.dumps(found), encoding="utf-8")


def run(told: argparse.Namespace) -> dict:
    """Start the processes, and count the seconds until all is done."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        options = ["work", "--minutes", told.minutes, "--seed", told.seed, "--text", told.text]
        options += ["--processes", told.processes, "--out", out, *["--quick"] * told.quick]
        if told.processes > 1:
            for line in torchrun(__file__, *options, processes=told.processes):
                print(line, flush=True)
        else:
            subprocess.run([sys.executable, __file__, *map(str, options)], check=True)
        found = json.loads(out.read_text("utf-8"))
    return {"seconds": time.perf_counter() - started, "processes": told.processes, **found}


def table(results: dict) -> str:
    """A row for each record: mean and spread over its seeds."""
    head = ["track", "text", "date", "seeds", "seconds", "tokenised BLEU", "BLEU", "chrF"]
    rows = []
    for name, seeds in results["records"].items():
        runs = list(seeds.values())
        minutes, text = name.split(", ")
        row = [minutes, text, max(run["date"] for run in runs), str(len(runs))]
        row.append(spread([run["seconds"] for run in runs], ".0f"))
        rows.append(row + [
            spread([run["test"][key] for run in runs]) if text == "cased" or "tok" in key else "-"
            for key in ("bleu_tokenised", "bleu", "chrf")
        ])  # fmt: skip
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table", "work"])
    parser.add_argument("--minutes", type=int, choices=list(TRACKS), default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", choices=list(TEXTS), default="lower")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one pass, not saved")
    parser.add_argument("--out", help="where `work` writes what it found")
    told = parser.parse_args()
    if told.what == "work":
        work(told)
        return
    results = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {"records": {}}
    if told.what == "run":
        found = run(told) | {"date": date.today().isoformat()}
        print(f"{found['seconds']:.0f} seconds, {found['test']['bleu_tokenised']:.2f} BLEU")
        if told.quick:
            return
        found["machine"] = machine("sacrebleu", "sacremoses", "sentencepiece")
        seeds = results["records"].setdefault(f"{told.minutes} minutes, {told.text}", {})
        seeds[str(told.seed)] = found
        results["signature"] = metrics.bleu_signature()
        keep(results, FILE)
    print(table(results))


if __name__ == "__main__":
    main()
