"""Files that are written whole or not at all, and read without running code."""

import errno
import hashlib
import operator
import os
import secrets
import tempfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

# What torch.load reads without running code, beside the containers that `plain` looks into.
_PLAIN = {bool, int, float, complex, str, bytes, bytearray, type(None)}
_PLAIN |= {torch.Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device}


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write to; at the end it takes the place of the file at `path`, whole.

    Whatever ends the block early, Ctrl-C included, leaves the old file as it was. The new file is
    on the disk before it takes the name. It keeps the mode of the old one, or has that of the
    umask; a link stays a link, and what it points to is replaced. Missing folders are made. Raises
    OSError where the system does.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        kind = IsADirectoryError if path.is_dir() else OSError
        raise kind(f"{path} is not a file that could be replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with naming(path), open(scratch, "xb") as file:
            if path.exists():
                os.chmod(scratch, path.stat().st_mode & 0o7777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Let an OSError of the system, such as that of a full disk, say which file it is about."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save's own error after that of the system says nothing of the disk.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        if cause.errno and cause.filename is None:
            cause.filename = os.fspath(path)
        raise cause from None


def save_file(value: Any, path: str | os.PathLike) -> None:
    """Write the plain form of a value by torch.save and `atomic_write`; `read_file` reads it.

    Raises ValueError where the value holds what `plain` refuses.
    """
    value = plain(value, "")
    with atomic_write(path) as file:
        torch.save(value, file)


def plain(value: Any, where: str = "value") -> Any:
    """The value with Python's own numbers and texts in place of NumPy's, containers included.

    Raises ValueError where torch.load(weights_only=True) could not read something, with its place,
    such as "optimizer.param_groups[0].lr"; `where` names the value itself.
    """
    kind: Any = type(value)
    if isinstance(value, np.generic):
        value = value.item()
        kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (list, tuple):
        return kind(plain(item, f"{where}[{number}]") for number, item in enumerate(value))
    if kind is set:
        return {plain(item, f"an item of {where}") for item in value}
    if kind in (dict, OrderedDict, Counter):
        entries = {
            plain(key, f"the key {key!r} of {where}"): plain(item, _place(where, key))
            for key, item in value.items()
        }
        if kind is dict:
            return entries
        copy = kind(entries)
        vars(copy).update(plain(vars(value), where))  # a state_dict's versions of its modules
        return copy
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    raise ValueError(
        f"{where or 'the value'} is a {name}, which could not be read again: {str(value)[:80]}"
    )


def as_seed(seed: Any) -> int:
    """A seed as Python's own whole number: NumPy's are taken, and negative ones. Raises ValueError
    for what is none."""
    try:
        return operator.index(seed)
    except TypeError:
        raise ValueError(f"seed must be a whole number, got {seed!r}") from None


def _place(where: str, key: Any) -> str:
    if not isinstance(key, str):
        return f"{where}[{key!r}]"
    return f"{where}.{key}" if where else key


def read_file(path: str | os.PathLike, what: str, hint: str = "") -> Any:
    """What `save_file` wrote, on the CPU; a file cannot run code.

    Raises FileNotFoundError or another OSError where it cannot be opened, and ValueError where it
    is broken; the messages name `what` it should be, and `hint` ends that of a missing file.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            if damaged := parts.testzip():  # torch itself reads changed weights without a word
                raise ValueError(f"its part {damaged} is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {what} at {path}{hint}") from None
    except Exception as error:  # pickle, zip files and torch each have their own
        # A damaged file may let them seek to before its start, which the system calls invalid.
        if isinstance(error, MemoryError | OSError) and getattr(error, "errno", 0) != errno.EINVAL:
            raise
        raise ValueError(f"{path} is broken or not a {what}: {error}") from None


@contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[Path]:
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


def hashes_of(folder: str | os.PathLike, names: Iterable[str], advice: str) -> dict[str, str]:
    """The sha256 of each of these files in a folder. Raises FileNotFoundError, with the `advice`,
    where one is missing."""
    hashes = {}
    for name in names:
        if not (path := Path(folder, name)).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: {advice}")
        with path.open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
