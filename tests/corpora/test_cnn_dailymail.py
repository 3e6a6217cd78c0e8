"""Articles and highlights, from a file; the hub only where it answers."""

import json
import socket
import threading
import urllib.request

import pytest

from s2s_helpers.corpora import Pair, cnn_dailymail
from s2s_helpers.corpora.hub import hub_address, why_no_hub

ROWS = [
    {"article": f"(CNN) Article {n} is long .\n\nVery long .", "highlights": f"It is {n} .\nLong ."}
    for n in range(5)
]


@pytest.fixture
def articles(tmp_path):
    path = tmp_path / "articles.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_articles_come_one_by_one_and_cut(articles):
    pytest.importorskip("pyarrow")
    pairs = cnn_dailymail.stream(path=articles, limit=2, article_words=6, highlight_words=5)
    assert next(pairs) == Pair("(CNN) Article 0 is long .", "It is 0 . Long")
    assert list(pairs) == [Pair("(CNN) Article 1 is long .", "It is 1 . Long")]
    assert len(list(cnn_dailymail.stream(path=articles))) == 5


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="the splits train, validation, test, not 'dev'"):
        next(cnn_dailymail.stream("dev"))
    with pytest.raises(FileNotFoundError, match=r"no file .* of articles"):
        next(cnn_dailymail.stream(path=tmp_path / "none.jsonl"))
    (tmp_path / "other.jsonl").write_text('{"text": "a", "highlights": "b"}\n')
    with pytest.raises(ValueError, match=r"row 0 needs \"article\" and .*\['highlights', 'text'\]"):
        next(cnn_dailymail.stream(path=tmp_path / "other.jsonl"))
    for text in ("3", "null", '"\\u200b"'):
        (tmp_path / "other.jsonl").write_text(f'{{"article": {text}, "highlights": "b"}}\n')
        with pytest.raises(ValueError, match="row 0 needs"):
            next(cnn_dailymail.stream(path=tmp_path / "other.jsonl"))
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"limit must be 1 or more, not {limit}"):
            next(cnn_dailymail.stream(path=tmp_path / "other.jsonl", limit=limit))


@pytest.mark.parametrize("address", ["hf-mirror.com", "", "ftp://hub", "localhost:8080"])
def test_an_address_of_the_hub_that_is_none_is_named(monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    for ask in hub_address, why_no_hub:
        with pytest.raises(ValueError, match=f"HF_ENDPOINT must begin with https.*{address!r}"):
            ask()


def test_what_is_no_web_server_is_no_hub(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")

        def answer():
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "220 mail.example" in why_no_hub()
        thread.join()


def test_a_hub_out_of_reach_is_said_at_once(monkeypatch):
    def refuse(address, timeout, *_):
        assert address == ("huggingface.co", 443) and timeout <= 5
        raise OSError("no route")

    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(
        ConnectionError, match=r"on huggingface\.co, which cannot be reached: no route"
    ):
        next(cnn_dailymail.stream())
