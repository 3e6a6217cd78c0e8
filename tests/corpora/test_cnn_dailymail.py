"""Articles and highlights, from a file; the hub only where it answers."""

import json
import socket
import urllib.request

import pytest

from s2s_helpers.corpora import Pair, cnn_dailymail

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
