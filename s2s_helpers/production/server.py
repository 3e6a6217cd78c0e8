"""A translation server over HTTP with dynamic batching, on LitServe.

    python -m s2s_helpers.production.server --model PATH --port 8000

PATH is a file of `save_model`, or a folder of `export_onnx` or of `export_ctranslate2`.
`POST /predict` with {"texts": ["a sentence", ...]} answers {"translations": [...], "batch": n}, n
being the sentences that were translated together: requests that come within a few milliseconds, or
while the model is at work. Every request gets its own answer; what is too large or no text gets
status 413 or 422 and the limit in words. `GET /health` answers 200 once the model is loaded.
"""

import argparse
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import torch

from s2s_helpers.decoding import encode_source, translate
from s2s_helpers.models import Seq2SeqModel, load_model
from s2s_helpers.models.prepacked import prepacked
from s2s_helpers.optional import import_optional
from s2s_helpers.production.ctranslate2 import CTranslate2Model
from s2s_helpers.production.onnx import OnnxModel

# Not within a function: LitServe's worker process looks the class below up here.
litserve = import_optional("litserve")
AfterValidator = import_optional("pydantic").AfterValidator
TEXTS, CHARACTERS, BYTES = 32, 400, 100_000  # limits: texts a request, characters a text, in all
HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # that LitServe knows
WANTED = 'send {"texts": ["a sentence", ...]}, one or more, all of them strings'
STOPS = (signal.SIGINT, signal.SIGTERM)
SECONDS = 5  # for requests under way when the server is stopped


def load_served(path: str | os.PathLike) -> Seq2SeqModel:
    """The model at a path: saved, or exported for ONNX Runtime or CTranslate2. Raises ValueError
    where a folder is neither, FileNotFoundError where nothing is there."""
    folder = Path(path)
    if (folder / "model.bin").is_file():
        return CTranslate2Model(folder)
    if (folder / "encoder.onnx").is_file():
        return OnnxModel(folder)
    if folder.is_dir():
        raise ValueError(f"{path} is a folder, but export_onnx or export_ctranslate2 wrote none")
    return load_model(path)


def only_texts(request: dict) -> dict:
    """The request without all but its texts: what else it holds may be too deep for the way to the
    model's process. Raises ValueError where these are not a list of strings."""
    texts = request.get("texts")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError(WANTED)
    return {"texts": texts}


def check_texts(request: dict, model: Any) -> list[str]:
    """The texts of a request. Raises ValueError that names the limit, or the text, where there are
    too many, or one is too long, empty, or not a text."""
    texts = only_texts(request)["texts"]
    if len(texts) > TEXTS:
        raise ValueError(f"{len(texts)} texts, but a request may have {TEXTS}")
    for number, text in enumerate(texts):
        name = f"text {number}"
        if len(text) > CHARACTERS:
            raise ValueError(f"{name} has {len(text)} characters; {CHARACTERS} are allowed")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"{name} holds half a surrogate pair, which is no character")
        encode_source(model, text, name)  # empty, or more tokens than the model has positions
    return texts


class TranslationAPI(litserve.LitAPI):  # type: ignore[name-defined]
    """LitServe's hooks: read each request, translate a batch of them, write each answer.

    An error that is raised in a hook goes to every request of the batch, so each is handed on in
    the place of the answer of the one request that it belongs to."""

    def __init__(self, path: str | os.PathLike, beam_size: int = 1, **batching: Any) -> None:
        super().__init__(**batching)
        self.path, self.beam_size = str(path), beam_size

    def setup(self, device: str) -> None:
        if multiprocessing.parent_process():
            end_with_parent()
        torch.set_num_threads(1)
        self.model = prepacked(load_served(self.path))

    def decode_request(
        self, request: Annotated[dict, AfterValidator(only_texts)]
    ) -> list[str] | Exception:
        try:
            return check_texts(request, self.model)
        except Exception as error:
            return error

    def predict(self, requests: list) -> list:
        if self.max_batch_size == 1:  # then there is no list around the one request
            return self._answers([requests])[0]
        return self._answers(requests)

    def _answers(self, requests: list) -> list:
        texts = [text for each in requests if isinstance(each, list) for text in each]
        try:
            found = translate(self.model, texts, self.beam_size, attention=False)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            return [answer for each in requests for answer in self._answers([each])]
        done = iter(found)
        return [
            {"translations": [next(done).text for _ in each], "batch": len(texts)}
            if isinstance(each, list)
            else each
            for each in requests
        ]

    def encode_response(self, output: dict | Exception) -> Any:
        if isinstance(output, dict):
            return output
        responses = import_optional("fastapi.responses")
        detail = str(output).encode("utf-8", "replace").decode("utf-8")
        return responses.JSONResponse({"detail": detail}, status_code=422)


def say_what_is_wanted(request: Any, error: Any) -> Any:
    """FastAPI's answer to a body that it cannot read: one sentence, not the body once more."""
    found = error.errors()[0]
    said = found.get("ctx", {}).get("error")
    if not isinstance(said, ValueError):
        before = f"the body is no JSON ({said}): " if found["type"] == "json_invalid" else ""
        said = f"{before}{WANTED}, with the header Content-Type: application/json"
    responses = import_optional("fastapi.responses")
    return responses.JSONResponse({"detail": str(said)}, status_code=422)


def stop(*_: Any) -> None:
    """Interrupt the main thread, once: a second signal would break off LitServe's cleaning up."""
    for each in STOPS:
        signal.signal(each, lambda *_: None)
    raise KeyboardInterrupt


def end_with_parent() -> None:
    """Let this process end when its parent has, were it by kill -9, and leave it to the parent to
    hear what a terminal (Ctrl-C) or systemd (SIGTERM) sends to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if signal.getsignal(signal.SIGTERM) is stop:  # a fork's, from its parent
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def stop_with_parent() -> None:
    """Interrupt the main thread when nobody holds the other end of our input any more."""
    while os.read(0, 1):  # not sys.stdin, whose lock a forked process would wait for
        pass
    if hasattr(signal, "pthread_kill"):  # wakes the main thread even if it waits
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def check_options(options: argparse.Namespace) -> None:
    """Raise ValueError or OSError that says in one sentence why a server cannot be started so."""
    for name in "beam_size", "max_batch_size":
        if (value := getattr(options, name)) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= (wait := options.batch_timeout) <= 30:  # then LitServe gives up on a request
        raise ValueError(f"--batch-timeout must lie between 0 and 30 seconds, got {wait}")
    if options.host not in HOSTS:
        raise ValueError(f"--host must be one of {', '.join(HOSTS)}, got {options.host}")
    if not 1024 <= options.port <= 65535:
        raise ValueError(f"--port must lie between 1024 and 65535, got {options.port}")
    load_served(options.model)
    kind = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        socket.create_server((options.host, options.port), family=kind).close()
    except OSError as error:
        raise OSError(f"port {options.port} cannot be had on {options.host}: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a file, or an exported folder")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network")
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--max-batch-size", type=int, default=64, help="requests in a batch")
    parser.add_argument("--batch-timeout", type=float, default=0.005, help="seconds to wait")
    parser.add_argument("--stop-with-parent", action="store_true", help="when its input ends")
    options = parser.parse_args()
    try:
        check_options(options)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    for each in STOPS:  # SIGINT is ignored in the background
        signal.signal(each, stop)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=end_with_parent)
    if options.stop_with_parent:
        threading.Thread(target=stop_with_parent, daemon=True).start()
    batching = dict(max_batch_size=options.max_batch_size, batch_timeout=options.batch_timeout)
    api = TranslationAPI(options.model, options.beam_size, **batching)
    server = litserve.LitServer(api, accelerator="cpu", max_payload_size=BYTES)
    server.uvicorn_graceful_timeout = SECONDS
    errors = import_optional("fastapi.exceptions")
    server.app.exception_handler(errors.RequestValidationError)(say_what_is_wanted)
    server.run(options.host, options.port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main()
