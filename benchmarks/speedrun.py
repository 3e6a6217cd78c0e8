"""The speedrun: from raw captions to a test score on two cores, against the clock.

python benchmarks/speedrun.py run --minutes 5|15 [--seed 0] [--text lower|cased] [--processes 2]
                                 [--quick] [--set NAME=VALUE ...]
python benchmarks/speedrun.py table

`run` reads the files, learns subwords, trains, and translates test_2016_flickr; its seconds are all
of that, from the start of Python on. The training ends by the clock, so that the translating still
fits, and the rate falls with the time that is left. The rules are in speedrun.md;
results/speedrun.json holds the records. With --set, such as --set dropout=0.2 max_tokens=960, it is
a trial: it translates the validation captions in the place of the test ones, and is kept in
results/trials.json. To join, change `TRACKS` or `quick_trainer`, or write a script of your own
that keeps the rules.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from measuring import RESULTS, device_name, fit_for, keep, machine, markdown, spread
from multi30k import score
from torch import Tensor, nn
from torch.nn import functional as F

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
from s2s_helpers.vocabulary import PAD, SubwordVocabulary


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


FILE, TRIALS = RESULTS / "speedrun.json", RESULTS / "trials.json"
BASE = dict(
    width=128, layers=3, dropout=0.1, lr=7e-3, muon_lr=0.014, ema=0.995, vocabulary=4000,
    max_tokens=1280, label_smoothing=0.1, falls=0.8,
)  # fmt: skip
TRACKS = {
    5: BASE | dict(dropout=0.05),
    15: BASE | dict(dropout=0.15, ema=0.998),
}  # by minutes
QUICK = 40.0  # seconds of a quick run
RESERVE = 15.0  # seconds to end in: the last step, translating, and Python's own end
WARMUP = 3  # percent of the training, in which the rate rises
TEXTS = {"lower": True, "cased": False}  # whether all is lower-cased before subwords are learned


def quick_dropout(model: nn.Module) -> None:
    """Put `QuickDropout` in the place of every nn.Dropout."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, QuickDropout(child.p))


def vocabulary(lowercase: bool, size: int = 4000) -> SubwordVocabulary:
    """Subwords of both languages of the training captions."""
    texts = [text for pair in multi30k.load().train for text in (pair.source, pair.target)]
    return SubwordVocabulary.train(texts, size, lowercase=lowercase)


def embeddings_by_counting(data: Seq2SeqDataset, pieces: int, width: int) -> Tensor:
    """A vector of length 1 for each piece, (pieces, width): near where two stand in the same pairs
    of captions, as a word and its translation do.

    They are the left singular vectors of the table of which piece stands in which pair: latent
    semantic indexing of texts in two languages (Dumais et al. 1997). The first says no more than
    how frequent a piece is, and goes.
    """
    found = [(i, at) for at, pair in enumerate(data) for i in {*pair[0], *pair[1]}]
    places = torch.tensor(found).T  # (piece and pair, all that were found)
    piece, pair = (each.bincount().float()[each] for each in places)
    table = torch.sparse_coo_tensor(places, (piece * pair).rsqrt(), (pieces, len(data)))
    u, s, _ = torch.svd_lowrank(table, width + 1, niter=3)
    return F.normalize((u * s.sqrt())[:, 1:])


@torch.no_grad()
def start_quietly(model: TransformerSeq2Seq) -> None:
    """Let every residual branch start by adding nothing, and cross-attention by comparing like with
    like: its keys start as its queries. Together with `start_by_counting` a target word so looks at
    its own translation from the first step on."""
    for layer in (*model.encoder, *model.decoder):
        attentions = [layer.attention, *([layer.cross] if hasattr(layer, "cross") else [])]
        for last in [layer.feedforward[-1], *(attention.output for attention in attentions)]:
            last.weight.zero_()
            last.bias.zero_()
    for layer in model.decoder:
        layer.cross.key.load_state_dict(layer.cross.query.state_dict())


@torch.no_grad()
def start_by_counting(model: TransformerSeq2Seq, data: Seq2SeqDataset) -> None:
    """Let the embeddings that both languages share start from `embeddings_by_counting`."""
    table = model.target_embedding.weight
    table[PAD + 1 :] = embeddings_by_counting(data, *table.shape)[PAD + 1 :]  # that of PAD stays 0


def quick_trainer(data: Seq2SeqDataset, settings: dict, seed: int) -> Seq2SeqTrainer:
    """A transformer of these settings that starts quietly, and what trains it on this process, or
    with the others that torchrun started."""
    told, processes = SimpleNamespace(**settings), Processes.find()
    loader = sharded_loader(data, max_tokens=told.max_tokens, seed=seed, processes=processes)
    set_seed(seed)
    model = TransformerSeq2Seq(
        data.source_vocabulary, data.target_vocabulary, width=told.width,
        feedforward=2 * told.width, layers=told.layers, dropout=told.dropout,
    )  # fmt: skip
    quick_dropout(model)
    start_quietly(model)
    config = training_config(
        10**4, told.lr, muon_lr=told.muon_lr, bf16=gains_by_bf16(), progress=False, device="cpu"
    )
    return Seq2SeqTrainer(
        model, config, loader, loss=Seq2SeqLoss(told.label_smoothing), ema=told.ema, seed=seed,
        processes=processes,
    )  # fmt: skip


def fit_until(deadline: float, trainer: Seq2SeqTrainer, falls: float) -> None:
    """Train until the `deadline` (by time.time); the rate falls in the last share of the time."""
    schedule = linear_warmup(WARMUP, 100, round(100 * falls))
    fit_for(max(1.0, deadline - time.time()), trainer, schedule, time.time)


def changes(told: list[str]) -> dict:
    """["layers=4"] to {"layers": 4}. Raises ValueError for what is no setting or no number."""
    found = {}
    for name, _, value in (text.partition("=") for text in told):
        if name not in TRACKS[5]:
            raise ValueError(f"no setting {name!r}; there are: {', '.join(TRACKS[5])}")
        found[name] = type(TRACKS[5][name])(value)
    return found


def work(told: argparse.Namespace) -> None:
    """What each process does; the first one translates and writes what it found."""
    settings, captions = TRACKS[told.minutes] | changes(told.set), multi30k.load()
    shared = vocabulary(TEXTS[told.text], settings["vocabulary"])
    data = Seq2SeqDataset(captions.train, shared, shared)
    trainer = quick_trainer(data, settings, told.seed)
    start_by_counting(trainer.model, data)
    started = time.time()
    fit_until(told.deadline, trainer, settings["falls"])
    if not trainer.processes.is_main:
        return
    trained = time.time() - started
    tokens = sum(step["tokens"] for step in trainer.history.steps)
    torch.set_num_threads(told.processes * torch.get_num_threads())
    found = {
        "settings": settings, "seed": told.seed, "training_seconds": trained,
        "tokens": tokens, "steps": trainer.step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": device_name(torch.device("cpu"), torch.get_num_threads()),
    }  # fmt: skip
    split = captions.validation if told.set else captions.test  # the test is not for choosing
    found["validation" if told.set else "test"] = score(trainer.model, split, 5)
    Path(told.out).write_text(json.dumps(found), encoding="utf-8")


def in_processes(script: str, processes: int, seconds: float, *options: Any) -> dict:
    """Let a script `work` in so many processes, whose training ends in so many seconds from now:
    what the first of them found, and the seconds until all was done."""
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "found.json")
        command = ["work", *options, "--processes", processes, "--out", out]
        command += ["--deadline", started + seconds]
        if processes > 1:
            for line in torchrun(script, *command, processes=processes):
                print(line, flush=True)
        else:
            subprocess.run([sys.executable, script, *map(str, command)], check=True)
        found = json.loads(out.read_text("utf-8"))
    return {"seconds": time.time() - started, "processes": processes, **found}


def run(told: argparse.Namespace) -> dict:
    """Race once."""
    options = ["--minutes", told.minutes, "--seed", told.seed, "--text", told.text]
    options += ["--set", *told.set] * bool(told.set)
    seconds = (QUICK if told.quick else 60 * told.minutes) - RESERVE
    return in_processes(__file__, told.processes, seconds, *options)


def table(results: dict) -> str:
    """A row for each record: mean and spread over its seeds."""
    head = ["track", "text", "date", "seeds", "seconds", "million tokens", "tokenised BLEU", "BLEU"]
    head.append("chrF")
    rows = []
    for name, seeds in results["records"].items():
        runs = list(seeds.values())
        minutes, text = name.split(", ")
        row = [minutes, text, max(run["date"] for run in runs), str(len(runs))]
        row.append(spread([run["seconds"] for run in runs], ".0f"))
        row.append(spread([run["tokens"] / 1e6 for run in runs]))
        rows.append(row + [
            spread([run["test"][key] for run in runs]) if text == "cased" or "tok" in key else "-"
            for key in ("bleu_tokenised", "bleu", "chrf")
        ])  # fmt: skip
    return markdown(head, rows)


def trials_table(trials: list[dict]) -> str:
    """A row for each trial."""
    head = ["track", "text", "changed", "processes", "seed", "seconds"]
    head.append("tokenised BLEU, validation")
    rows = [
        [
            f"{run['minutes']} minutes", run["text"], ", ".join(run["changed"]),
            str(run["processes"]), str(run["seed"]), f"{run['seconds']:.0f}",
            f"{run['validation']['bleu_tokenised']:.1f}",
        ]
        for run in trials
    ]  # fmt: skip
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table", "work"])
    parser.add_argument("--minutes", type=int, choices=list(TRACKS), default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", choices=list(TEXTS), default="lower")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="40 seconds, not saved")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="a trial")
    parser.add_argument("--out", help="where `work` writes what it found")
    parser.add_argument("--deadline", type=float, help="when its training ends, by time.time")
    told = parser.parse_args()
    try:
        changes(told.set)
    except ValueError as error:
        parser.error(str(error))
    if told.what == "work":
        work(told)
        return
    if told.what == "run":
        found = run(told) | {"date": date.today().isoformat()}
        scores = found["validation" if told.set else "test"]
        print(f"{found['seconds']:.0f} seconds, {scores['bleu_tokenised']:.2f} BLEU")
        if told.quick:
            return
        found["machine"] = machine("sacrebleu", "sacremoses", "sentencepiece")
        if told.set:
            found |= {"minutes": told.minutes, "text": told.text, "changed": told.set}
            keep([*read(TRIALS, []), found], TRIALS)
        else:
            results = read(FILE, {"records": {}})
            seeds = results["records"].setdefault(f"{told.minutes} minutes, {told.text}", {})
            seeds[str(told.seed)] = found
            results["signature"] = metrics.bleu_signature()
            keep(results, FILE)
    print(table(read(FILE, {"records": {}})), trials_table(read(TRIALS, [])), sep="\n\n")


def read(path: Path, otherwise: Any) -> Any:
    """What a file of results holds, where there is one."""
    return json.loads(path.read_text("utf-8")) if path.exists() else otherwise


if __name__ == "__main__":
    main()
