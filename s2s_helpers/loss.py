"""What training makes small: the surprise of the right tokens, padding left out.

A loss is a callable (logits, targets) -> mean over the real tokens. Two methods are optional:
`total(logits, targets)`, the sum and the number of tokens, and `of_batch(model, batch)` for a loss
that needs more than the logits, or less. `total_loss` takes the best that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from s2s_helpers.vocabulary import PAD

LOGITS_AT_ONCE = 2**19  # 2 MB: what stays in the cache of one core; a GPU is handed more at a time


def total_loss(loss: Callable, model: nn.Module, batch: Any) -> tuple[Tensor, int, Tensor | None]:
    """The loss summed over the real tokens of a batch, their number, and the logits (batch, target,
    vocabulary); None in place of these where the model trains and the loss does without."""
    if hasattr(loss, "of_batch"):
        return loss.of_batch(model, batch)
    logits = logits_of(model, batch)
    return *total_of(loss, logits, batch.target_output), logits


def total_of(loss: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """A loss of logits (batch, target, vocabulary), summed over real tokens, and their number."""
    if _decides(loss, "total", "__call__" if not isinstance(loss, nn.Module) else "forward"):
        return loss.total(logits, targets)
    tokens = int((targets != PAD).sum())
    return loss(logits, targets) * tokens, tokens


def logits_of(model: nn.Module, batch: Any) -> Tensor:
    """What a model says to a batch, without its attention."""
    output = model(batch)
    return output if isinstance(output, Tensor) else output[0]


def is_plain_linear(module: nn.Module) -> bool:
    """Whether a module is torch's linear layer and computes what its weights say: no subclass (as
    parametrisations make one), no hooks, no forward of its own."""
    return type(module) is nn.Linear and not is_changed(module)


def is_changed(module: nn.Module) -> bool:
    """Whether a module has a hook, or a method of its own that its class does not know of."""
    return _hooked(module) or any(callable(getattr(type(module), own, 0)) for own in vars(module))


def _hooked(module: nn.Module) -> bool:
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    return any(vars(module)[f"_{kind}_hooks"] for kind in kinds)


def _decides(thing: Any, name: str, other: str) -> bool:
    """Whether the member `name` of an object is as new as its member `other`: from the same class,
    from a subclass of the one that defines `other`, or put on the object itself."""
    for owner in (thing, *type(thing).__mro__):
        own = getattr(owner, "__dict__", {})
        if name in own or other in own:
            return name in own
    return False


class Seq2SeqLoss(nn.Module):
    """Cross-entropy over real tokens, with label smoothing.

    For one position with the right token y among K, and ε = `label_smoothing`, the target
    distribution moves a share ε from y to all tokens alike (Szegedy et al. 2016, §7, with u
    uniform; Vaswani et al. 2017, §5.4, use ε = 0.1):

        q'(k) = (1 - ε) δ(k, y) + ε / K
        loss  = - Σ_k q'(k) log p(k) = (1 - ε) (- log p(y)) + ε (- 1/K Σ_k log p(k))

    where p = softmax(logits). Positions whose target is PAD count for nothing. A logit of -inf
    makes the smoothed loss infinite, as in PyTorch, since every token has a share of q': rule
    tokens out by a number such as -1e4, or train without smoothing.
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be from 0 to below 1, not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a real token, in nats: one number.

        `logits` (batch, target, vocabulary) and `targets` (batch, target), or any other leading
        shape the two share. Raises ValueError where shapes disagree or every target is PAD.
        """
        total, tokens = self.total(logits, targets)
        return total / tokens

    def total(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        """The sum over real tokens, and how many these are.

        To weigh tokens alike across batches of different sizes, add up both, then divide.
        """
        real, tokens = self._real(logits, targets, logits.shape[-1], "logits")
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()  # a sum over thousands of tokens needs the digits
        log_p = torch.log_softmax(logits, dim=-1)  # (batch, target, vocabulary)
        loss = -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # (batch, target)
        if self.label_smoothing > 0:
            uniform = -log_p.mean(dim=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        return loss[real].sum(), tokens

    def of_batch(self, model: nn.Module, batch: Any) -> tuple[Tensor, int, Tensor | None]:
        """As `total_loss`. A model in training that has `features` is spared its logits, unless it
        or this loss was changed: another forward below, a hook, its own words in place of the gold.
        """
        stock = _decides(self, "of_features", "total") and _decides(self, "of_features", "forward")
        split = _decides(model, "features", "forward") and not _hooked(model)
        gold = getattr(model, "teacher_forcing", 1.0) >= 1
        if model.training and stock and split and gold:
            values, layer, _ = model.features(batch)
            if is_plain_linear(layer):
                return *self.of_features(values, layer, batch.target_output), None
            logits = layer(values)  # (batch, target, vocabulary)
        else:
            logits = logits_of(model, batch)
        return *total_of(self, logits, batch.target_output), logits

    def of_features(
        self, features: Tensor, output_layer: nn.Linear, targets: Tensor
    ) -> tuple[Tensor, int]:
        """`total` of the logits `output_layer(features)`, which are never there all at once.

        `features` (batch, target, width). The logits are by far the largest tensors of a training,
        and so are their softmax and their gradients: the system hands out memory of that size
        afresh for every batch, page by page, which takes as long as the arithmetic. So only the
        features of real tokens go through the output layer, some rows at a time, in memory small
        enough to be used again; and since the gradient of the logits is known as soon as their
        softmax is, it is multiplied on at once, in the forward pass, and nothing is kept.

        Under `torch.autocast`, or of bfloat16 weights, the three multiplications read bfloat16;
        softmax and sums are float32.
        """
        real, tokens = self._real(features, targets, output_layer.out_features, "features")
        rows = real.flatten().nonzero().squeeze(-1)
        weight, bias = output_layer.weight, output_layer.bias
        device = weight.device.type
        mixed = torch.is_autocast_enabled(device)
        total = _LossOfFeatures.apply(
            features.flatten(0, -2).index_select(0, rows).to(weight.dtype),  # (tokens, width)
            weight,
            weight.new_zeros(len(weight)) if bias is None else bias,
            targets.flatten().index_select(0, rows),
            self.label_smoothing,
            torch.get_autocast_dtype(device) if mixed else weight.dtype,
        )
        return total, tokens

    @staticmethod
    def _real(values: Tensor, targets: Tensor, vocabulary: int, name: str) -> tuple[Tensor, int]:
        """True at real tokens, and their number; raises ValueError where `targets` are bad."""
        if values.shape[:-1] != targets.shape:
            raise ValueError(
                f"{name} of shape {tuple(values.shape)} need targets of shape "
                f"{tuple(values.shape[:-1])}, not {tuple(targets.shape)}"
            )
        real = targets != PAD
        tokens = int(real.sum())
        if tokens == 0:
            raise ValueError("every target is PAD: there is no token to learn from")
        if not 0 <= int(targets.min()) <= int(targets.max()) < vocabulary:
            raise ValueError(
                f"targets must be ids from 0 to {vocabulary - 1}, as there are logits; "
                f"they go from {int(targets.min())} to {int(targets.max())}"
            )
        return real, tokens

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}"


class _LossOfFeatures(torch.autograd.Function):
    """The loss summed over rows of features, (rows, width); the forward pass makes the gradients.

    With z = W h + b the logits of a row, p their softmax and q' as above:

        loss = log Σ_k exp z_k - (1 - ε) z_y - ε/K Σ_k z_k
        d loss / d z = p - q'
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, targets: Tensor,
        smoothing: float, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        wide, vocabulary = torch.promote_types(weight.dtype, torch.float32), len(weight)
        total = features.new_zeros((), dtype=wide)
        d_features = torch.empty_like(features)
        d_weight, d_bias = (torch.zeros_like(x, dtype=wide) for x in (weight, bias))
        h, w, b = (x.to(dtype) for x in (features, weight, bias))  # what is multiplied
        size = max(1, LOGITS_AT_ONCE * (1 if weight.is_cpu else 32) // vocabulary)
        for start in range(0, len(features), size):
            rows = slice(start, start + size)
            z = F.linear(h[rows], w, b).to(wide)  # (rows, vocabulary)
            right = targets[rows, None]
            p = z.softmax(dim=1)
            log_sum = z.amax(dim=1) - p.amax(dim=1).log()  # the largest p is exp(largest z) / sum
            z_y = z.gather(1, right).squeeze(1)
            total += (log_sum - (1 - smoothing) * z_y - smoothing * z.mean(dim=1)).sum()
            p.scatter_add_(1, right, p.new_full(right.shape, smoothing - 1))
            d_z = p.sub_(smoothing / vocabulary)
            d_bias += d_z.sum(dim=0)
            d_z = d_z.to(dtype)
            d_features[rows] = d_z @ w
            d_weight += d_z.T @ h[rows]
        ctx.save_for_backward(d_features, d_weight.to(weight.dtype), d_bias.to(bias.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple:
        gradients = ((d_total * each).to(each.dtype) for each in ctx.saved_tensors)
        return *gradients, None, None, None
