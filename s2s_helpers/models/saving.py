"""How models are saved: one file holds class, settings, vocabularies and weights.

Every subclass of `Seq2SeqModel` can be saved, also one defined in a notebook. Loading finds it by
its name, so it must be imported or defined by then, and calls it as

    Class(source_vocabulary, target_vocabulary, **settings)

without the vocabularies where the model has none.
"""

import inspect
import os
from typing import Any

import torch

from s2s_helpers.files import plain, read_file, save_file
from s2s_helpers.models.interface import Seq2SeqModel
from s2s_helpers.vocabulary import vocabulary_from_dict

FORMAT = 1
SIDES = ("source_vocabulary", "target_vocabulary")
ENTRIES = ("class", "settings", "weights", "shared")


def class_name(kind: type) -> str:
    """What a file calls a class of models: its name, with the module where it is not of this
    package."""
    ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def model_classes() -> dict[str, type[Seq2SeqModel]]:
    """Every subclass of `Seq2SeqModel` by its name in files; of two definitions the later.

    A class that adds nothing to one of the same name is passed over: PyTorch's export leaves such
    stand-ins behind, which cannot be built.
    """
    found, waiting = {}, [Seq2SeqModel]
    while waiting:
        kind = waiting.pop(0)
        adds = vars(kind).keys() - {"__module__", "__doc__"}
        if adds or class_name(kind) not in map(class_name, kind.__mro__[1:]):
            found[class_name(kind)] = kind
        waiting += kind.__subclasses__()
    return found


def shared_weights(model: Seq2SeqModel) -> dict[str, str]:
    """The names of weights that are another's too (tied embeddings), each with that one's name."""
    first, shared = {}, {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            shared[name] = first[id(parameter)]
    return shared


def model_to_dict(model: Seq2SeqModel) -> dict[str, Any]:
    """Format, class name, settings, vocabularies, weights, and which of these are shared."""
    sides = {side: getattr(model, side) for side in SIDES}
    return {
        "format": FORMAT,
        "class": class_name(type(model)),
        "settings": model.settings,
        **{side: words.to_dict() for side, words in sides.items() if words is not None},
        "weights": model.state_dict(),
        "shared": shared_weights(model),
    }


def model_from_dict(saved: dict[str, Any]) -> Seq2SeqModel:
    """The model that `model_to_dict` described, on the CPU and in evaluation mode.

    Raises ValueError where the dictionary is not a saved model, has another format, or does not
    fit the class as it is now.
    """
    return _rebuilt(saved, "cpu").eval()


def _rebuilt(saved: dict[str, Any], device: str) -> Seq2SeqModel:
    if not isinstance(saved, dict) or "weights" not in saved:
        raise ValueError("this is not a model saved by s2s_helpers.models.save_model")
    if saved.get("format") != FORMAT:
        raise ValueError(
            f"this model has the format {saved.get('format')} (None: from before there was a "
            f"number), and this version of s2s_helpers reads {FORMAT}"
        )
    if missing := [entry for entry in ENTRIES if entry not in saved]:
        raise ValueError(f"this saved model lacks its {' and '.join(missing)}")
    name, kind = saved["class"], model_classes().get(saved["class"])
    if kind is None:
        raise ValueError(f"the class {name!r} of this model is unknown: import or define it first")
    try:
        vocabularies = [vocabulary_from_dict(saved[side]) for side in SIDES if side in saved]
        with torch.random.fork_rng(devices=[]), torch.device(device):
            model = kind(*vocabularies, **saved["settings"])
        weights = {n: weight.to(device, copy=True) for n, weight in saved["weights"].items()}
        model.load_state_dict(weights, assign=True)  # as they are, bfloat16 for example
        for shared, first in saved["shared"].items():
            module, _, leaf = shared.rpartition(".")
            setattr(model.get_submodule(module), leaf, model.get_parameter(first))
        if shared_weights(model) != saved["shared"]:
            raise ValueError(
                f"it shares the weights {shared_weights(model)}, not {saved['shared']}"
            )
    except ImportError:
        raise
    except Exception as error:  # a constructor may raise anything
        raise ValueError(
            f"no {name} comes of these settings, vocabularies and weights: "
            f"{type(error).__name__}: {error}"
        ) from error
    return model


def check_loads(model: Seq2SeqModel, saved: dict[str, Any]) -> None:
    """Raise ValueError where `model_from_dict` would not make this model of `saved`."""
    kind = type(model)
    given = list(inspect.signature(kind).parameters.values())[
        sum(side in saved for side in SIDES) :
    ]
    named = [p.name for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if missing := [name for name in named if name not in model.settings]:
        raise ValueError(
            f"this {kind.__name__} could not be built again: its settings lack "
            f"{', '.join(missing)}; hand it to Seq2SeqModel.__init__, or put it into self.settings"
        )
    try:
        again = _rebuilt(saved, "meta")  # without memory, and without waiting
    except ValueError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
        again = _rebuilt(saved, "cpu")  # a constructor may read numbers, which "meta" has not
    if again.settings != saved["settings"]:
        raise ValueError(f"its settings come back as {again.settings}, not {saved['settings']}")
    for side in SIDES:
        words, new = getattr(model, side), getattr(again, side)
        if type(words) is not type(new) or (words and words.to_dict() != new.to_dict()):
            raise ValueError(f"its {side.replace('_', ' ')} {words} comes back as {new}")


def save_model(model: Seq2SeqModel, path: str | os.PathLike) -> None:
    """Write the model to one file, atomically.

    Raises ValueError, and writes nothing, where `load_model` could not read it.
    """
    saved = plain(model_to_dict(model), "")
    try:
        check_loads(model, saved)
    except ValueError as error:
        raise ValueError(f"not saved to {path}, as it could not be loaded: {error}") from error
    save_file(saved, path)


def load_model(path: str | os.PathLike) -> Seq2SeqModel:
    """Read a model that `save_model` wrote, on the CPU and in evaluation mode.

    Raises FileNotFoundError; or ValueError with the path where the file is broken, holds something
    else, or a model of another format, of an unknown class, or that its class does not fit.
    """
    saved = read_file(path, "saved model")
    try:
        return model_from_dict(saved)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
