"""Captions from files that are verified, found in folders or fetched once."""

import functools
import gzip
import hashlib
import http.server
import logging
import os
import re
import threading
from pathlib import Path

import pooch
import pytest

from s2s_helpers.corpora import Pair, multi30k, pronunciation
from s2s_helpers.corpora.download import cache_folder, data_folders

# Odd spaces and U+2028 belong to a caption; only a newline ends one.
SIDES = (
    "A man.\nTwo\u2028dogs \x0bplay.\nA  cat. \n",
    "Un homme.\nDeux chiens\x85 jouent.\nUn chat.\n",
)
PAIRS = [
    Pair("A man.", "Un homme."),
    Pair("Two\u2028dogs \x0bplay.", "Deux chiens\x85 jouent."),
    Pair("A  cat. ", "Un chat."),
]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with tiny files that pass for Multi30k's, and an empty cache."""
    folder = tmp_path / "files"
    folder.mkdir()
    sums = {}
    for name in multi30k.SHA256:
        data = gzip.compress(SIDES[".fr" in name].encode())
        (folder / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(multi30k, "FILES", multi30k.FILES._replace(sha256=sums))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("S2S_DATA_DIR", raising=False)
    monkeypatch.delenv("S2S_CACHE_DIR", raising=False)
    return folder


def come_from(monkeypatch, url):
    monkeypatch.setattr(multi30k, "FILES", multi30k.FILES._replace(url=url))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(tiny, monkeypatch):
    """The tiny files behind HTTP on this machine; gives the list of what was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tiny))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        come_from(monkeypatch, f"http://127.0.0.1:{running.server_port}/")
        yield asked
        running.shutdown()
        thread.join()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def test_reads_from_the_named_folder(tiny, monkeypatch):
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    assert multi30k.load().validation == PAIRS
    monkeypatch.chdir(tiny.parent)
    monkeypatch.setenv("S2S_DATA_DIR", "files")
    assert multi30k.load().validation == PAIRS


def test_a_truncated_file_in_the_folder_is_named_and_not_used(tiny, monkeypatch):
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    truncate(tiny / "val.fr.gz")
    with pytest.raises(ValueError, match=r"files.val\.fr\.gz .*cut short"):
        multi30k.load()


def test_another_version_of_a_file_is_not_used(tiny, monkeypatch):
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    (tiny / "val.en.gz").write_bytes(gzip.compress(b"A man.\nA dog.\nA cat.\n"))
    with pytest.raises(ValueError, match=r"val\.en\.gz"):
        multi30k.load()


def test_a_file_that_the_folders_lack_is_fetched_or_named(server, tiny, tmp_path, monkeypatch):
    (empty := tmp_path / "empty").mkdir()
    monkeypatch.setenv("S2S_DATA_DIR", str(empty))
    assert multi30k.load().validation == PAIRS
    (tiny / "val.en.gz").unlink()
    (cache_folder() / "val.en.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"S2S_DATA_DIR; there is no .*empty.val\.en\.gz"):
        multi30k.load()


def test_one_folder_of_several_may_have_a_file(tiny, tmp_path, monkeypatch):
    come_from(monkeypatch, "http://127.0.0.1:9/")
    (other := tmp_path / "other").mkdir()
    (tiny / "val.en.gz").rename(other / "val.en.gz")
    monkeypatch.setenv("S2S_DATA_DIR", os.pathsep.join([str(tiny), "", str(other)]))
    assert multi30k.load().validation == PAIRS


def test_fetches_once_and_keeps(server, tiny):
    captions = multi30k.load()
    assert [captions.train, captions.validation, captions.test] == [PAIRS] * 3
    assert len(server) == 6
    assert multi30k.load() == captions
    assert len(server) == 6
    assert captions.test_2017 == PAIRS and captions.test_2017 is captions.test_2017
    assert len(server) == 8
    assert sorted(os.listdir(cache_folder())) == sorted(multi30k.SHA256)


def test_the_cache_can_be_moved(server, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("S2S_CACHE_DIR", str(tmp_path / "elsewhere"))
    multi30k.load()
    assert cache_folder().parent == tmp_path / "elsewhere" and os.listdir(cache_folder())
    monkeypatch.setenv("S2S_CACHE_DIR", os.path.join("~", "elsewhere"))
    assert cache_folder() == Path.home() / "elsewhere" / "corpora"


def test_fetching_says_nothing(server, tiny, caplog):
    # pooch would tell this machine's paths, and notebooks are saved with what they print
    logger = pooch.get_logger()
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        multi30k.load()
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


def test_a_truncated_download_is_refused_and_not_kept(server, tiny):
    whole = (tiny / "val.en.gz").read_bytes()
    truncate(tiny / "val.en.gz")
    with pytest.raises(ValueError, match=r"val\.en\.gz .*cut short"):
        multi30k.load()
    assert "val.en.gz" not in os.listdir(cache_folder())
    (tiny / "val.en.gz").write_bytes(whole)
    assert multi30k.load().validation == PAIRS


def test_a_damaged_file_in_the_cache_is_fetched_anew(server, tiny):
    multi30k.load()
    truncate(cache_folder() / "val.fr.gz")
    assert multi30k.load().validation == PAIRS
    assert len(server) == 7


def test_a_missing_page_says_both_ways(server, tiny):
    (tiny / "val.en.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"network once .*S2S_DATA_DIR.*404"):
        multi30k.load()


def test_without_network_both_ways_are_said(tiny, monkeypatch):
    # nothing listens on port 9 of this machine
    come_from(monkeypatch, "http://127.0.0.1:9/")
    with pytest.raises(FileNotFoundError, match=r"train\.en\.gz") as caught:
        multi30k.load()
    message = str(caught.value)
    assert "network once" in message and "S2S_DATA_DIR" in message
    assert str(cache_folder()) in message


def test_sides_of_unequal_length_are_refused(tiny, monkeypatch):
    data = gzip.compress(b"A man.\n")
    (tiny / "val.en.gz").write_bytes(data)
    monkeypatch.setitem(multi30k.FILES.sha256, "val.en.gz", hashlib.sha256(data).hexdigest())
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    with pytest.raises(ValueError):
        multi30k.load()


def test_files_are_pinned_to_a_commit():
    for files in multi30k.FILES, pronunciation.FILES:
        assert re.search(r"/[0-9a-f]{40}/.*$", files.url) and files.url.endswith("/")
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in files.sha256.values())
    assert len(multi30k.SHA256) == 8


@pytest.mark.parametrize(
    ("split", "count", "first", "last"),
    [
        ("train", 29_000, "Two young, White males are", "bushes."),
        ("validation", 1_014, "A group of men are loading", "truck"),
        ("test", 1_000, "A man in an orange hat", "something."),
        ("test_2017", 1_000, "A sleek yellow dog mid run", "course"),
    ],
)
def test_the_real_captions(split, count, first, last):
    folders = [*data_folders(), cache_folder()]
    if not all(any(Path(f, name).is_file() for f in folders) for name in multi30k.SHA256):
        pytest.skip("no captions on this machine: set S2S_DATA_DIR or load them once")
    pairs = getattr(multi30k.load(), split)
    assert len(pairs) == count
    assert pairs[0].source.startswith(first) and pairs[0].source.endswith(last)
    assert all(pair.source.strip() and pair.target.strip() for pair in pairs)
    assert all(pair.alignment is None for pair in pairs)
