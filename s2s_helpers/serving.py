"""A translation server over HTTP with dynamic batching, on LitServe.

    python -m s2s_helpers.serving --model FILE --port 8000

`POST /predict` with {"texts": ["a sentence", ...]} answers {"translations": [...], "batch": n}, n
being the sentences that were translated together. Requests that arrive while the model is at work,
or within a few milliseconds of each other, are translated as one batch. Translations depend on no
neighbour, and neither do errors: what is too large or not a text gets an answer of its own, with
status 413 or 422 and the limit in words. `GET /health` answers "ok" once the model is loaded.
"""

import argparse
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from s2s_helpers.decoding import encode_source, translate
from s2s_helpers.hub import needed
from s2s_helpers.models import load_model

litserve = needed("litserve")  # at the top, as its worker process finds the class by its name


@dataclass(frozen=True)
class Limits:
    """What one request may ask for: sentences, characters a sentence, bytes in all."""

    texts: int = 32
    characters: int = 400
    bytes: int = 100_000


def check_request(request, model, limits: Limits) -> list[str]:
    """The texts of a request, {"texts": [...]}. Raises ValueError that names the limit or the
    sentence where there are too many, one is too long, empty, or no text."""
    texts = request.get("texts") if isinstance(request, dict) else None
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError('send {"texts": ["a sentence", ...]}, at least one, all of them strings')
    if len(texts) > limits.texts:
        raise ValueError(f"{len(texts)} texts, but a request may have {limits.texts}")
    for number, text in enumerate(texts):
        if len(text) > limits.characters:
            raise ValueError(
                f"text {number} has {len(text)} characters, but it may have {limits.characters}"
            )
        encode_source(model, number, text)  # empty, or more tokens than the model has positions
    return texts


class TranslationAPI(litserve.LitAPI):
    """LitServe's four hooks: decode each request, predict a batch of them, encode each answer."""

    def __init__(self, model, limits: Limits, beam_size=1, max_batch_size=64, batch_timeout=0.005):
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout)
        self.path, self.limits, self.beam_size = str(model), limits, beam_size

    def setup(self, device):
        torch.set_num_threads(1)
        self.model = load_model(self.path)
        with torch.inference_mode():
            self.ready = self.model.for_decoding()

    def decode_request(self, request: dict):  # what is no JSON object is refused before the queue
        # LitServe answers an error raised here to every request of the batch, so it is handed on.
        try:
            return check_request(request, self.model, self.limits)
        except ValueError as error:
            return error

    def predict(self, requests):
        sentences = [text for texts in requests if isinstance(texts, list) for text in texts]
        found = translate(self.ready, sentences, self.beam_size, attention=False)
        texts = iter(translation.text for translation in found)
        return [
            request if isinstance(request, ValueError)
            else {"translations": [next(texts) for _ in request], "batch": len(sentences)}
            for request in requests
        ]  # fmt: skip

    def encode_response(self, output):
        if isinstance(output, ValueError):
            responses = needed("fastapi.responses")
            return responses.JSONResponse({"detail": str(output)}, status_code=422)
        return output


def serve(model, port: int, host: str = "127.0.0.1", limits: Limits | None = None, **options):
    """Serve the model file until interrupted. `options`: those of `TranslationAPI`.

    Raises FileNotFoundError or ValueError, before a port is opened, where it is no model file.
    """
    load_model(model)
    limits = limits or Limits()
    api = TranslationAPI(model, limits, **options)
    server = litserve.LitServer(api, accelerator="cpu", max_payload_size=limits.bytes)
    server.run(host=host, port=port, generate_client_file=False, log_level="error")


class Server:
    """`python -m s2s_helpers.serving` in a process of its own, for a notebook or a test.

    `port=None` takes a free one; `url` says where it is. It stops at `stop`, at the end of a `with`,
    and when this process ends, however that may be. `options` go to the command line, such as
    beam_size=5. Raises RuntimeError with what it said where it does not come up.
    """

    def __init__(self, model, port: int | None = None, wait: float = 60, **options):
        if port is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "s2s_helpers.serving", "--until-stdin-closes"]
        for name, value in {"model": model, "port": port, **options}.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, start_new_session=True
        )
        atexit.register(self.stop)
        end = time.monotonic() + wait
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                self.log.seek(0)
                said = self.log.read().decode(errors="replace")[-2000:]
                raise RuntimeError(f"the server did not come up: {said}")
            time.sleep(0.1)

    def healthy(self) -> bool:
        """Whether it answers and the model is loaded."""
        try:
            return urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200
        except OSError:
            return False

    def ask(self, texts, timeout: float = 60) -> tuple[int, dict]:
        """Post the texts; the status and the answer."""
        body = json.dumps({"texts": texts}).encode()
        request = urllib.request.Request(
            f"{self.url}/predict", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def stop(self) -> None:
        """End the process and those that it started."""
        atexit.unregister(self.stop)
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def interrupt_at_end_of_input() -> None:
    """Interrupt this process as soon as nobody holds the other end of its input any more."""
    while os.read(0, 1):  # not sys.stdin, whose lock a forked process would wait for
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a file of save_model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: open to the network")
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--max-batch-size", type=int, default=64, help="requests")
    parser.add_argument("--batch-timeout", type=float, default=0.005, help="seconds")
    parser.add_argument("--until-stdin-closes", action="store_true")
    options = vars(parser.parse_args())
    if options.pop("until_stdin_closes"):
        threading.Thread(target=interrupt_at_end_of_input, daemon=True).start()
    try:
        serve(**options)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
