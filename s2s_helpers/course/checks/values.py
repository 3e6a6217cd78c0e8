"""Two values side by side: a copy, what differs between them, and how to write one in a line."""

import copy
import dataclasses
import itertools
import math
import textwrap

import numpy as np
import torch
from torch import Tensor

NUMBERS = 24  # a tensor with more is told by its shape alone
KINDS = {
    Tensor: "a tensor", np.ndarray: "a numpy array", bool: "True or False", int: "a number",
    float: "a number", str: "a text", list: "a list", tuple: "a tuple", set: "a set",
    dict: "a dictionary", type(None): "None",
}  # fmt: skip


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain(value):
    """A tensor or an array that holds one number without any axis, as a number; one that no float
    can hold as infinity."""
    value = value.item() if isinstance(value, (Tensor, np.generic)) and value.ndim == 0 else value
    if isinstance(value, int) and abs(value) >= 2**1024:
        return math.inf if value > 0 else -math.inf
    return value


def copied(value):
    """A copy with tensors, arrays and lists of its own; models, functions and so on are shared."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(copied, value))
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(copied, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        twin = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(twin, field.name, copied(getattr(value, field.name)))
        return twin
    return value


def difference(came, right, tolerance: float = 1e-5) -> str:
    """What is wrong with `came`, in a sentence; empty where it is as good as `right`.

    Lists stand for tuples, every float dtype for another, and a tensor of one number for a number.
    """
    if came is right:
        return ""
    if isinstance(right, Tensor):
        return tensor_difference(came, right, tolerance)
    came, right = plain(came), plain(right)
    if isinstance(right, np.ndarray) and isinstance(came, (np.ndarray, Tensor)):
        return tensor_difference(torch.as_tensor(came), torch.as_tensor(right), tolerance)
    if not alike(came, right):
        return f"{kind(right).capitalize()} is asked for; what came is {kind(came)}."
    if isinstance(right, float) or isinstance(came, float):
        close = abs(came - right) <= tolerance * (1 + abs(right)) or came == right
        return "" if close or (came != came and right != right) else "Another number is right."
    if isinstance(right, (list, tuple)):
        if len(came) != len(right):
            return f"It holds {len(came)} elements; {len(right)} are right."
        parts = zip(range(len(right)), came, right, strict=True)
    elif isinstance(right, dict):
        if came.keys() != right.keys():
            return f"Its keys are {describe(list(came))}; right are {describe(list(right))}."
        parts = [(key, came[key], right[key]) for key in right]
    elif dataclasses.is_dataclass(right):
        names = [field.name for field in dataclasses.fields(right)]
        parts = [(name, getattr(came, name), getattr(right, name)) for name in names]
    else:
        return "" if came == right else "Another value is right."
    for name, one, other in parts:
        if text := difference(one, other, tolerance):
            where = f"Element {name}" if isinstance(right, (list, tuple)) else f"“{name}”"
            return f"{where}: {text}"
    return ""


def tensor_difference(came, right: Tensor, tolerance: float) -> str:
    if right.ndim == 0 and (is_number(came) or isinstance(came, (bool, np.generic))):
        came = torch.as_tensor(came)
    if not isinstance(came, Tensor):
        return f"A tensor is asked for; what came is {kind(came)}."
    if came.layout != right.layout or came.is_meta:
        return f"A tensor with all its numbers is asked for; what came is {describe(came)}."
    if came.shape != right.shape:
        return f"Its shape is {tuple(came.shape)}; {tuple(right.shape)} is right."
    for family in (torch.is_floating_point, torch.is_complex, lambda x: x.dtype == torch.bool):
        if family(came) != family(right):
            return f"Its dtype is {dtype(came)}; {dtype(right)} is right."
    came, right = came.detach().cpu(), right.detach().cpu()
    if right.is_floating_point():
        came, right = came.double(), right.double()
        close = torch.isclose(came, right, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        close = came == right
    if close.all():
        return ""
    if not right.ndim:
        return "Another value is right."
    where = (~close).nonzero()[0].tolist()
    numbers = (
        f"{short(came[tuple(where)].item())} came, {short(right[tuple(where)].item())} is right"
    )
    off = int((~close).sum())
    return f"{off} of {close.numel()} values are off; the first, at {where}: {numbers}."


def turned(came, right, tolerance: float = 1e-5) -> str:
    """The cause where the numbers are right and only the axes are not."""
    if not (isinstance(came, Tensor) and isinstance(right, Tensor)) or right.ndim > 5:
        return ""
    if came.ndim == right.ndim:
        for order in itertools.permutations(range(right.ndim)):
            if not difference(came.permute(order), right, tolerance):
                return "Axes changed places: the values are right, in another order of the axes."
    elif not difference(came.squeeze(), right.squeeze(), tolerance):
        few = came.ndim < right.ndim
        return f"An axis of length 1 is {'missing' if few else 'too many'}; the values are right."
    return ""


def alike(came, right) -> bool:
    """Whether the two are of one kind."""
    if is_number(right):
        return is_number(came)
    if isinstance(right, (list, tuple)):
        return isinstance(came, (list, tuple))
    if isinstance(right, (set, frozenset)):
        return isinstance(came, (set, frozenset))
    return isinstance(came, type(right)) or not isinstance(right, tuple(KINDS))


def kind(value) -> str:
    names = [name for each, name in KINDS.items() if isinstance(value, each)]
    if names:
        return names[0]
    name = type(value).__name__
    vowels = "AEFHILMNORSX" if name.isupper() else "AEIOUaeiou"  # an LSTM
    return f"{'an' if name[0] in vowels else 'a'} {name}"


def dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def short(value) -> str:
    """A number, or nested lists of them, with four decimals."""
    if isinstance(value, list):
        return f"[{', '.join(map(short, value))}]"
    return f"{round(value, 4):g}" if isinstance(value, float) else str(value)


def describe(value) -> str:
    """A value in a line: whole where it is small, else its kind and size."""
    if isinstance(value, np.ndarray):
        return f"numpy array of {describe(torch.as_tensor(value))}"
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta:
            layout = "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
            return f"a tensor ({layout}) of shape {tuple(value.shape)}"
        if value.numel() > NUMBERS:
            return f"{dtype(value)} of shape {tuple(value.shape)}"
        if value.ndim == 0:
            return short(value.item())
        return f"{short(value.tolist())}  {dtype(value)} {tuple(value.shape)}"
    if isinstance(value, (float, int)):
        return short(plain(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        inside = ", ".join(map(describe, value))
        if len(inside) > 200:
            return f"{kind(value)} of {len(value)}"
        a, b = {list: "[]", tuple: "()"}.get(type(value), "{}")
        return f"{a}{inside}{b}"
    if isinstance(value, (str, dict, type(None))):
        return textwrap.shorten(repr(value), 200)
    return f"the function {value.__name__}" if hasattr(value, "__code__") else kind(value)
