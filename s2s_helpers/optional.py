"""Packages that only some notebooks need, imported with an error that says how to get them."""

import importlib
import sys


def import_optional(name: str):
    """The package of this name, such as "transformers"; it may be missing, as it is optional.

    PyTorch's companion torchvision is installed with Treadmill and used by nobody here; where it
    does not fit the torch beside it, its import fails and would take that of transformers with it,
    so it is hidden from them. Raises ImportError with the command that installs what is missing.
    """
    if "torchvision" not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except Exception:  # a missing one, or operators that are not there: its own errors vary
            for loaded in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
                del sys.modules[loaded]
            sys.modules["torchvision"] = None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ImportError(
            f"this needs the package {name}: pip install -e '.[advanced]' in the course's folder, "
            "then restart the kernel"
        ) from None
