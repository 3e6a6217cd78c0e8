"""Files written whole or not at all, and values that can be read again."""

import json
import os
import stat
import subprocess
import sys
from collections import Counter, OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from s2s_helpers.files import atomic_write, new_folder, plain, read_file, save_file
from s2s_helpers.vocabulary import Vocabulary


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def save_vocabulary(path: Path) -> None:
    Vocabulary(["a"]).save(path)


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request):
    if sys.platform == "win32":
        pytest.skip("Windows has no modes")
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


WRITERS = [lambda path: write(path, "new"), lambda path: save_file({"a": 1}, path), save_vocabulary]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_new_file_has_the_mode_of_the_umask(tmp_path, umask, writer):
    writer(tmp_path / "folder" / "file")
    assert mode(tmp_path / "folder" / "file") == 0o666 & ~umask


@pytest.mark.parametrize("writer", WRITERS)
def test_an_old_file_keeps_its_mode(tmp_path, umask, writer):
    (path := tmp_path / "file").write_text("old")
    path.chmod(0o664)
    writer(path)
    assert mode(path) == 0o664 and path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_stays_a_link(tmp_path, links, writer):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(Path("there", "file"))
    writer(link)
    assert link.is_symlink() and target.read_bytes() != b"old"
    assert sorted(tmp_path.rglob("*")) == sorted([target.parent, target, link])


def test_a_link_to_a_file_that_is_not_there_yet(tmp_path, links):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_what_ends_the_writing_early_leaves_the_old_file(tmp_path, error):
    write(tmp_path / "file", "old")
    with pytest.raises(error), atomic_write(tmp_path / "file") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_interrupt_just_after_the_replacing_stays_an_interrupt(tmp_path, monkeypatch):
    replace = os.replace

    def replace_and_interrupt(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_interrupt_while_a_value_is_saved(tmp_path, monkeypatch):
    save_file({"a": 1}, tmp_path / "file")

    def save(value, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(KeyboardInterrupt):
        save_file({"a": 2}, tmp_path / "file")
    assert read_file(tmp_path / "file", "file") == {"a": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_all_is_on_the_disk_before_the_name_is_taken(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace

    def sync(number):
        order.append(("fsync", os.fstat(number).st_size))
        fsync(number)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write(tmp_path / "file", "12345")
    assert order == [("fsync", 5), "replace"]


def test_a_folder_and_a_device_are_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError, match="not a file"):
        write(tmp_path, "new")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="not a file"):
            write(tmp_path / "pipe", "new")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts the folders, too")
def test_a_name_as_long_as_the_system_takes(tmp_path):
    write(tmp_path / ("a" * 255), "new")
    assert (tmp_path / ("a" * 255)).read_text() == "new"


def test_errors_of_the_system_are_told_as_they_are(tmp_path, monkeypatch):
    save_file({"a": 1}, tmp_path / "file")

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / "file"))

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError, match="denied"):
        read_file(tmp_path / "file", "model")


def test_a_file_that_may_not_be_read(tmp_path):
    save_file({"a": 1}, tmp_path / "file")
    (tmp_path / "file").chmod(0)
    if os.access(tmp_path / "file", os.R_OK):
        pytest.skip("root, and everybody on Windows, may read every file")
    with pytest.raises(PermissionError):
        read_file(tmp_path / "file", "model")


def test_a_missing_and_a_broken_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model at .*file; train one"):
        read_file(tmp_path / "file", "model", "; train one")
    save_file({"a": torch.arange(1000)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for content in b"", b"text", b"\x80", whole[: len(whole) // 2], whole[:-30], whole[:50]:
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match="file is broken or not a model"):
            read_file(tmp_path / "file", "model")
    with pytest.raises((IsADirectoryError, PermissionError)):  # Windows says the second
        read_file(tmp_path, "model")


def test_a_file_runs_no_code(tmp_path):
    class Runs:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    torch.save({"model": Runs()}, tmp_path / "file")
    with pytest.raises(ValueError, match="broken or not a model"):
        read_file(tmp_path / "file", "model")
    assert not (tmp_path / "made").exists()


def test_numbers_of_numpy_become_pythons(tmp_path):
    value = {
        "lr": np.float64(1e-3), "heads": np.int64(4), "on": np.bool_(True), "name": np.str_("a"),
        "list": [np.float32(0.5), (np.int8(1), None)], np.int64(3): {np.int32(7)},
        "tensor": torch.ones(2), "counts": Counter(a=2), "device": torch.device("cpu"),
        "dtype": torch.float32, "bytes": b"1",
    }  # fmt: skip
    save_file(value, tmp_path / "file")
    read = read_file(tmp_path / "file", "file")
    assert torch.equal(read.pop("tensor"), value.pop("tensor"))
    assert read == value
    found = [read["lr"], read["heads"], read["on"], read["name"], *read["list"], *read[3]]
    assert [type(each) for each in found] == [float, int, bool, str, float, tuple, int]


def test_a_state_dict_keeps_the_versions_of_its_modules(tmp_path):
    state = torch.nn.BatchNorm1d(2).state_dict()
    save_file({"weights": state}, tmp_path / "file")
    read = read_file(tmp_path / "file", "file")["weights"]
    assert isinstance(read, OrderedDict) and read._metadata == state._metadata
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"optimizer": {"param_groups": [{"lr": Path("a")}]}}, r"optimizer\.param_groups\[0\]\.lr"),
        ({"settings": {"act": torch.nn.functional.relu}}, r"settings\.act is a .*function"),
        ({3: [1, object()]}, r"\[3\]\[1\] is a object"),
        ({"a": np.zeros(2)}, "a is a numpy.ndarray"),
        ({"a": np.datetime64("2020-01-01")}, "a is a datetime.date"),
        ({"a": namedtuple("Point", "x")(1)}, "a is a .*Point"),
        ({frozenset({1}): 1}, "the key .* is a frozenset"),
        ({"a": {Path("x")}}, "an item of a is a "),
        (Path("a"), "the value is a "),
    ],
)
def test_what_could_not_be_read_again_is_refused_with_its_place(tmp_path, value, place):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match=f"^{place}"):
        save_file(value, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"


def test_plain_names_what_it_is_given():
    assert plain({"width": np.int64(3)}, "settings") == {"width": 3}
    with pytest.raises(ValueError, match=r"^settings\.width is a "):
        plain({"width": json}, "settings")


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a") as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a") as folder:
        (folder / "whole").write_text("whole")
    assert (tmp_path / "a" / "whole").read_text() == "whole"
    with pytest.raises(FileExistsError, match="there already"), new_folder(tmp_path / "a"):
        pass


def test_a_new_folder_has_the_mode_of_the_umask(tmp_path, umask):
    with new_folder(tmp_path / "a"):
        pass
    assert mode(tmp_path / "a") == 0o777 & ~umask


FULL = """
import resource, sys, torch
from s2s_helpers.files import save_file
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
save_file(torch.ones(int(sys.argv[2])), sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files")
@pytest.mark.parametrize("numbers", [1000, 10**6])
def test_a_full_disk_is_told_with_the_file(tmp_path, numbers):
    path = tmp_path / "x.pt"
    save_file({"old": 1}, path)
    command = [sys.executable, "-c", FULL, str(path), str(numbers)]
    said = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()[-1]
    assert said.startswith("OSError: [Errno ") and said.endswith(f"File too large: '{path}'")
    assert read_file(path, "file") == {"old": 1} and len(list(tmp_path.iterdir())) == 1
