"""Packages that only some of the course needs, imported with an error that says how to get them."""

import importlib
import sys
from typing import Any

# Of the extra "notebooks"; all others are of "advanced".
NOTEBOOKS = {"IPython", "anywidget", "ipywidgets", "matplotlib", "rapidfuzz", "statsmodels"}


def import_optional(name: str) -> Any:
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
            sys.modules["torchvision"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name != package:
            raise
        extra = "notebooks" if package in NOTEBOOKS else "advanced"
        raise ImportError(
            f"this needs the package {name}: pip install 's2s-helpers[{extra}]', or in the "
            f"course's folder pip install -e '.[{extra}]', then restart the kernel"
        ) from None
