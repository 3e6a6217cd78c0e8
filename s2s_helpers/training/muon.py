"""Muon: steps in which every direction of a hidden matrix counts alike.

The gradient of a weight matrix points mostly along a few directions, and so do the steps that
follow it. Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) keeps a momentum B
of the gradients and steps along its nearest orthogonal matrix: where B = U S V^T is the singular
value decomposition, along U V^T. So directions of small gradients move as far as the others.

Embeddings, the output layer, biases and gains do not map one hidden state to another. They are left
to AdamW.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

# a x + b x^3 + c x^5, three times: each nearest to 1 on the interval that the ones before make of
# [0.02, 1] (the greedy construction of Amsel et al. 2025, https://arxiv.org/abs/2505.16932), so
# that singular values in it end between 0.906 and 1.094.
POLYNOMIALS = (
    (7.7109693, -22.113755, 16.2487432),
    (3.215276, -2.4111721, 0.5013),
    (2.2183078, -1.5939896, 0.4107479),
)


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Matrices (..., rows, columns) with the same singular vectors, and singular values near 1.

    An odd polynomial of a matrix, a X + b (X X^T) X + c (X X^T)^2 X, is that polynomial of its
    singular values; so it takes products alone, which may be of bfloat16 (`dtype`). Directions of
    less than a fiftieth of the matrix's norm keep smaller values.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # of X X^T and X^T X, the smaller
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-30)).to(dtype)  # none is above 1
    shape = x.shape
    x = x.reshape(-1, *shape[-2:])  # (matrices, rows, columns)
    for a, b, c in POLYNOMIALS:
        xx = x @ x.mT  # (matrices, rows, rows)
        xx = torch.baddbmm(xx, xx, xx, beta=b, alpha=c)  # b X X^T + c (X X^T)^2
        x = torch.baddbmm(x, xx, x, beta=a)
    x = x.view(shape)
    return (x.mT if tall else x).to(matrices.dtype)


def hidden_matrices(model: nn.Module) -> dict[nn.Parameter, int]:
    """The weights that Muon takes, each with the number of matrices that are stacked in it: those
    of an LSTM's four gates, a GRU's three, or 1."""
    sides = (getattr(model, f"{side}_vocabulary", None) for side in ("source", "target"))
    words = {len(vocabulary) for vocabulary in sides if vocabulary is not None}
    found: dict[nn.Parameter, int] = {}
    tables: set[nn.Parameter] = set()
    for module in model.modules():
        gates = {"LSTM": 4, "GRU": 3}.get(getattr(module, "mode", ""), 1)
        for weight in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                tables.add(weight)
            elif weight.dim() == 2 and min(weight.shape) > 1 and not words & set(weight.shape):
                found[weight] = gates
    return {weight: gates for weight, gates in found.items() if weight not in tables}


class Muon(torch.optim.AdamW):
    """Muon for the hidden matrices of a model, AdamW for all else, as one optimiser.

    `lr`, `betas`, `eps` and `weight_decay` are AdamW's; `muon_lr` is the length of Muon's step:
    each singular value of a square matrix moves by so much, those of a tall one by sqrt(rows /
    columns) more, so that the change of a layer's output keeps its size. `momentum` is Nesterov's.
    `bf16` makes matrices orthogonal in bfloat16, faster where a processor has it. Raises ValueError
    for a `muon_lr` or a `momentum` that cannot be.
    """

    def __init__(
        self, model: nn.Module, lr: float = 1e-3, muon_lr: float = 0.01, momentum: float = 0.95,
        bf16: bool = False, **adamw: Any,
    ):  # fmt: skip
        if not (muon_lr > 0 and 0 <= momentum < 1):
            raise ValueError(
                f"muon_lr must be above 0 and momentum from 0 to below 1, got {muon_lr}, {momentum}"
            )
        matrices = hidden_matrices(model)
        rest = [p for p in model.parameters() if p not in matrices]
        groups: list[dict] = [{"params": rest, "gates": 0}] if rest else []
        for gates in sorted(set(matrices.values())):
            params = [p for p, number in matrices.items() if number == gates]
            groups.append({"params": params, "gates": gates, "lr": muon_lr, "momentum": momentum})
        super().__init__(groups, lr=lr, **adamw)
        self.dtype = torch.bfloat16 if bf16 else torch.float32

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step; `closure`, where there is one, computes the loss anew and is returned."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["gates"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["gates"]:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict) -> None:
        by_shape, momentum = defaultdict(list), group["momentum"]
        weights = [weight for weight in group["params"] if weight.grad is not None]
        for weight in weights:
            state = self.state[weight]
            if not state:  # "step", for AdamW looks for it when a state is read
                state |= {"step": torch.tensor(0.0), "momentum": torch.zeros_like(weight)}
            state["step"] += 1
        gradients = [weight.grad for weight in weights]
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, momenta, momentum)
        for pair in zip(weights, ahead, strict=True):
            parts = (matrix.chunk(group["gates"]) for matrix in pair)
            by_shape[pair[0].shape] += zip(*parts, strict=True)
        for pairs in by_shape.values():
            weights, ahead = zip(*pairs, strict=True)
            rows, columns = weights[0].shape
            steps = orthogonalised(torch.stack(ahead), self.dtype)  # (matrices, rows, columns)
            lr = group["lr"]
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
            torch._foreach_add_(weights, steps.unbind(), alpha=-lr * max(1, rows / columns) ** 0.5)
