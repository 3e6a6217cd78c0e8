"""The output layer with its weights laid out as the processor reads them.

The output layer is the widest matrix of a decoder. PyTorch multiplies float32 matrices on a CPU
with MKL, which on some processors is far slower on such shapes than oneDNN, another library inside
PyTorch, whose kernels want the weights rearranged once ("packed"). PyTorch has that only under
private names, so whatever goes wrong here leaves the plain layer in place.
"""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LEAST_LINES = 4  # packing takes as long as it saves in about 16 steps of one line


def packed(linear: nn.Linear) -> Callable[[Tensor], Tensor] | None:
    """A function that does what `linear` does, on packed weights, or None where that cannot be had.

    The function holds a copy of the weights, and gives no gradients.
    """
    weight, bias = linear.weight, linear.bias
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    try:
        operators = torch.ops.mkldnn
        matrix = operators._reorder_linear_weight(weight.detach())
        forward = lambda x: operators._linear_pointwise(x, matrix, bias, "none", [], "")  # noqa: E731
        probe = torch.ones(LEAST_LINES, linear.in_features)
        right = torch.allclose(forward(probe), linear(probe), rtol=1e-4, atol=1e-4)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return None
    return forward if right else None


@contextmanager
def packed_output(model, lines: int):
    """While inside, the model's output layer runs on packed weights, if `lines` pay for it."""
    layer = getattr(model, "output_layer", None)
    worth = isinstance(layer, nn.Linear) and lines >= LEAST_LINES and "forward" not in vars(layer)
    forward = packed(layer) if worth else None
    if forward is None:
        yield
        return
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
