"""The server for real: it batches, says what is wrong with a request, and stops."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("litserve")

from s2s_helpers.decoding import translate
from s2s_helpers.models import TransformerSeq2Seq, save_model
from s2s_helpers.serving import Limits, Server, TranslationAPI, check_request
from s2s_helpers.vocabulary import Vocabulary

ENGLISH, FRENCH = Vocabulary.numbered(23), Vocabulary.numbered(19)
TEXTS = [" ".join(ENGLISH.tokens([4 + n % 15, 6, 7][: 1 + n % 3])) for n in range(30)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = dict(width=8, heads=2, layers=1, feedforward=8, max_positions=20)
    return TransformerSeq2Seq(ENGLISH, FRENCH, **shape).eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "model.pt"
    save_model(model, path)
    return path


@pytest.fixture(scope="module")
def server(file):
    with Server(file, max_batch_size=16, batch_timeout=0.1) as server:
        yield server


BAD = {
    'send {"texts"': [[], "text", [3], None, ["a", None]],
    "33 texts, but a request may have 32": [["a"] * 33],
    "text 1 has 401 characters, but it may have 400": [["a", "x" * 401]],
    "sentence 0 has 151 tokens, but the model has only 20 positions": [["a " * 150]],
    "sentence 2": [["a", "b", "  "]],
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_request_names_what_is_wrong(model, message):
    for texts in BAD[message]:
        with pytest.raises(ValueError) as error:
            check_request({"texts": texts}, model, Limits())
        assert str(error.value).startswith(message)
    for request in ("text", ["a"], None, {}):
        with pytest.raises(ValueError, match="send"):
            check_request(request, model, Limits())


def test_limits_are_inclusive(model):
    few = Limits(texts=2, characters=3)
    assert check_request({"texts": ["w 4", "abc"]}, model, few) == ["w 4", "abc"]
    for texts in (["a"] * 3, ["abcd"]):
        with pytest.raises(ValueError):
            check_request({"texts": texts}, model, few)


def test_a_batch_answers_each_request_by_itself(file, model):
    api = TranslationAPI(file, Limits())
    api.setup("cpu")
    asked = [TEXTS[:2], ["x" * 500], TEXTS[2:3]]
    decoded = [api.decode_request({"texts": texts}) for texts in asked]
    answers = [api.encode_response(output) for output in api.predict(decoded)]
    wanted = [t.text for t in translate(model, TEXTS[:3])]
    assert answers[0] == {"translations": wanted[:2], "batch": 3}
    assert answers[2] == {"translations": wanted[2:], "batch": 3}
    assert answers[1].status_code == 422 and b"may have 400" in answers[1].body


def test_it_answers_as_translate_does_and_in_batches(server, model):
    wanted = [t.text for t in translate(model, TEXTS)]
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        answers = list(pool.map(lambda text: server.ask([text]), TEXTS))
    assert [status for status, _ in answers] == [200] * len(TEXTS)
    assert [answer["translations"] for _, answer in answers] == [[text] for text in wanted]
    assert 1 < max(answer["batch"] for _, answer in answers) <= 16
    assert server.ask(TEXTS)[1]["translations"] == wanted


def test_an_error_is_only_for_who_made_it(server):
    asked = [["x" * 500] if n % 5 == 0 else [text] for n, text in enumerate(TEXTS)]
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        answers = list(pool.map(server.ask, asked))
    assert [status for status, _ in answers] == [422 if n % 5 == 0 else 200 for n in range(30)]
    assert answers[0][1] == {"detail": "text 0 has 500 characters, but it may have 400"}


def test_what_never_reaches_the_model(server):
    status, answer = server.ask(["x" * Limits().bytes])
    assert status == 413 and "too large" in answer["detail"]
    for body in (b"{no json", b"[1]"):
        request = urllib.request.Request(
            f"{server.url}/predict", body, {"Content-Type": "application/json"}
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=30)
        assert error.value.code == 422 and json.load(error.value)["detail"]
    assert server.ask(TEXTS[:1])[0] == 200  # it lives on


def test_it_stops_with_the_process_that_started_it(file):
    code = f"from s2s_helpers.serving import Server; import os; s = Server({str(file)!r}); "
    code += "print(s.url, s.process.pid, flush=True); os._exit(0)"  # no chance to tidy up
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    url, pid = told.stdout.split()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5)
            time.sleep(0.1)
        except OSError:
            break
    else:
        os.kill(int(pid), 9)
        pytest.fail("the server outlived the process that started it")


def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path):
    with pytest.raises(RuntimeError, match="did not come up: no saved model at"):
        Server(tmp_path / "none.pt")
