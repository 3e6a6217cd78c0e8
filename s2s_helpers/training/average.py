"""A running average of a model's weights, which is often better than the last ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_of(model: nn.Module, decay: float, steps: Callable[[], int]) -> AveragedModel:
    """A copy of a model; at each `update_parameters(model)` its weights go to decay times
    themselves and 1 - decay times the model's.

    `steps` gives the steps so far: the memory is shorter at first, so that the random start is soon
    forgotten. The average of half precision is in float32.
    """

    def share() -> float:
        return 1 - min(decay, (1 + steps()) / (10 + steps()))

    def one(mean: Tensor, weight: Tensor, _: Any) -> Tensor:
        return mean.lerp(weight.float(), share())

    def all_of(means: Any, weights: Any, _: Any) -> None:
        torch._foreach_lerp_(means, weights, share())

    if {p.dtype for p in model.parameters()} & {torch.bfloat16, torch.float16}:
        # In half precision, a hundredth of a difference is less than the last digit.
        average = AveragedModel(model, avg_fn=one).float()
    else:
        average = AveragedModel(model, multi_avg_fn=all_of)
    average.update_parameters(model)  # the first call copies
    return average
