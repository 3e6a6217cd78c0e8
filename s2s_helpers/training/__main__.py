"""Train a translator on pairs of one's own, in one process or several:

    python -m s2s_helpers.training FOLDER pairs.csv
    torchrun --nproc-per-node 2 -m s2s_helpers.training FOLDER sentences.en sentences.fr

FOLDER gets last.pt, best.pt and model.pt; a run that was stopped goes on. What serves it:

    python -m s2s_helpers.production.server --model FOLDER/model.pt
"""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from treadmill import Callback

from s2s_helpers.corpora import read_pairs, wmt
from s2s_helpers.models import save_model
from s2s_helpers.training.distributed import Processes
from s2s_helpers.training.translation import Stream, translation_trainer

# What may be said beside the files, with its default; 0: none.
OPTIONS: dict[str, Any] = dict(
    epochs=10, patience=3, lr=2e-3, warmup=200, label_smoothing=0.1, ema=0.0, subwords=0, limit=0,
    max_tokens=1024, max_length=0, batches_per_step=0, save_every=100, seed=0,
    width=128, heads=4, layers=2, feedforward=256, dropout=0.1, max_positions=256,
)  # fmt: skip
NONE_IF_ZERO = ("patience", "ema", "subwords", "max_length", "batches_per_step", "save_every")


def say(line: str) -> None:
    """Print a line in one piece, for several processes write here."""
    print(f"{line}\n", end="", flush=True)


class Report(Callback):
    """Says where a training goes on, its mean loss every so many steps, and its epochs."""

    def __init__(self, every: int | None):
        self.every, self.said = every, None

    def on_batch_start(self, trainer: Any, **kwargs: Any) -> None:
        if self.said is None and trainer.step:
            say(f"rank {trainer.processes.rank} goes on after step {trainer.step}")
        self.said = trainer.step if self.said is None else self.said

    def on_batch_end(self, trainer: Any, **kwargs: Any) -> None:
        steps = trainer.history.steps[self.said :]
        if trainer.processes.is_main and self.every and steps and trainer.step % self.every == 0:
            tokens = sum(step["tokens"] for step in steps)
            loss = sum(step["loss"] * step["tokens"] for step in steps) / tokens
            say(f"step {trainer.step}, loss {loss:.4f}")
            self.said = trainer.step

    def on_epoch_end(self, trainer: Any, **kwargs: Any) -> None:
        if trainer.processes.is_main:
            record = trainer.history.epochs[-1]
            parts = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in record.items()]
            say(", ".join(parts))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the command line; see above."""
    parser = argparse.ArgumentParser(
        prog="python -m s2s_helpers.training", description=__doc__.split(",")[0] + "."
    )
    parser.add_argument("folder", help="for last.pt, best.pt and model.pt")
    parser.add_argument("pairs", help=".csv, .tsv, .jsonl, or a text file with a sentence a line")
    parser.add_argument("target", nargs="?", help="the text file of the translations")
    parser.add_argument("--validation", nargs="+", metavar="FILE", help="as pairs and target")
    parser.add_argument("--held-out", type=float, default=0.05, help="share, in place of a file")
    parser.add_argument("--stream", type=int, metavar="PAIRS", help="read as many for each epoch "
                        "from PAIRS, a name of WMT's (wmt14) or a file of its form")  # fmt: skip
    parser.add_argument("--languages", default="fr-en", help="of the stream")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16")
    parser.add_argument("--device", default="auto")
    for name, default in OPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"default: {default}")
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in OPTIONS}
    settings |= {name: settings[name] or None for name in NONE_IF_ZERO}
    limit, processes = settings.pop("limit") or None, Processes.find()
    validation: Any = options.held_out
    if options.validation:
        validation = read_pairs(*options.validation[:2])
    if options.stream:
        path = options.pairs if Path(options.pairs).suffix else None
        read = partial(wmt.stream, options.pairs, options.languages, limit=limit, path=path)
        of_pass = lambda n, rank, world: read(rank=rank, world=world, seed=n)  # noqa: E731
        pairs: Any = Stream(of_pass, options.stream)
    else:
        pairs = read_pairs(options.pairs, options.target, limit=limit)
        if processes.is_main and pairs.skipped:
            say(f"left out {pairs.skipped} rows with an empty side")
    trainer = translation_trainer(
        pairs, options.folder, validation, progress=False, device=options.device, bf16=options.bf16,
        callbacks=[Report(settings["save_every"])], processes=processes, **settings,
    )  # fmt: skip
    place = f"rank {processes.rank} of {processes.world} on {trainer.device.type}"
    say(f"{place}, process {os.getpid()}")
    history = trainer.fit()
    path = Path(options.folder) / "model.pt"
    if processes.is_main:
        save_model(trainer.model, path)
        last = len(history.epochs)
        kept = last if trainer.val_dataloader is None else history.best_epoch
        say(f"{path.name} is of epoch {kept} of {last}")
    processes.wait_for_all()
    processes.end()


if __name__ == "__main__":
    main()
