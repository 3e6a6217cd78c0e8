"""A translation server over HTTP with dynamic batching, on LitServe.

    python -m s2s_helpers.production.server --model FILE --port 8000

`POST /predict` with {"texts": ["a sentence", ...]} answers {"translations": [...], "batch": n}, n
being the sentences that were translated together: requests that come within a few milliseconds, or
while the model is at work. Every request gets its own answer; what is too large or no text gets
status 413 or 422 and the limit in words. `GET /health` answers 200 once the model is loaded.
"""

import argparse
import os
import signal
import sys
import threading

import torch

from s2s_helpers.decoding import encode_source, translate
from s2s_helpers.models import load_model
from s2s_helpers.optional import import_optional

litserve = import_optional(
    "litserve"
)  # not within a function: its worker process looks the class up here
TEXTS, CHARACTERS, BYTES = 32, 400, 100_000  # limits: texts a request, characters a text, in all


def check_texts(request: dict, model) -> list[str]:
    """The texts of a request. Raises ValueError that names the limit, or the text, where there are
    too many, or one is too long, empty, or not a text."""
    texts = request.get("texts")
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError('send {"texts": ["a sentence", ...]}, one or more, all of them strings')
    if len(texts) > TEXTS:
        raise ValueError(f"{len(texts)} texts, but a request may have {TEXTS}")
    for number, text in enumerate(texts):
        if len(text) > CHARACTERS:
            raise ValueError(f"text {number} has {len(text)} characters; {CHARACTERS} are allowed")
        encode_source(model, number, text)  # empty, or more tokens than the model has positions
    return texts


class TranslationAPI(litserve.LitAPI):
    """LitServe's hooks: read each request, translate a batch of them, write each answer."""

    def __init__(self, path, beam_size: int = 1, **batching):
        super().__init__(**batching)
        self.path, self.beam_size = str(path), beam_size

    def setup(self, device):
        torch.set_num_threads(1)
        self.model = load_model(self.path)
        with torch.inference_mode():
            self.ready = self.model.for_decoding()

    def decode_request(self, request: dict):
        # LitServe gives an error that is raised here to every request of the batch: hand it on.
        try:
            return check_texts(request, self.model)
        except ValueError as error:
            return error

    def predict(self, requests):
        good = [texts for texts in requests if isinstance(texts, list)]
        sentences = [text for texts in good for text in texts]
        found = iter(translate(self.ready, sentences, self.beam_size, attention=False))
        for place, texts in enumerate(requests):
            if isinstance(texts, list):
                own = [next(found).text for _ in texts]
                requests[place] = {"translations": own, "batch": len(sentences)}
        return requests

    def encode_response(self, output):
        if isinstance(output, dict):
            return output
        responses = import_optional("fastapi.responses")
        return responses.JSONResponse({"detail": str(output)}, status_code=422)


def stop_with_parent() -> None:
    """Interrupt the main thread when nobody holds the other end of our input any more."""
    while os.read(0, 1):  # not sys.stdin, whose lock a forked process would wait for
        pass
    if hasattr(signal, "pthread_kill"):  # wakes the main thread even if it waits
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a file that save_model wrote")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network")
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--max-batch-size", type=int, default=64, help="requests in a batch")
    parser.add_argument("--batch-timeout", type=float, default=0.005, help="seconds to wait")
    parser.add_argument("--stop-with-parent", action="store_true", help="when its input ends")
    told = parser.parse_args()
    try:
        load_model(told.model)  # a bad file is said before a port is opened
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
    if told.stop_with_parent:
        threading.Thread(target=stop_with_parent, daemon=True).start()
    batching = dict(max_batch_size=told.max_batch_size, batch_timeout=told.batch_timeout)
    api = TranslationAPI(told.model, told.beam_size, **batching)
    server = litserve.LitServer(api, accelerator="cpu", max_payload_size=BYTES)
    server.run(told.host, told.port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main()
