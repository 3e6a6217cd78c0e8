"""Files that are written whole or not at all, and read without running code."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch


def save_file(value, path) -> None:
    """torch.save that leaves either the old file or the whole new one, never a piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(value, file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def new_folder(folder):
    """A folder to write in, which gets its name at the end, whole or not at all. Raises
    FileExistsError where the name is taken."""
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(
            f"{folder} is there already: remove it, or choose another name, as this must name a "
            "new folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        (inner := Path(scratch, folder.name)).mkdir()
        yield inner
        os.rename(inner, folder)


def read_file(path, what: str, hint: str = ""):
    """What `save_file` wrote, on the CPU; a file cannot run code.

    Raises FileNotFoundError, or ValueError where the file is broken, naming `what` it should be.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}{hint}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is broken or not a {what}: {error}") from None


def plain(value, where: str = "value"):
    """Stand-in until the real one is here."""
    return value
