"""Matrix products with the weights laid out as the processor reads them.

PyTorch multiplies float32 matrices on a CPU with MKL, which on some processors is slower on wide
matrices than oneDNN, another library inside PyTorch. Its kernels want the weights rearranged once
("prepacked"); for bfloat16 and int8, a half and a quarter of the bytes and on some processors two
and four times the speed, that is the only fast way. PyTorch has it under private names, so whatever
goes wrong here leaves the plain layer.
"""

import math
import warnings
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s_helpers.models.view import VIEW, view_of

# From so many multiplications (rows x inputs x outputs) on it pays, the way there and back counted.
LEAST = {torch.float32: 1.6e6, torch.bfloat16: 2e6, torch.int8: 0.5e6}
LEAST_ROWS = 4  # fewer read the weights once, however they are laid out
SWITCHING = Lock()  # the library for int8 is chosen for the whole process
WIDE = 1000  # outputs of a wide layer, such as the one to the vocabulary


def prepacked(model: Any, dtype: torch.dtype | None = None) -> Any:
    """The model for decoding: an `eval_view` whose linear layers multiply on prepacked weights.

    A layer is packed when it first gets rows enough to pay for it. From then on it has the weights
    of that moment, so a view that is kept is made anew after more training. `dtype` is what is
    multiplied in: float32 (the default), bfloat16 (the default under `torch.autocast` of that type)
    or int8, which is the fastest and changes a few words. A layer that is not exactly a
    `torch.nn.Linear`, has a hook, or a forward of its own, stays as it is. A view is its own view.

    Raises ValueError for another dtype, or a view that was made for another one; warns where a
    dtype that was asked for cannot be had.
    """
    if dtype not in (None, *LEAST):
        raise ValueError(f"dtype must be float32, bfloat16 or int8 of torch, got {dtype}")
    if made_for := vars(model).get(VIEW):
        if dtype is not None and made_for != str(dtype):
            raise ValueError(f"this view was made for {made_for}, not for {dtype}")
        return model
    chosen, missed = dtype or autocast_type(), []

    def replace(module: nn.Module) -> nn.Module | None:
        if type(module) is not nn.Linear:
            return None
        if not can_pack(chosen) or module.weight.device.type != "cpu":
            missed.append(module)
        elif module.weight.dtype == torch.float32:
            rows = max(LEAST_ROWS, math.ceil(LEAST[chosen] / module.weight.numel()))
            return PackedLinear(chosen, rows * module.in_features)
        return None

    view = view_of(model, replace, str(chosen), direct=True)
    if missed and dtype not in (None, torch.float32):
        warnings.warn(
            f"{len(missed)} linear layers cannot be multiplied in {dtype} here, and stay as they "
            "are: it needs a model on a CPU, and a PyTorch and a processor that know how",
            stacklevel=2,
        )
    return view


def autocast_type() -> torch.dtype:
    """What to multiply in on a CPU: bfloat16 where `torch.autocast` says so, else float32."""
    asked = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    return torch.bfloat16 if asked == torch.bfloat16 else torch.float32


class PackedLinear(nn.Linear):
    """A linear layer in a view: many rows are multiplied on packed weights, few as ever."""

    dtype: torch.dtype
    least: int  # numbers in the fewest rows
    multiply: Callable[[Tensor], Tensor] | None

    def __init__(self, dtype: torch.dtype, least: int):
        # All else comes from the layer in whose place it stands.
        vars(self).update(dtype=dtype, least=least, multiply=None)

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() < self.least:
            return F.linear(x, self.weight, self.bias)
        if self.multiply is None:
            vars(self)["multiply"] = packed(self.weight, self.bias, self.dtype)
        return self.multiply(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


def packed(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """x (rows, in) to x weight^T + bias (rows, out), float32, multiplied in `dtype`. The function
    holds a copy of the weights, and gives no gradients."""
    weight = weight.detach()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return in_int8(weight, bias) if dtype == torch.int8 else in_floats(weight, bias, dtype)


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch on this processor has the private way, and it is right: tried once."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, 64, generator=generator) for n in (64, 4))
    try:
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            error = (packed(weight, None, dtype)(x) - F.linear(x, weight)).abs().max()
        return bool(error <= 0.05 * F.linear(x, weight).abs().max())
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False


def in_floats(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """`packed` in float32 or bfloat16."""
    operators, bias = torch.ops.mkldnn, bias.to(dtype)
    matrix = operators._reorder_linear_weight(weight.to(dtype))

    def multiply(x: Tensor) -> Tensor:
        return operators._linear_pointwise(x.to(dtype), matrix, bias, "none", [], "").float()

    return multiply


def in_int8(weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    """`packed` in whole numbers of 8 bits: every row of the weights by a scale of its own, x by one
    that is found anew for each x ("dynamic quantization"), so rows have a share in each other's
    rounding. oneDNN is the faster of two libraries for many rows, FBGEMM for few.

    A processor without VNNI, the instructions for this, adds pairs of products in 16 bits, where
    they may not fit: there x gets 7 bits."""
    scales = weight.abs().amax(dim=1).clamp(min=1e-12).double() / 127  # (out,)
    packs, kind = [], torch.backends.quantized
    with SWITCHING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces another way to round, not here yet
        rounded = torch.quantize_per_channel(
            weight, scales, torch.zeros(len(scales), dtype=torch.long), 0, torch.qint8
        )
        before = kind.engine
        try:
            for kind.engine in "fbgemm", "onednn":
                packs.append(torch.ops.quantized.linear_prepack(rounded, bias))
        finally:
            kind.engine = before
    product, (few, many) = torch.ops.quantized.linear_dynamic, packs
    wide, seven_bits = len(weight) >= WIDE, not has_vnni()
    return lambda x: product(x.float(), many if wide and len(x) >= 64 else few, seven_bits)


def has_vnni() -> bool:
    """Whether the processor sums products of 8-bit numbers in 32 bits at once."""
    ask = getattr(torch.cpu, "_is_vnni_supported", None)  # a private name, and not on every system
    return ask is not None and ask()
