"""What a training is given, and what it gives back."""

import random
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy
import torch
from treadmill import OptimizerConfig, TrainingConfig

from s2s_helpers.files import as_seed
from s2s_helpers.training.muon import Muon


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (every device), before a model is built.

    Raises ValueError for a seed that is no whole number."""
    seed = as_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # NumPy's own must be from 0
    torch.manual_seed(seed)


def gains_by_bf16() -> bool:
    """Whether this processor has instructions for bfloat16; without, float32 is the faster."""
    # PyTorch has no public function for it.
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def training_config(
    epochs: int, lr: float = 1e-3, weight_decay: float = 0.01, clip: float | None = 1.0,
    accumulate: int = 1, patience: int | None = None, checkpoint_dir: str | Path | None = None,
    progress: bool = True, device: str = "auto", bf16: bool = False, muon_lr: float | None = None,
) -> TrainingConfig:  # fmt: skip
    """A Treadmill `TrainingConfig` with AdamW as Vaswani et al. 2017, section 5.3 set Adam: betas
    (0.9, 0.98), epsilon 1e-9.

    `clip` is the largest norm of the gradient, `accumulate` the number of batches to one optimiser
    step (on each process), `patience` the number of epochs without a better validation that stop
    the training. `bf16` multiplies matrices in bfloat16, 8 bits of precision in place of 24;
    weights, gradients, sums and the loss stay float32. Where `gains_by_bf16()`, large layers and
    vocabularies train a third faster; small ones gain nothing, as every new shape of a batch costs
    some milliseconds. `device="auto"` takes a GPU (CUDA, then Apple's) if there is one; several
    processes take those that `Processes` gives them. With `muon_lr`, such as 0.01, hidden matrices
    are trained by `Muon` with that rate, and AdamW has the rest.
    """
    if device == "auto" and not torch.cuda.is_available() and torch.backends.mps.is_available():
        device = "mps"  # Treadmill's "auto" knows CUDA only
    # One fused kernel for all parameters: 4 times as fast on small models.
    adamw = {"betas": (0.9, 0.98), "eps": 1e-9, "fused": True}
    kind, params = "AdamW", adamw
    if muon_lr is not None:
        kind, params = Muon, adamw | {"muon_lr": muon_lr, "bf16": gains_by_bf16()}
    config = TrainingConfig(
        epochs, device=device, progress_bar=progress, mixed_precision=bf16,
        optimizer=OptimizerConfig(kind, lr=lr, weight_decay=weight_decay, params=params),
        grad_clip_norm=clip, accumulate_grad_batches=accumulate, early_stopping_patience=patience,
    )  # fmt: skip
    # Set late: Treadmill would add a folder named after the time, which a resumed run cannot find.
    config.checkpoint_dir = None if checkpoint_dir is None else str(checkpoint_dir)
    return config


@dataclass
class History:
    """What happened in training; plain numbers only.

    epochs: a dict each with "epoch" (from 1), "train_loss", "validation_loss", "perplexity", one
    entry for each metric, and "seconds"; without validation only the first two and the last.
    steps: a dict for each optimiser step with "step" (from 1), "loss" (per token), "tokens" (real
    ones of the targets), "lr", and "grad_norm" (before clipping). stopped: None, or "early", or
    "interrupted". best_epoch: the epoch of the best weights.
    """

    epochs: list[dict] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    stopped: str | None = None
    best_epoch: int | None = None

    def to_dict(self) -> dict:
        """Plain lists and dicts, for json or a checkpoint."""
        return asdict(self)


@dataclass
class EpochSoFar:
    """What an epoch under way has added up: steps, batches of all ranks, the sum of their losses,
    their real tokens, and seconds."""

    steps: int = 0
    batches: int = 0
    loss: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
