"""A model as it decodes, without touching the model as it trains.

Decoding wants evaluation mode. Setting it on the model itself would change the model for whoever
uses it at the same moment: a training that goes on, or another thread.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from s2s_helpers.models.interface import Seq2SeqModel

VIEW = "_view_for"  # the attribute that marks a view, and says what it is for


def eval_view(model: Any) -> Any:
    """The model in evaluation mode, while the one handed in stays as it is.

    Modules are copied, and share what they hold: weights, buffers, hooks, replaced methods. So the
    view computes what the model computes, also after more training. A view is its own view.

    Raises ValueError where a module in training mode has a `forward` of its own, put there from
    outside: what that function calls cannot be put into evaluation mode from here.
    """
    return model if VIEW in vars(model) else view_of(model, lambda module: None, "evaluation")


def view_of(model: nn.Module, replace: Callable, purpose: str, direct: bool = False) -> nn.Module:
    """`eval_view`, with each module for which `replace` gives another one replaced by that.

    `direct`: modules without hooks are called without a look for hooks, and find their weights and
    parts at once: at one token a step this takes as long as the work itself. Nothing is replaced or
    direct while somebody watches all modules, as torch's counter of operations does.
    """
    if any_global_hook():
        replace, direct = (lambda module: None), False
    view = _copied(model, replace, direct, {})
    vars(view)[VIEW] = purpose
    return view


def _copied(module: nn.Module, replace: Callable, direct: bool, done: dict) -> nn.Module:
    if (new := done.get(module)) is not None:
        return new
    own = vars(module)
    replaced_forward = "forward" in own
    if replaced_forward and module.training:
        raise ValueError(
            f"the forward of a {type(module).__name__} was replaced by another function, and the "
            "model is in training mode: call model.eval() before decoding"
        )
    hooked = replaced_forward or own["_forward_hooks"] or own["_forward_pre_hooks"]
    new = None if hooked else replace(module)
    if new is None:
        kind: Any = type(module)
        kind = without_hooks(kind) if direct and not hooked else kind
        new = object.__new__(kind)
    done[module] = new
    mine = vars(new)
    mine.update({**own, **mine, "training": False})
    if module._modules:
        parts = module._modules.items()
        parts = {name: part and _copied(part, replace, direct, done) for name, part in parts}
        mine.update(_modules=parts, **(parts if direct else {}))
    if direct:
        mine.update(module._parameters)
        mine.update(module._buffers)
    return new


@cache
def without_hooks(kind: Any) -> Any:
    """The class of modules, called as their `forward` without `nn.Module`'s look for hooks."""
    if kind.__call__ is not nn.Module.__call__ or kind.forward is nn.Module.forward:
        return kind
    if issubclass(kind, Seq2SeqModel):
        return kind
    changes = dict(__call__=kind.forward, register_forward_hook=too_late)
    changes |= dict(register_forward_pre_hook=too_late)
    # The class goes by its own name: transformers knows classes by theirs.
    changes |= dict(__module__=kind.__module__, __qualname__=kind.__qualname__)
    return type(kind.__name__, (kind,), changes)


def too_late(module: nn.Module, *_: Any, **__: Any) -> None:
    raise RuntimeError("this is a view for decoding: hook the model, then make a new view of it")


def any_global_hook() -> bool:
    """Whether a hook is on all modules."""
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    found = [getattr(torch_module, f"_global_{kind}_hooks", None) for kind in kinds]  # private
    return any(hooks is None or len(hooks) > 0 for hooks in found)
