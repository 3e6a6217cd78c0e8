import functools
import gzip
import hashlib
import http.server
import logging
import os
import threading

import pooch
import pytest

from s2s_helpers.corpora import Pair, multi30k

# Odd spaces and U+2028 belong to a caption; only a newline ends one.
CAPTIONS = {
    "val.en.gz": "A man.\nTwo\u2028dogs \x0bplay.\nA  cat. \n",
    "val.fr.gz": "Un homme.\nDeux chiens\x85 jouent.\nUn chat.\n",
}
PAIRS = [
    Pair("A man.", "Un homme."),
    Pair("Two\u2028dogs \x0bplay.", "Deux chiens\x85 jouent."),
    Pair("A  cat. ", "Un chat."),
]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with two tiny files that pass for Multi30k's, and an empty cache."""
    folder = tmp_path / "files"
    folder.mkdir()
    sums = {}
    for name, text in CAPTIONS.items():
        data = gzip.compress(text.encode())
        (folder / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    monkeypatch.setattr(multi30k, "SHA256", sums)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("S2S_DATA_DIR", raising=False)
    return folder


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
        monkeypatch.setattr(multi30k, "URL", f"http://127.0.0.1:{running.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield asked
        running.shutdown()
        thread.join()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def test_reads_from_the_named_folder(tiny, monkeypatch):
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    assert multi30k.load("val") == PAIRS
    monkeypatch.chdir(tiny.parent)
    monkeypatch.setenv("S2S_DATA_DIR", "files")
    assert multi30k.load("val") == PAIRS


def test_a_truncated_file_in_the_folder_is_named_and_not_used(tiny, monkeypatch):
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    truncate(tiny / "val.fr.gz")
    with pytest.raises(ValueError, match=r"files.val\.fr\.gz .*cut short"):
        multi30k.load("val")


def test_another_version_of_a_file_is_not_used(tiny, monkeypatch):
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    (tiny / "val.en.gz").write_bytes(gzip.compress(b"A man.\nA dog.\nA cat.\n"))
    with pytest.raises(ValueError, match=r"val\.en\.gz"):
        multi30k.load("val")


def test_a_file_that_the_folder_lacks_is_named(tiny, monkeypatch):
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    (tiny / "val.en.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"S2S_DATA_DIR .*files.val\.en\.gz"):
        multi30k.load("val")


def test_fetches_once_and_keeps(server, tiny):
    assert multi30k.load("val") == PAIRS
    assert len(server) == 2
    assert multi30k.load("val") == PAIRS
    assert len(server) == 2
    assert sorted(os.listdir(multi30k.cache_folder())) == ["val.en.gz", "val.fr.gz"]


def test_fetching_says_nothing(server, tiny, caplog):
    # pooch would tell this machine's paths, and notebooks are saved with what they print
    logger = pooch.get_logger()
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        multi30k.load("val")
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


def test_a_truncated_download_is_refused_and_not_kept(server, tiny):
    whole = (tiny / "val.en.gz").read_bytes()
    truncate(tiny / "val.en.gz")
    with pytest.raises(ValueError, match=r"val\.en\.gz .*cut short"):
        multi30k.load("val")
    assert os.listdir(multi30k.cache_folder()) == []
    (tiny / "val.en.gz").write_bytes(whole)
    assert multi30k.load("val") == PAIRS


def test_a_damaged_file_in_the_cache_is_fetched_anew(server, tiny):
    multi30k.load("val")
    truncate(multi30k.cache_folder() / "val.fr.gz")
    assert multi30k.load("val") == PAIRS
    assert len(server) == 3


def test_a_missing_page_says_both_ways(server, tiny):
    (tiny / "val.en.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"network once .*S2S_DATA_DIR .*404"):
        multi30k.load("val")


def test_without_network_both_ways_are_said(tiny, monkeypatch):
    # nothing listens on port 9 of this machine
    monkeypatch.setattr(multi30k, "URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(FileNotFoundError, match=r"val\.en\.gz") as caught:
        multi30k.load("val")
    message = str(caught.value)
    assert "network once" in message and "S2S_DATA_DIR" in message
    assert str(multi30k.cache_folder()) in message


def test_another_split_is_answered_with_the_splits(tiny):
    with pytest.raises(ValueError, match="train, val, test_2016_flickr, test_2017_flickr, not 'te"):
        multi30k.load("test")


def test_sides_of_unequal_length_are_refused(tiny, monkeypatch):
    data = gzip.compress(b"A man.\n")
    (tiny / "val.en.gz").write_bytes(data)
    monkeypatch.setitem(multi30k.SHA256, "val.en.gz", hashlib.sha256(data).hexdigest())
    monkeypatch.setenv("S2S_DATA_DIR", str(tiny))
    with pytest.raises(ValueError):
        multi30k.load("val")


def test_files_are_pinned_to_a_commit():
    assert "a3d2e0d26b56f3846f66a952536ffed4e401d05a" in multi30k.URL
    assert sorted(multi30k.SHA256) == sorted(
        f"{split}.{language}.gz" for split in multi30k.SPLITS for language in ("en", "fr")
    )
    assert all(len(digest) == 64 for digest in multi30k.SHA256.values())


@pytest.mark.parametrize(
    ("split", "count", "first", "last"),
    [
        ("train", 29_000, "Two young, White males are", "bushes."),
        ("val", 1_014, "A group of men are loading", "truck"),
        ("test_2016_flickr", 1_000, "A man in an orange hat", "something."),
        ("test_2017_flickr", 1_000, "A sleek yellow dog mid run", "course"),
    ],
)
def test_the_real_captions(split, count, first, last):
    files = [f"{split}.{language}.gz" for language in ("en", "fr")]
    cached = all((multi30k.cache_folder() / name).is_file() for name in files)
    if not (cached or "S2S_DATA_DIR" in os.environ):
        pytest.skip("no captions on this machine: set S2S_DATA_DIR or load them once")
    pairs = multi30k.load(split)
    assert len(pairs) == count
    assert pairs[0].source.startswith(first) and pairs[0].source.endswith(last)
    assert all(pair.source.strip() and pair.target.strip() for pair in pairs)
    assert all(pair.alignment is None for pair in pairs)
