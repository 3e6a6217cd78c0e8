"""A device that is not here: tensors that say they lie on "meta", but have numbers.

Like Apple's it refuses float64; like each it refuses to compute with what lies on two devices.
"""

from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
# What may read from one device and write to the other, or take its places from the CPU.
CROSSING = {
    "copy_",
    "_to_copy",
    "index",
    "index_put_",
    "index_put",
    "_index_put_impl_",
    "set_",
    "_pack_padded_sequence",
}


class There(torch.Tensor):
    """A tensor on the device; `here` holds its numbers."""

    @staticmethod
    def __new__(cls, here):
        return torch.Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE,
            requires_grad=False,
        )  # fmt: skip

    def __init__(self, here):
        self.here = here

    def __getitem__(self, place):  # a list becomes a tensor past the mode
        return super().__getitem__(torch.tensor(place).long() if isinstance(place, list) else place)

    def __setitem__(self, place, value):
        place = torch.tensor(place).long() if isinstance(place, list) else place
        super().__setitem__(place, value)

    def tolist(self):
        return self.here.tolist()

    def __repr__(self):
        return f"There({self.here!r})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


def compute(function, args, kwargs):
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, There)]
    assert all(x.device != DEVICE for x in tensors if not isinstance(x, There)), "no numbers"
    name = function.overloadpacket.__name__
    device = kwargs.get("device")
    device = DEVICE if there and device is None else device
    if there and name not in CROSSING:
        others = [x for x in tensors if not isinstance(x, There) and x.dim() > 0]
        if others:
            raise RuntimeError(f"{name}: expected all tensors on {DEVICE}, found one on cpu")
    on_it = device is not None and torch.device(device).type == DEVICE.type
    if "device" in kwargs:
        kwargs = kwargs | {"device": torch.device("cpu") if on_it else kwargs["device"]}
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    plain = pytree.tree_map_only(There, lambda x: x.here, (args, kwargs))
    found = function(*plain[0], **plain[1])
    if not on_it:
        return found
    known = {id(x.here): x for x in there}  # an operation in place gives what it was given

    def put(x):
        if x.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{name}: {DEVICE} has no {x.dtype}")
        return known[id(x)] if id(x) in known else There(x)

    if name == "_pack_padded_sequence":  # the lengths stay on the CPU
        return put(found[0]), found[1]
    return pytree.tree_map_only(torch.Tensor, put, found)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


@contextmanager
def fake_device():
    """While it is on, `DEVICE` is there."""
    tensor, moved, move = torch.tensor, torch.Tensor.new_tensor, torch.nn.Module.to

    def made(data, device=None, **options):
        return tensor(data, **options).to(device or "cpu")

    def like(self, data, **options):
        made = tensor(data, dtype=options.get("dtype", self.dtype))
        return made.to(self.device) if isinstance(self, There) else moved(self, data, **options)

    def to(self, *where):  # else each place of a shared parameter gets a new one
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return move(self, *where)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    with (
        _Mode(),
        # What makes tensors past the mode, or knows only devices that exist.
        patch("torch.tensor", made),
        patch("torch.Tensor.new_tensor", like),
        patch("torch.nn.Module.to", to),
        patch("torch.inference_mode", torch.no_grad),
        patch("torch.is_inference_mode_enabled", lambda: False),
        patch("torch.is_autocast_enabled", lambda device: False),
        patch("torch.autocast", lambda *settings: nullcontext()),
    ):
        yield
