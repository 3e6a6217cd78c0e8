"""Matrix products with the weights laid out as the processor reads them.

PyTorch multiplies float32 matrices on a CPU with MKL, which on some processors is slower on wide
matrices than oneDNN, another library inside PyTorch. Its kernels want the weights rearranged once
("packed"); for bfloat16, half the bytes and on some processors twice the speed, that is the only
fast way. PyTorch has it under private names, so whatever goes wrong here leaves the plain layer.
"""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LEAST_LINES = 4  # packing takes as long as it saves in about 16 steps of one line


def chosen_type() -> torch.dtype:
    """What to multiply in on a CPU: under `torch.autocast` its type, else float32."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def packed(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    """x (rows, in) to x weight^T + bias (rows, out), float32, multiplied in `dtype`; or None where
    that cannot be had. The function holds a copy of the weights, and gives no gradients."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    try:
        operators, bias = torch.ops.mkldnn, bias.detach().to(dtype)
        matrix = operators._reorder_linear_weight(weight.detach().to(dtype))

        def multiply(x: Tensor) -> Tensor:
            x = x.to(dtype)
            return operators._linear_pointwise(x, matrix, bias, "none", [], "").float()

        probe = torch.ones(2, weight.shape[1])
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            right = torch.nn.functional.linear(probe, weight, bias.float())
            error = (multiply(probe) - right).abs().max()
            close = bool(error <= 0.02 * right.abs().max())
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return None
    return multiply if close else None


def packed_layer(layer: nn.Linear) -> Callable[[Tensor], Tensor] | None:
    """`packed` for a layer, or None."""
    if type(layer) is not nn.Linear:
        return None
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return packed(layer.weight, bias, chosen_type())


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
