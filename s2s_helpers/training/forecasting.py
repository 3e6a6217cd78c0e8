"""Train a forecaster, and forecast with it.

A forecast is an array (horizon, quantiles) in the unit of the series.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from s2s_helpers.corpora.series import numbers
from s2s_helpers.files import as_seed
from s2s_helpers.models.forecaster import QUANTILES, Forecaster, Scaling, Windows
from s2s_helpers.models.view import eval_view
from s2s_helpers.training import Seq2SeqTrainer, set_seed, training_config
from s2s_helpers.training.schedules import Schedule, TeacherForcing, linear, linear_warmup


class PinballLoss(nn.Module):
    """Least at the quantile tau (Koenker and Bassett 1978), here the mean over all quantiles:

    L(y, q) = max(tau (y - q), (tau - 1) (y - q))
    """

    def __init__(self, quantiles: Sequence[float] = QUANTILES):
        super().__init__()
        self.quantiles = tuple(quantiles)

    def forward(self, found: Tensor, values: Tensor) -> Tensor:
        """Quantiles (..., quantiles) and values (...) to their mean loss."""
        total, count = self.total(found, values)
        return total / count

    def total(self, found: Tensor, values: Tensor) -> tuple[Tensor, int]:
        """The sum over values and their number, which the trainer adds up."""
        if found.shape != (*values.shape, len(self.quantiles)):
            raise ValueError(
                f"values {tuple(values.shape)} need quantiles of shape "
                f"{(*values.shape, len(self.quantiles))}, got {tuple(found.shape)}"
            )
        if found.dtype in (torch.bfloat16, torch.float16):
            found = found.float()  # as `Seq2SeqLoss` does
        tau, error = found.new_tensor(self.quantiles), values[..., None] - found
        return torch.maximum(tau * error, (tau - 1) * error).mean(dim=-1).sum(), values.numel()


def forecasting_trainer(
    values: Any, scaling: Scaling, horizon: int, forcing: Schedule | None = None,
    epochs: int = 30, lr: float = 4e-3, batch_size: int = 32, seed: int = 0, progress: bool = True,
    checkpoint_dir: str | Path | None = None, **settings: Any,
) -> Seq2SeqTrainer:  # fmt: skip
    """A forecaster and its trainer, on every full window of values (time,): an array, a list, a
    pandas Series, or what else `corpora.series.numbers` takes.

    forcing: share of teacher forcing by step (`schedules`); default: from 1 to 0 in the first half.
    settings: of the `Forecaster`. Raises ValueError for too few values, or where one is missing.
    """
    values = numbers(values, "the values", scaling.full + horizon)
    origins = range(scaling.full, len(values) - horizon + 1)
    later = np.stack([values[origin : origin + horizon] for origin in origins])
    every = Windows.of(scaling, [values[:origin] for origin in origins], horizon, later)
    order = torch.Generator().manual_seed(as_seed(seed))
    windows: Any = range(len(later))
    loader = DataLoader(windows, batch_size, True, generator=order, collate_fn=every.select)
    set_seed(seed)
    model = Forecaster(scaling, **settings)
    steps = epochs * len(loader)
    config = training_config(
        epochs, lr=lr, checkpoint_dir=checkpoint_dir, progress=progress, device="cpu"
    )
    return Seq2SeqTrainer(
        model, config, loader,
        loss=PinballLoss(model.quantiles), schedule=linear_warmup(steps // 10, steps), ema=0.99,
        callbacks=[TeacherForcing(forcing or linear(2 / steps))], seed=seed,
    )  # fmt: skip


def forecast(model: Forecaster, histories: Sequence, horizon: int, paths: int = 0) -> np.ndarray:
    """Quantiles (histories, horizon, quantiles) of what follows each history (time,), which is
    whatever `corpora.series.numbers` takes.

    The decoder reads its own median. With `paths` it draws what it reads from its quantiles, so
    many times for each history, and these paths' quantiles are the result (Salinas et al. 2020).
    Crossed quantiles are put in order. Raises ValueError as `Scaling` does.
    """
    batch = Windows.of(model.scaling, histories, horizon).to(next(model.parameters()).device)
    rows = torch.arange(len(batch.target), device=batch.target.device)
    rows, found = rows.repeat_interleave(max(paths, 1)), []
    with torch.inference_mode():
        model = eval_view(model)
        memory = model.encode(batch.source, batch.source_mask).select(rows)
        state, values = model.start(memory), batch.target[rows, 0]
        for _ in range(horizon):
            quantiles, state, _ = model.step(values, state, memory)
            quantiles = quantiles.sort(dim=-1).values
            values = draw(quantiles, model.quantiles) if paths else quantiles[:, model.median]
            found.append(values.view(-1, paths) if paths else quantiles)
        found = torch.stack(found, dim=1)  # (histories, horizon, quantiles or paths)
        if paths:
            found = found.quantile(found.new_tensor(model.quantiles), dim=-1).movedim(0, -1)
        found = found.cpu().double()
        return (batch.shift[:, :, None] + batch.size[:, :, None] * found).numpy()


def draw(quantiles: Tensor, tau: Sequence[float]) -> Tensor:
    """A number from each row of (rows, quantiles): the distribution is straight between them, and
    goes on as straight outside."""
    tau, luck = quantiles.new_tensor(tau), torch.rand(len(quantiles), device=quantiles.device)
    above = torch.searchsorted(tau, luck).clamp(1, len(tau) - 1)
    low, high = (quantiles.gather(1, place[:, None])[:, 0] for place in (above - 1, above))
    return low + (high - low) * (luck - tau[above - 1]) / (tau[above] - tau[above - 1])
