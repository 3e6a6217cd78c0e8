"""The server for real: it batches, says what is wrong with a request, and stops."""

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

if importlib.util.find_spec("litserve") is None:
    pytest.skip("litserve is not installed", allow_module_level=True)

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from s2s_helpers.decoding import translate
from s2s_helpers.models import TransformerSeq2Seq, save_model
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.production import server
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


def start(file, *options, **more):
    """The command, on a free port: the process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "s2s_helpers.production.server", "--stop-with-parent"]
    command += ["--model", str(file), "--port", port, *options]
    pipes = dict(stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, **pipes, **more)
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
    "text 0 has 151 tokens, but the model has only 20 positions": [["a " * 150]],
    "text 2": [["a", "b", "  "]],
    "text 1 holds half a surrogate pair": [["a", "a \ud83d"], ["a", "\udc00 a"]],
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
    assert check_texts({"texts": ["a \U0001f600"]}, model)  # a whole pair


def test_it_keeps_one_view_for_its_life(file, monkeypatch):
    api = TranslationAPI(file, 2, max_batch_size=8)
    api.setup("cpu")
    assert prepacked(api.model) is api.model
    seen = []
    monkeypatch.setattr(server, "translate", lambda model, *a, **k: seen.append(model) or [])
    api.predict([])
    assert seen == [api.model]


def test_one_request_at_a_time_has_no_list_around_it(file, model):
    api = TranslationAPI(file, max_batch_size=1)
    api.setup("cpu")
    answers = [
        api.encode_response(api.predict(api.decode_request({"texts": texts})))
        for texts in (TEXTS[:2], ["x" * 500])
    ]
    wanted = [t.text for t in translate(model, TEXTS[:2])]
    assert answers[0] == {"translations": wanted, "batch": 2}
    assert answers[1].status_code == 422


def test_what_goes_wrong_in_one_request_spares_the_others(file, model, monkeypatch):
    api = TranslationAPI(file, max_batch_size=8)
    api.setup("cpu")

    def fragile(view, texts, *rest, **more):
        if any("\ud800" in text for text in texts):
            raise RuntimeError("\ud800 is no character")
        return translate(view, texts, *rest, **more)

    monkeypatch.setattr(server, "translate", fragile)
    answers = [api.encode_response(x) for x in api.predict([TEXTS[:1], ["\ud800"], TEXTS[1:3]])]
    wanted = [t.text for t in translate(model, TEXTS[:3])]
    assert [answers[0]["translations"], answers[2]["translations"]] == [wanted[:1], wanted[1:]]
    assert answers[1].status_code == 422 and b"? is no character" in answers[1].body
    monkeypatch.setattr(server, "check_texts", lambda *a: 1 / 0)
    assert isinstance(api.decode_request({"texts": TEXTS[:1]}), ZeroDivisionError)


def test_a_batch_answers_each_request_by_itself(file, model):
    api = TranslationAPI(file, max_batch_size=8)
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
    assert post(url, TEXTS[:1])[0] == 200  # it lives on


MALFORMED = {
    "the body is no JSON (Expecting property name enclosed in double quotes): send": [b"{no json"],
    "send": [b"", b"[1]", b"[NaN]", rb'"\ud83d"', b"3", rb'{"\ud83d": 1}', b'{"texts": NaN}'],
    'send {"texts"': [b'{"texts": ' + b"[" * 900 + b"]" * 900 + b"}"],
    "There was an error parsing the body": [b'{"texts": ["\xff"]}', b"[" * 40_000, b"9" * 5000],
}


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_body_is_answered_with_one_sentence(url, message):
    for body in MALFORMED[message]:
        status, answer = post(url, body)
        assert 400 <= status < 500 and answer["detail"].startswith(message)


def test_the_wrong_type_of_content_is_named(url):
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl --data says
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{url}/predict", b'{"texts": ["a"]}', form))
    assert refused.value.code == 422
    assert "Content-Type: application/json" in json.load(refused.value)["detail"]


def test_what_else_a_request_holds_stays_behind(url, model):
    deep = b'{"more": ' + b"[" * 900 + b"]" * 900 + b', "texts": ["' + TEXTS[0].encode() + b'"]}'
    assert post(url, deep)[1]["translations"] == [translate(model, TEXTS[:1])[0].text]


@pytest.fixture(scope="module")
def answered(file):
    """A function: a body to the status and answer of the API, by FastAPI, without a socket."""
    api = TranslationAPI(file, max_batch_size=8)
    api.setup("cpu")
    wanted = inspect.signature(api.decode_request).parameters["request"].annotation
    app = FastAPI(exception_handlers={RequestValidationError: server.say_what_is_wanted})

    @app.post("/predict")
    def predict(request: wanted):
        return api.encode_response(api.predict([api.decode_request(request)])[0])

    def ask(body):
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/predict", "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }  # fmt: skip
        asyncio.run(app(scope, receive, send))
        return sent[0]["status"], json.loads(b"".join(part.get("body", b"") for part in sent))

    return ask


anything = st.text(st.characters(exclude_categories=()))  # half surrogate pairs as well
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner) | st.dictionaries(anything | st.just("texts"), inner),
    max_leaves=10,
)
texts = st.lists(st.sampled_from(TEXTS) | anything, min_size=1, max_size=40)


@given(
    (st.fixed_dictionaries({"texts": texts | values}, optional={"more": values}) | values),
    st.integers(0, 500), st.binary(max_size=3), st.booleans(),
)  # fmt: skip
@settings(max_examples=300)
def test_any_body_is_answered_or_refused_in_a_sentence(answered, value, place, piece, whole):
    body = json.dumps(value).encode()
    status, answer = answered(body if whole else body[:place] + piece + body[place:])
    if status == 200:
        assert all(isinstance(text, str) for text in answer["translations"])
        assert len(answer["translations"]) == answer["batch"]
        assert not whole or answer["batch"] == len(value["texts"])
    else:
        assert 400 <= status < 500 and isinstance(answer["detail"], str) and answer["detail"]


def test_half_a_surrogate_pair_is_an_error_of_its_own_request(url, model):
    asked = [rb'{"texts": ["a \ud83d"]}', *[[text] for text in TEXTS[:8]]]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda body: post(url, body), asked))
    assert answers[0] == (
        422, {"detail": "text 0 holds half a surrogate pair, which is no character"}
    )  # fmt: skip
    wanted = [[t.text] for t in translate(model, TEXTS[:8])]
    assert [answer["translations"] for _, answer in answers[1:]] == wanted


def test_a_server_of_single_requests(file, model):
    process, url = start(file, "--max-batch-size", "1", "--batch-timeout", "0")
    try:
        until(lambda: up(url) or process.poll() is not None)
        wanted = [t.text for t in translate(model, TEXTS[:3])]
        assert post(url, TEXTS[:3]) == (200, {"translations": wanted, "batch": 3})
        assert post(url, [""])[0] == 422
        process.stdin.close()  # a kill would leave its worker behind
        process.wait(20)
    finally:
        process.kill()


EXPORTS = {
    "onnxruntime": ("onnx", "export_onnx", "OnnxModel"),
    "ctranslate2": ("ctranslate2", "export_ctranslate2", "CTranslate2Model"),
}


@pytest.mark.parametrize("runtime", EXPORTS)
def test_the_same_command_serves_an_exported_folder(model, runtime, tmp_path):
    for package in (runtime, *(["onnxscript"] if runtime == "onnxruntime" else [])):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    module, export, kind = EXPORTS[runtime]
    room = importlib.import_module(f"s2s_helpers.production.{module}")
    folder = getattr(room, export)(model, tmp_path / "exported")
    assert type(server.load_served(folder)) is getattr(room, kind)
    process, url = start(folder, "--beam-size", "2")
    try:
        until(lambda: up(url) or process.poll() is not None)
        wanted = [t.text for t in translate(model, TEXTS[:3], 2)]
        assert post(url, TEXTS[:3]) == (200, {"translations": wanted, "batch": 3})
        status, answer = post(url, ["a " * 150])
        assert status == 422 and "only 20 positions" in answer["detail"]
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0 and not said
    finally:
        process.kill()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="signals of POSIX")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to all", "SIGTERM to all", "SIGKILL"])
def test_it_stops_while_busy_and_leaves_no_process_behind(file, how):
    name, _, to_all = how.partition(" ")
    process, url = start(file, start_new_session=True)
    try:
        until(lambda: up(url) or process.poll() is not None)
        with ThreadPoolExecutor(4) as pool:
            busy = [pool.submit(post, url, TEXTS) for _ in range(40)]
            until(lambda: any(each.done() for each in busy))
            (os.killpg if to_all else os.kill)(process.pid, getattr(signal, name))
            # Every process of the server holds the other end.
            _, said = process.communicate(timeout=30)
            statuses = {each.result()[0] for each in busy if each.exception() is None}
        assert statuses <= ({200, 500} if name == "SIGKILL" else {200, 503}) and not up(url)
        assert process.returncode == (-signal.SIGKILL if name == "SIGKILL" else 0)
        assert name == "SIGKILL" or not said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


BAD_OPTIONS = {
    "--beam-size must be at least 1, got 0": ["--beam-size", "0"],
    "--max-batch-size must be at least 1, got -1": ["--max-batch-size", "-1"],
    "--batch-timeout must lie between 0 and 30 seconds, got nan": ["--batch-timeout", "nan"],
    "--host must be one of 127.0.0.1, 0.0.0.0, ::, got example": ["--host", "example"],
    "--port must lie between 1024 and 65535, got 80": ["--port", "80"],
    "no saved model at": ["--model", "none.pt"],
    "port {taken} cannot be had on 127.0.0.1": ["--port", "{taken}"],
}


@pytest.mark.parametrize("message", BAD_OPTIONS)
def test_a_bad_option_is_said_in_one_sentence(file, message, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        arguments = [option.format(taken=taken) for option in BAD_OPTIONS[message]]
        command = ["server", "--model", str(file), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            server.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith(message.format(taken=taken))
    assert said.count("\n") == 1


def test_a_folder_of_neither_runtime_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder, but export_onnx or export_ctranslate2"):
        server.load_served(tmp_path)


def test_the_command_itself_stops_with_code_2(tmp_path):
    process, _ = start(tmp_path / "none.pt")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and said.startswith("no saved model at")
