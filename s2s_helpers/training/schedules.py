"""Functions of the step: factors for the learning rate, shares of teacher forcing.

Each function here returns a function of one number, the optimiser step. Learning-rate schedules are
asked for steps 1, 2, 3, ...; teacher-forcing schedules for i = 0, 1, 2, ..., as in their paper.
"""

import math
from collections.abc import Callable
from typing import Any

from treadmill import Callback

Schedule = Callable[[int], float]


def linear_warmup(warmup_steps: int, total_steps: int, decay_steps: int | None = None) -> Schedule:
    """Straight up to 1 in `warmup_steps`, then straight down to 0 at `total_steps`.

        factor(t) = min(t / warmup, (total - t) / decay, 1)

    `decay_steps` is how long the way down takes (default: all that is left after the warm-up); with
    a smaller number the factor stays at 1 in between. The step that reaches `total_steps` has the
    rate 0 and changes nothing but the average of the weights: one step of all.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must lie in 0 .. total_steps - 1, got {warmup_steps} of {total_steps}"
        )
    decay = total_steps - warmup_steps if decay_steps is None else decay_steps
    if not 0 < decay <= total_steps - warmup_steps:
        raise ValueError(
            f"decay_steps must lie in 1 .. {total_steps - warmup_steps} (what the warm-up leaves), "
            f"got {decay}"
        )
    return lambda step: min(step / max(warmup_steps, 1), max(total_steps - step, 0) / decay, 1.0)


def inverse_square_root(warmup_steps: int) -> Schedule:
    """The schedule of Vaswani et al. 2017, section 5.3, divided by its peak so that the factor is 1
    at the end of the warm-up (the optimiser's lr is then the highest rate reached):

        factor(t) = sqrt(warmup) * min(t ** -0.5, t * warmup ** -1.5)
    """
    if warmup_steps < 1:
        raise ValueError(f"warmup_steps must be at least 1, got {warmup_steps}")
    return lambda step: min(math.sqrt(warmup_steps / max(step, 1)), step / warmup_steps)


def constant(p: float) -> Schedule:
    """epsilon_i = p at every step i; p = 1 is plain teacher forcing."""
    if not 0 <= p <= 1:
        raise ValueError(f"p is a probability, got {p}")
    return lambda i: p


def linear(c: float, k: float = 1.0, minimum: float = 0.0) -> Schedule:
    """epsilon_i = max(epsilon, k - c * i) (Bengio et al. 2015, section 2.4).

    `c` is the slope per step, `k` the start, `minimum` the paper's epsilon, the least teacher
    forcing that is kept. To go from 1 to 0 in n steps: linear(1 / n).
    """
    if c < 0 or not 0 <= minimum <= k <= 1:
        raise ValueError(f"need c >= 0 and 0 <= minimum <= k <= 1, got {c=}, {k=}, {minimum=}")
    return lambda i: max(minimum, k - c * i)


def exponential(k: float) -> Schedule:
    """epsilon_i = k ** i with k < 1 (Bengio et al. 2015, section 2.4)."""
    if not 0 < k < 1:
        raise ValueError(f"k must lie between 0 and 1, got {k}")
    return lambda i: k**i


def inverse_sigmoid(k: float) -> Schedule:
    """epsilon_i = k / (k + exp(i / k)) with k >= 1 (Bengio et al. 2015, section 2.4).

    Half of the tokens are forced at i = k * ln(k).
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return lambda i: k / (k + math.exp(min(i / k, 700.0)))  # exp overflows beyond 709


class TeacherForcing(Callback):
    """Set `model.teacher_forcing` before every batch to schedule(optimiser steps done).

    With a falling schedule this is scheduled sampling (Bengio et al. 2015): the decoder learns to
    go on from its own tokens. The model gets its old value back after the training.
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    def on_train_start(self, trainer: Any, **kwargs: Any) -> None:
        if not hasattr(trainer.model, "teacher_forcing"):
            raise TypeError(f"a {type(trainer.model).__name__} has no attribute teacher_forcing")
        self.before = trainer.model.teacher_forcing

    def on_batch_start(self, trainer: Any, batch_idx: int, **kwargs: Any) -> None:
        trainer.model.teacher_forcing = self.schedule(trainer.step)

    def on_train_end(self, trainer: Any, **kwargs: Any) -> None:
        trainer.model.teacher_forcing = self.before
