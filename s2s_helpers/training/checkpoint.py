"""The state of a training, so that one that was stopped goes on as if it never had been.

Tensors and plain values only: a file is read with weights_only=True and cannot run code.
"""

import random
from pathlib import Path

import numpy
import torch
from treadmill import EarlyStopping

from s2s_helpers.files import read_file
from s2s_helpers.models import Seq2SeqModel, model_to_dict

# What Treadmill's callbacks remember from one epoch to the next.
CALLBACK_STATE = (
    *("best_value", "wait", "stopped_epoch"),
    *("best_model_path", "epochs_since_last_save", "lr_history", "metrics_history"),
)


def model_state(model) -> dict:
    """What `models.load_model` reads; for a module of another kind, its class name and weights."""
    if isinstance(model, Seq2SeqModel):
        return model_to_dict(model)
    return {"class": type(model).__name__, "weights": model.state_dict()}


def training_state(trainer) -> dict:
    """Everything the next epoch depends on, and the history so far."""
    return {
        "model": model_state(trainer.model),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler and trainer.scheduler.state_dict(),
        "average": trainer._average,
        "epoch": trainer.start_epoch,
        "step": trainer.step,
        "random": random_state(trainer.train_dataloader),
        "history": trainer.history.to_dict(),
        "best_value": trainer.best_value,
        "callbacks": [
            (type(c).__name__, {k: v for k, v in vars(c).items() if k in CALLBACK_STATE})
            for c in trainer.callbacks
        ],
    }


def restore(trainer, path) -> None:
    """Fill the trainer from a file of `training_state`.

    Raises FileNotFoundError, or ValueError where the file is broken or of another model.
    """
    path = Path(path)
    saved = read(path)
    if "random" not in saved:
        raise ValueError(f"{path} is not a training checkpoint; last.pt is one")
    check_same_model(path, saved["model"], model_state(trainer.model))
    for key, name, mine in (
        ("average", "ema", trainer.ema),
        ("scheduler", "a schedule", trainer.scheduler),
    ):
        if (saved[key] is None) != (mine is None):
            was = "without" if saved[key] is None else "with"
            raise ValueError(f"{path} is of a run {was} {name}: resume it {was} {name}")
    trainer.model.load_state_dict(saved["model"]["weights"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if trainer.scheduler is not None:
        trainer.scheduler.load_state_dict(saved["scheduler"])
    if saved["average"] is not None:
        trainer._average = [tensor.to(trainer.device) for tensor in saved["average"]]
    trainer.start_epoch, trainer.step = saved["epoch"], saved["step"]
    trainer.best_value = saved["best_value"]
    trainer._history = type(trainer.history)(**saved["history"])
    if trainer.history.best_epoch is not None:
        trainer._best_weights = read(path.with_name("best.pt"))["weights"]
    for callback, (name, state) in zip(trainer.callbacks, saved["callbacks"], strict=False):
        if type(callback).__name__ == name:
            vars(callback).update(state)
    # Asked anew, so that a run that stopped early goes on if it is given more patience.
    stoppers = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]
    trainer.stop_training = any(c.wait >= c.patience for c in stoppers)
    set_random_state(saved["random"], trainer.train_dataloader)


def check_same_model(path: Path, there: dict, here: dict) -> None:
    """Raise a ValueError that names the first thing in which the two model states differ."""
    for key in sorted((there.keys() | here.keys()) - {"weights"}):
        if there.get(key) != here.get(key):
            detail = "" if "vocabulary" in key else f": {there.get(key)}, not {here.get(key)}"
            raise ValueError(f"{path} is of another model; its {key} differs{detail}")
    shapes = [{k: v.shape for k, v in state["weights"].items()} for state in (there, here)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{path} is of another model; its weights have other names or shapes")


def read(path: Path) -> dict:
    """The dictionary in a file, on the CPU."""
    saved = read_file(path, "checkpoint", "; fit() without resume starts a new run")
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is not a checkpoint")
    return saved


def random_state(loader) -> dict:
    """The state of every generator that a training draws from."""
    kind, keys, *rest = numpy.random.get_state()
    generator = getattr(loader, "generator", None)
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None,
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "loader": generator and generator.get_state(),
    }


def set_random_state(state: dict, loader) -> None:
    """Put back what `random_state` gave; devices that are not here are left out."""
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    if state["loader"] is not None and getattr(loader, "generator", None) is not None:
        loader.generator.set_state(state["loader"])
