"""Matrix products with the weights laid out as the processor reads them.

PyTorch multiplies float32 matrices on a CPU with MKL, which on some processors is slower on wide
matrices than oneDNN, another library inside PyTorch. Its kernels want the weights rearranged once
("packed"); for bfloat16 and int8, a half and a quarter of the bytes and on some processors two and
four times the speed, that is the only fast way. PyTorch has it under private names, so whatever
goes wrong here leaves the plain layer.
"""

import warnings
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LEAST_LINES = 4  # packing takes as long as it saves in about 16 steps of one line


def chosen_type() -> torch.dtype:
    """What to multiply in on a CPU: bfloat16 where `torch.autocast` says so, else float32."""
    asked = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
    return torch.bfloat16 if asked == torch.bfloat16 else torch.float32


def packed(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    """x (rows, in) to x weight^T + bias (rows, out), float32, multiplied in `dtype`; or None where
    that cannot be had. The function holds a copy of the weights, and gives no gradients."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    weight, bias = weight.detach(), bias.detach()
    try:
        multiply = in_int8(weight, bias) if dtype == torch.int8 else in_floats(weight, bias, dtype)
        probe = torch.ones(2, weight.shape[1])
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            right = torch.nn.functional.linear(probe, weight, bias)
            error = (multiply(probe) - right).abs().max()
            close = bool(error <= 0.02 * right.abs().max())
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return None
    return multiply if close else None


def in_floats(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """`packed` in float32 or bfloat16."""
    operators, bias = torch.ops.mkldnn, bias.to(dtype)
    matrix = operators._reorder_linear_weight(weight.to(dtype))

    def multiply(x: Tensor) -> Tensor:
        x = x.to(dtype)
        return operators._linear_pointwise(x, matrix, bias, "none", [], "").float()

    return multiply


def in_int8(weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    """`packed` in whole numbers of 8 bits: every row of the weights by a scale of its own, x by one
    that is found anew for each x ("dynamic quantization"), so rows have a share in each other's
    rounding. oneDNN is the faster of two libraries for many rows, FBGEMM for few.

    A processor without VNNI, the instructions for this, adds pairs of products in 16 bits, where
    they may not fit: there x gets 7 bits."""
    scales = weight.abs().amax(dim=1).clamp(min=1e-12).double() / 127
    before, packs = torch.backends.quantized.engine, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces another way to round, not here yet
        rounded = torch.quantize_per_channel(
            weight, scales, torch.zeros(len(scales), dtype=torch.long), 0, torch.qint8
        )
    try:
        for engine in "fbgemm", "onednn":
            torch.backends.quantized.engine = engine
            packs.append(torch.ops.quantized.linear_prepack(rounded, bias))
    finally:
        torch.backends.quantized.engine = before
    product, (few, many) = torch.ops.quantized.linear_dynamic, packs
    wide, seven_bits = len(weight) >= 1000, not has_vnni()
    return lambda x: product(x, many if wide and len(x) >= 64 else few, seven_bits)


def has_vnni() -> bool:
    """Whether the processor sums products of 8-bit numbers in 32 bits at once."""
    ask = getattr(torch.cpu, "_is_vnni_supported", None)  # a private name, and not on every system
    return ask is not None and ask()


def packed_layer(layer: nn.Linear, dtype=None) -> Callable[[Tensor], Tensor] | None:
    """`packed` for a layer, or None; without a dtype in the one that is chosen."""
    if type(layer) is not nn.Linear:
        return None
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return packed(layer.weight, bias, dtype or chosen_type())


@contextmanager
def prepared(model, lines: int):
    """What decodes so many lines in the model's place: its faster twin (`for_decoding`), or the
    model itself, while inside with its output layer on packed weights if that pays."""
    model = model.for_decoding(lines)
    layer = model.output_layer
    worth = lines >= LEAST_LINES and layer is not None and "forward" not in vars(layer)
    forward = packed_layer(layer) if worth else None
    if forward is None:
        yield model
        return
    layer.forward = forward
    try:
        yield model
    finally:
        del layer.forward
