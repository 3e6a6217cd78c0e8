"""The server for real: it batches, says what is wrong with a request, and stops."""

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

if importlib.util.find_spec("litserve") is None:
    pytest.skip("litserve is not installed", allow_module_level=True)

from s2s_helpers.decoding import translate
from s2s_helpers.models import TransformerSeq2Seq, save_model
from s2s_helpers.production.server import BYTES, TranslationAPI, check_texts
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


def start(file, *options):
    """The command, on a free port: the process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "s2s_helpers.production.server", "--stop-with-parent"]
    command += ["--model", str(file), "--port", port, *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, f"http://127.0.0.1:{port}"


def up(url):
    """Whether the server is there and its model loaded."""
    try:
        return urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
    except OSError:
        return False


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def post(url, body):
    """Status and answer to the texts, or to these bytes."""
    body = body if isinstance(body, bytes) else json.dumps({"texts": body}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def url(file):
    """A server; at the end it has to stop by itself, as its input ends with us."""
    process, url = start(file, "--max-batch-size", "16", "--batch-timeout", "0.1")
    try:
        until(lambda: up(url) or process.poll() is not None)
        yield url
        process.stdin.close()
        process.wait(20)
        assert not up(url)
    finally:
        process.kill()


BAD = {
    'send {"texts"': [[], "text", [3], None, ["a", None]],
    "33 texts, but a request may have 32": [["a"] * 33],
    "text 1 has 401 characters; 400 are allowed": [["a", "x" * 401]],
    "sentence 0 has 151 tokens, but the model has only 20 positions": [["a " * 150]],
    "sentence 2": [["a", "b", "  "]],
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_request_names_what_is_wrong(model, message):
    for texts in BAD[message]:
        with pytest.raises(ValueError) as error:
            check_texts({"texts": texts}, model)
        assert str(error.value).startswith(message)
    with pytest.raises(ValueError, match="send"):
        check_texts({}, model)


def test_limits_are_inclusive(model):
    most = ["a"] * 31 + ["x" * 400]
    assert check_texts({"texts": most}, model) == most


def test_a_batch_answers_each_request_by_itself(file, model):
    api = TranslationAPI(file)
    api.setup("cpu")
    asked = [TEXTS[:2], ["x" * 500], TEXTS[2:3]]
    decoded = [api.decode_request({"texts": texts}) for texts in asked]
    answers = [api.encode_response(output) for output in api.predict(decoded)]
    wanted = [t.text for t in translate(model, TEXTS[:3])]
    assert answers[0] == {"translations": wanted[:2], "batch": 3}
    assert answers[2] == {"translations": wanted[2:], "batch": 3}
    assert answers[1].status_code == 422 and b"400 are allowed" in answers[1].body


def test_it_answers_as_translate_does_and_in_batches(url, model):
    wanted = [t.text for t in translate(model, TEXTS)]
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        answers = list(pool.map(lambda text: post(url, [text]), TEXTS))
    assert [status for status, _ in answers] == [200] * len(TEXTS)
    assert [answer["translations"] for _, answer in answers] == [[text] for text in wanted]
    assert 1 < max(answer["batch"] for _, answer in answers) <= 16
    assert post(url, TEXTS)[1] == {"translations": wanted, "batch": len(TEXTS)}


def test_an_error_is_only_for_who_made_it(url):
    asked = [["x" * 500] if n % 5 == 0 else [text] for n, text in enumerate(TEXTS)]
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        answers = list(pool.map(lambda texts: post(url, texts), asked))
    assert [status for status, _ in answers] == [422 if n % 5 == 0 else 200 for n in range(30)]
    assert answers[0][1] == {"detail": "text 0 has 500 characters; 400 are allowed"}


def test_what_never_reaches_the_model(url):
    status, answer = post(url, ["x" * BYTES])
    assert status == 413 and "too large" in answer["detail"]
    for body in (b"{no json", b"[1]"):
        status, answer = post(url, body)
        assert status == 422 and answer["detail"]
    assert post(url, TEXTS[:1])[0] == 200  # it lives on


def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path):
    process, _ = start(tmp_path / "none.pt")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.startswith("no saved model at")
