"""The state of a training, so that one that was stopped goes on as if it never had been.

Tensors and plain values only: a file is read with weights_only=True and cannot run code. Of
randomness nothing is kept but the seed: the trainer makes every batch's from it.
"""

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn
from treadmill import EarlyStopping

from s2s_helpers.files import plain, read_file
from s2s_helpers.models import Seq2SeqModel, model_to_dict
from s2s_helpers.models.saving import check_loads
from s2s_helpers.training.distributed import batches_per_step

FORMAT = 2  # 1 kept the state of random generators
ANEW = "; fit(resume=False) starts anew"

# What Treadmill's callbacks remember from one epoch to the next.
CALLBACK_STATE = (
    *("best_value", "wait", "stopped_epoch"),
    *("best_model_path", "epochs_since_last_save", "lr_history", "metrics_history"),
)


def model_state(model: nn.Module) -> dict:
    """What `models.load_model` reads; for a module of another kind, its class name and weights."""
    if isinstance(model, Seq2SeqModel):
        return model_to_dict(model)
    return {"class": type(model).__name__, "weights": model.state_dict()}


def check_model(model: nn.Module) -> None:
    """Raise ValueError, before hours of training, where best.pt could not be loaded again."""
    if isinstance(model, Seq2SeqModel):
        check_loads(model, plain(model_to_dict(model), ""))


def fixed_settings(trainer: Any) -> dict:
    """The settings that a run cannot change when it goes on, by name; plain values."""
    config, loader = trainer.config, trainer.train_dataloader
    sampler = getattr(loader, "batch_sampler", None)
    buckets = getattr(sampler, "buckets", sampler)
    settings = {
        "ema": "off" if trainer.ema is None else "on",
        "optimizer": type(trainer.optimizer).__name__,
        "scheduler": None,
        "monitor": trainer.monitor,
        "mode": trainer.mode,
        "seed": trainer.base_seed,
        "batches per step": config.accumulate_grad_batches * trainer.processes.world,
        "number of examples": _length(getattr(loader, "dataset", None)),
        "sampler": type(sampler or loader).__name__,
        "order": type(getattr(loader, "sampler", None)).__name__,
    }
    if trainer.scheduler is not None:
        params = {k: v for k, v in config.scheduler.params.items() if not callable(v)}
        settings["scheduler"] = f"{type(trainer.scheduler).__name__} {params}"
    for name in ("batch_size", "max_tokens", "shuffle", "seed", "drop_last"):
        settings[f"loader's {name}"] = getattr(buckets, name, None)
    for name in ("neighbours", "at_least"):
        settings[f"loader's {name}"] = getattr(sampler, name, None)
    if settings["loader's max_tokens"] is None:  # else it varies from epoch to epoch
        shares = 1 if batches_per_step(loader) is None else trainer.processes.world
        settings["number of batches"] = (_length(loader) or 0) * shares
    return settings | getattr(loader, "fixed_settings", {})


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except TypeError:
        return None


def between_epochs(trainer: Any) -> dict:
    """What changes at the end of an epoch, or its start, and so is kept as it was before it."""
    generator = getattr(trainer.train_dataloader, "generator", None)
    return {
        "loader": generator and generator.get_state(),
        "callbacks": [
            (*_kind(c), copy.deepcopy({k: v for k, v in vars(c).items() if k in CALLBACK_STATE}))
            for c in trainer.callbacks
        ],
    }


def _kind(callback: Any) -> tuple[str, str | None]:
    return type(callback).__name__, getattr(callback, "monitor", None)


def training_state(trainer: Any) -> dict:
    """Everything the next batch depends on, and the history so far."""
    return {
        "training_format": FORMAT,
        "settings": fixed_settings(trainer),
        "model": model_state(trainer.model),
        "optimizer": trainer.optimizer.state_dict(),
        "base_lrs": trainer.base_lrs,
        "scheduler": trainer.scheduler and trainer.scheduler.state_dict(),
        "average": trainer.average and trainer.average.state_dict(),
        "epoch": trainer.start_epoch,
        "step": trainer.step,
        "epoch_so_far": asdict(trainer.epoch_so_far),
        "between_epochs": trainer.between_epochs,
        "history": trainer.history.to_dict(),
        "best_value": trainer.best_value,
    }


def restore(trainer: Any, path: Path) -> None:
    """Fill the trainer from a file of `training_state`, of which the learning rate, other numbers
    of the optimiser, the schedule, and all that is not in `fixed_settings` may be new.

    Raises FileNotFoundError, or ValueError where the file is broken or of another model or run.
    """
    path = Path(path)
    saved = read(path)
    if saved.get("training_format") != FORMAT:
        raise ValueError(f"{path} is not a training checkpoint of this version{ANEW}")
    if trainer.seed is None:
        trainer.base_seed = saved["settings"]["seed"]
    there = identity(saved["model"]) | saved["settings"]
    if other := difference(there, identity(model_state(trainer.model)) | fixed_settings(trainer)):
        raise ValueError(f"{path} is of another run: its{other}{ANEW}")
    trainer.model.load_state_dict(saved["model"]["weights"])
    trainer.optimizer.load_state_dict(
        trainer.optimizer.state_dict() | {"state": saved["optimizer"]["state"]}
    )
    if trainer.scheduler is not None:
        trainer.scheduler.load_state_dict(saved["scheduler"])
        trainer.scheduler.base_lrs = list(trainer.base_lrs)
    groups, old_groups = trainer.optimizer.param_groups, saved["optimizer"]["param_groups"]
    lrs = zip(groups, old_groups, trainer.base_lrs, saved["base_lrs"], strict=True)
    for group, old_group, base, old_base in lrs:
        group["lr"] = old_group["lr"] * (base / old_base) if old_base else base
    trainer.average = None if trainer.ema is None else trainer.new_average()
    if trainer.average is not None:
        trainer.average.load_state_dict(saved["average"])
    trainer.start_epoch, trainer.step = saved["epoch"], saved["step"]
    trainer.epoch_so_far = type(trainer.epoch_so_far)(**saved["epoch_so_far"])
    trainer.between_epochs = saved["between_epochs"]
    trainer.best_value = saved["best_value"]
    trainer._history = type(trainer.history)(**saved["history"])
    if trainer.history.best_epoch is not None:
        trainer.best_weights = read(path.with_name("best.pt"))["weights"]
    left = list(saved["between_epochs"]["callbacks"])
    for callback in trainer.callbacks:
        for entry in [entry for entry in left if entry[:2] == _kind(callback)][:1]:
            left.remove(entry)
            vars(callback).update(copy.deepcopy(entry[2]))
    # Asked anew, so that a run that stopped early goes on if it is given more patience.
    stoppers = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]
    trainer.stop_training = any(c.wait >= c.patience for c in stoppers)
    if saved["between_epochs"]["loader"] is not None:
        trainer.train_dataloader.generator.set_state(saved["between_epochs"]["loader"])


def identity(model: dict) -> dict:
    """What two states of one model have in common: all but the numbers."""
    shapes = {name: tuple(weight.shape) for name, weight in model["weights"].items()}
    return {"model": {key: value for key, value in model.items() if key != "weights"} | shapes}


def difference(there: Any, here: Any, name: str = "") -> str:
    """The first entry in which two dictionaries differ, with both values; nothing: none."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in there | here:
            if there.get(key) != here.get(key):
                return difference(there.get(key), here.get(key), f"{name} {key}")
        return ""
    return f"{name} is {str(there)[:200]}, not {str(here)[:200]}"


def read(path: Path) -> dict:
    """The dictionary in a file, on the CPU. Raises FileNotFoundError or ValueError."""
    saved = read_file(path, "checkpoint", "; fit() starts a new run")
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is not a checkpoint{ANEW}")
    return saved
