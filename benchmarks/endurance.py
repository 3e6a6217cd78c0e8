"""Does everything survive? Killed trainings, huge files, rude clients, full disks, many threads.

python benchmarks/endurance.py            all parts, about a quarter of an hour on two cores
python benchmarks/endurance.py server     only this part: training, file, server, disk or threads
python benchmarks/endurance.py --quick    a short form of each, under a minute; nothing is saved

Every part raises AssertionError where something was lost, mixed up or left without an answer.
Moments and texts are drawn from seeds; what a machine makes of a moment differs from run to run.
"""

import argparse
import contextlib
import csv
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import measuring
import numpy as np
import psutil
import torch

from s2s_helpers.corpora import phrasebook
from s2s_helpers.course.tiny_checkpoints import TINY, tiny_checkpoint
from s2s_helpers.decoding import translate, translate_file
from s2s_helpers.models import (
    AttentionSeq2Seq,
    Forecaster,
    PointerGenerator,
    Scaling,
    Seq2Seq,
    TransformerSeq2Seq,
    load_model,
    save_model,
)
from s2s_helpers.models.pretrained import load_pretrained
from s2s_helpers.production.onnx import OnnxModel, export_onnx
from s2s_helpers.training import checkpoint
from s2s_helpers.training.forecasting import forecast
from s2s_helpers.vocabulary import Vocabulary

WORDS = Vocabulary.numbered(60)
BOUND_MB = 1000  # of a process that translates a file, PyTorch itself included


def tiny(kind=TransformerSeq2Seq, **settings) -> torch.nn.Module:
    """A small untrained model, which writes nonsense, but always the same."""
    torch.manual_seed(0)
    shape = dict(width=16, heads=2, layers=1, feedforward=16, max_positions=64)
    return kind(WORDS, WORDS, **(settings or shape)).eval()


def text(rng: random.Random, longest: int = 12) -> str:
    """A sentence of made-up words, now and then an unknown one."""
    return " ".join(f"w{rng.randint(4, 63)}" for _ in range(rng.randint(1, longest)))


def child(*arguments, **more) -> subprocess.Popen:
    """This script once more, in a process of its own, to do one of its tasks."""
    command = [sys.executable, __file__, "--task", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors.strip().splitlines()[-1] if errors.strip() else ""


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to a process and to all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.communicate()


# Training


def training(kills: int, worlds: tuple = (1, 2)) -> dict:
    """Trainings killed at random moments end with the weights of one that never was, to the bit."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), random.Random(0)
        with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
            pairs = phrasebook.load().train[:3000]
            csv.writer(file).writerows((pair.source, pair.target) for pair in pairs)

        def start(run: str, world: int) -> subprocess.Popen:
            launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={world}", "-m"]
            command = [
                sys.executable,
                "-m",
                *(launcher if world > 1 else ()),
                "s2s_helpers.training",
            ]
            command += [folder / run, folder / "pairs.csv", *TRAINING.split()]
            once = os.environ | {"OMP_NUM_THREADS": "1"}
            pipe = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            return subprocess.Popen([*map(str, command)], env=once, text=True, **pipe)

        for world in worlds:
            began = time.monotonic()
            assert ended(start(f"whole{world}", world))[0] == 0
            seconds, done, steps = time.monotonic() - began, 0, set()
            while done < kills:
                process = start(f"killed{world}", world)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(0.3, 1.2) * min(seconds, 12))
                if process.poll() is None:
                    done += 1
                    kill_all(process)
                    if (last := folder / f"killed{world}" / "last.pt").exists():
                        steps.add(checkpoint.read(last)["step"])
                else:  # it came to its end: another run, killed the remaining times
                    assert process.returncode == 0, process.stderr.read()[-500:]
                    same_weights(folder, world)
                    for path in (folder / f"killed{world}").iterdir():
                        path.unlink()
            assert ended(start(f"killed{world}", world))[0] == 0
            found[f"{world}"] = {"kills": kills, "stopped at": len(steps)}
            found[f"{world}"]["steps"] = same_weights(folder, world)
    return found


TRAINING = "--batches-per-step 2 --save-every 5 --epochs 3 --max-tokens 512 --width 32 --layers 1"


def same_weights(folder: Path, world: int) -> int:
    """How many steps both runs took; raises AssertionError where one weight differs in one bit."""
    one, other = (
        checkpoint.read(folder / f"{run}{world}" / "last.pt") for run in ("whole", "killed")
    )
    assert one["step"] == other["step"]
    for name, weight in one["model"]["weights"].items():
        assert torch.equal(weight, other["model"]["weights"][name]), name
    return one["step"]


# A file


def lines_of(rng: random.Random, number: int) -> list[tuple[bytes, str | None]]:
    """Lines and the text that is to be translated in each, None where the line stays empty."""
    texts = [text(rng) for _ in range(500)]
    bad = [b"", b"   ", "\u200b\ufeff\u00ad".encode(), b"\xff w4", b"w4 \xe2\x82", b"w5 " * 300]
    lines = []
    for _ in range(number):
        if rng.random() < 0.02:
            lines.append((rng.choice(bad), None))
        else:
            chosen = rng.choice(texts)
            hidden = rng.random() < 0.05  # invisible characters inside and around
            lines.append((("\ufeff" + chosen + "\u200b" if hidden else chosen).encode(), chosen))
    for place in rng.sample(range(number), 3):
        lines[place] = (b"w6 " * 400_000, None)  # 1.2 MB
    return lines


def task_file(model: str, source: str, target: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the lines left empty
        how = dict(bad_lines="empty", lines_at_once=500, progress=False)
        number = translate_file(load_model(model), source, target, **how)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([number, peak / (1024**2 if sys.platform == "darwin" else 1024)]))


def lines_done(state: Path) -> int:
    """How many lines are good, by the state that `translate_file` keeps."""
    return json.loads(state.read_text("utf-8"))["lines"] if state.exists() else 0


def file(number: int, kills: int) -> dict:
    """A long file, killed again and again: each line out is its text translated alone."""
    with tempfile.TemporaryDirectory() as name:
        folder, rng, model = Path(name), random.Random(1), tiny()
        save_model(model, folder / "model.pt")
        lines = lines_of(rng, number)
        (folder / "source").write_bytes(b"".join(line + b"\n" for line, _ in lines))
        task = ("file", folder / "model.pt", folder / "source", folder / "target")
        state = folder / "target.state"
        for place in sorted(rng.sample(range(number * 9 // 10), kills)):
            process = child(*task)
            while process.poll() is None and lines_done(state) <= place:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.03))
            assert process.poll() is None, "it ended before it was killed"
            kill_all(process)
        code, out, error = ended(child(*task))
        assert code == 0, error
        count, peak = json.loads(out)
        written = (folder / "target").read_text("utf-8").split("\n")[:-1]
        alone = {t: translate(model, [t])[0].text for t in {t for _, t in lines if t is not None}}
        assert count == len(written) == number
        assert written == ["" if t is None else alone[t] for _, t in lines]
        assert peak < BOUND_MB, peak
        left = [path.name for path in folder.iterdir()]
        assert sorted(left) in (["model.pt", "source", "target"],), left
    empty = sum(t is None for _, t in lines)
    return {"lines": number, "left empty": empty, "kills": kills, "peak MB": round(peak)}


# The server

JSON = {"Content-Type": "application/json"}


def broken_requests() -> list[tuple[str, str, dict, bytes]]:
    """Thirty ways to get a request wrong: method, path, headers, body."""
    bodies = [
        b"", b"{", b"[]", b"null", b"7", b'"w4"', b'{"texts": }', b'{"texts": null}',
        b'{"texts": "w4"}', b'{"texts": []}', b'{"texts": [1]}', b'{"texts": [null]}',
        b'{"texts": [["w4"]]}', b'{"texts": {"0": "w4"}}', b'{"text": ["w4"]}', b'{"texts": [""]}',
        b'{"texts": ["  "]}', b'{"texts": ["\\u200b"]}', b'{"texts": ["\\ud800"]}', b"\xff\xfe",
        b'{"texts": [NaN]}', b'{"texts": ["w4", true]}', b"[" * 900 + b"]" * 900,
        json.dumps({"texts": ["w4 " * 200]}).encode(), json.dumps({"texts": ["w4"] * 33}).encode(),
        json.dumps({"texts": ["w4 w4 " * 60]}).encode(), b'{"texts": ["' + b"w" * 120_000 + b'"]}',
    ]  # fmt: skip
    wrong = [("POST", "/predict", JSON, body) for body in bodies]
    good = b'{"texts": ["w4"]}'
    wrong += [("POST", "/predict", {"Content-Type": "text/plain"}, good)]
    return [*wrong, ("GET", "/predict", {}, b""), ("POST", "/nowhere", JSON, good)]


def ask(connection: http.client.HTTPConnection, request: tuple) -> tuple[int, bytes]:
    method, path, headers, body = request
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def memory(process: psutil.Process) -> float:
    """MB of a server's processes together."""
    every = [process, *process.children(recursive=True)]
    return sum(each.memory_info().rss for each in every) / 2**20


def server(number: int, clients: int) -> dict:
    """Many clients, some of them rude: all good requests answered right, all bad ones told why."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        path, model, rng = Path(name, "model.pt"), tiny(), random.Random(2)
        save_model(model, path)
        texts = [text(rng) for _ in range(200)]
        right = {t: translate(model, [t])[0].text for t in texts}
        wrong = broken_requests()
        command = [sys.executable, "-m", "s2s_helpers.production.server", "--model", str(path)]
        process = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
        try:
            found = visited(process, port, number, clients, texts, right, wrong)
            return found | stopped_while_busy(process, port, texts)
        finally:
            kill_all(process)


def visited(process, port, number, clients, texts, right, wrong) -> dict:
    connect = partial(http.client.HTTPConnection, "127.0.0.1", port, timeout=60)
    for _ in range(600):
        with contextlib.suppress(OSError):
            if ask(connect(), ("GET", "/health", {}, b""))[0] == 200:
                break
        time.sleep(0.1)
    said, counts, sizes, lock = {}, {"good": 0, "broken": 0, "hung up": 0}, [], threading.Lock()

    def client(which: int) -> None:
        rng, connection = random.Random(which), connect()
        for _ in range(number // clients):
            draw = rng.random()
            if draw < 0.01:  # hangs up in the middle
                kind = "hung up"
                with socket.create_connection(("127.0.0.1", port)) as raw:
                    raw.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
            elif draw < 0.06:
                kind, at = "broken", rng.randrange(len(wrong))
                connection.close()
                connection = connect()
                status, body = ask(connection, wrong[at])
                detail = json.loads(body)["detail"]
                assert 400 <= status < 500 and isinstance(detail, str) and detail, (at, body)
                said[at] = f"{status} {detail}"
            else:
                kind, chosen = "good", rng.sample(texts, rng.randint(1, 4))
                request = ("POST", "/predict", JSON, json.dumps({"texts": chosen}).encode())
                status, body = ask(connection, request)
                assert status == 200, body
                assert json.loads(body)["translations"] == [right[t] for t in chosen]
            with lock:
                counts[kind] += 1
                if sum(counts.values()) in (
                    number // clients * clients // 5,
                    number // clients * clients,
                ):
                    sizes.append(memory(psutil.Process(process.pid)))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return counts | {"ways": len(said), "MB after a fifth": round(sizes[0]), "MB": round(sizes[-1])}


def stopped_while_busy(process, port, texts) -> dict:
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    body = json.dumps({"texts": texts[:30]}).encode()

    def busy() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                ask(connection, ("POST", "/predict", JSON, body))

    for _ in range(8):
        threading.Thread(target=busy, daemon=True).start()
    time.sleep(1)
    began = time.monotonic()
    process.terminate()
    code = process.wait(30)
    _, alive = psutil.wait_procs(every, timeout=5)
    assert code == 0 and not alive, (code, alive)
    return {"seconds to stop": round(time.monotonic() - began, 1)}


# Disks


def task_save(path: str, limit: int) -> None:
    """Save over a file again and again, or once with so many bytes to write."""
    if limit := int(limit):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        save_model(tiny(width=32, heads=2, layers=2, feedforward=64), path)
    model = tiny()
    for number in range(10**9):
        model.output.bias.data.fill_(number)
        save_model(model, path)
        print(number, flush=True)


def task_translate(model: str, source: str, target: str, limit: int) -> None:
    if limit := int(limit):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    translate_file(load_model(model), source, target, lines_at_once=500, progress=False)


def task_cached() -> None:
    """A model of the course where its cache cannot be written."""
    from s2s_helpers.course import recipes

    recipes.RECIPES["rnn"] = recipes.RECIPES["rnn"].changed(dict(epochs=1, hidden=8))
    some = phrasebook.load()
    recipes.phrasebook.load = lambda seed=0: type(some)(
        some.train[:300], some.validation[:50], some.test[:50], *list(vars(some).values())[3:]
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = recipes.phrasebook_model("rnn", progress=False)
    print(
        json.dumps([translate(model, ["the cat sleeps."])[0].text, [str(w.message) for w in said]])
    )


def disk(kills: int) -> dict:
    """Full disks, read-only caches, no home, two on one target, killed saves: nothing is lost."""
    if not hasattr(os, "fork"):
        return {}
    with tempfile.TemporaryDirectory() as name:
        folder, rng, model = Path(name), random.Random(3), tiny()
        path, source, target = (folder / each for each in ("model.pt", "source", "target"))
        save_model(model, path)
        before = path.read_bytes()
        code, _, said = ended(child("save", path, 2000))  # the disk is full
        assert code and path.read_bytes() == before and "File too large" in said, said
        source.write_text("".join(f"{text(rng)}\n" for _ in range(2000)), "utf-8")
        assert ended(child("translate", path, source, folder / "whole", 0))[0] == 0
        code, _, said = ended(child("translate", path, source, target, 20_000))
        assert code and not target.exists() and "File too large" in said, said
        pair = [child("translate", path, source, target, 0) for _ in range(2)]  # goes on, twice
        codes = sorted((code, error) for code, _, error in map(ended, pair))
        assert codes[0][0] == 0, codes
        assert codes[1][0] == 0 or "another process is writing" in codes[1][1], codes
        assert target.read_bytes() == (folder / "whole").read_bytes()
        for _ in range(kills):
            process = child("save", path, 0)
            assert process.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            kill_all(process)
            bias = load_model(path).output.bias
            assert (bias == bias[0]).all()
        # Below a file there is no folder, for the superuser neither.
        variables = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
        variables.pop("S2S_CACHE_DIR", None)
        closed, homeless = ({**variables, n: str(source)} for n in ("S2S_CACHE_DIR", "HOME"))
        for environment in closed, homeless:
            code, out, error = ended(child("cached", env=environment))
            assert code == 0, error
            _, warned = json.loads(out)
            assert sum("cannot be kept in" in each for each in warned) == 1, warned
    return {"kills while saving": kills}


# Threads


def threads(number: int) -> dict:
    """Eight threads on one model of every class give what one gives."""
    rng = random.Random(4)
    texts = [text(rng) for _ in range(number)]
    small = dict(embedding=8, hidden=8)
    models = {
        "RNN": tiny(Seq2Seq, **small), "transformer": tiny(),
        "Bahdanau": tiny(AttentionSeq2Seq, attention="bahdanau", **small),
        "Luong": tiny(AttentionSeq2Seq, attention="luong", **small),
    }  # fmt: skip
    torch.manual_seed(0)
    models["pointer-generator"] = PointerGenerator(WORDS, WORDS, **small).eval()
    with tempfile.TemporaryDirectory() as name:
        export_onnx(tiny(), Path(name, "exported"))
        models["ONNX"] = OnnxModel(Path(name, "exported"))
        for kind in TINY:
            models[kind] = load_pretrained(tiny_checkpoint(kind, texts, Path(name, kind)))
        for kind, model in models.items():
            run = partial(translate, model, beam_size=2, max_length=12)
            alone = [(t.text, t.score) for t in run(texts)]
            parts = [texts[n::8] for n in range(8)]
            with ThreadPoolExecutor(8) as pool:
                for n, found in enumerate(pool.map(run, parts)):
                    for (right, score), one in zip(alone[n::8], found, strict=True):
                        assert one.text == right and abs(one.score - score) < 1e-3, kind
    torch.manual_seed(0)
    model = Forecaster(Scaling(6, 12)).eval()
    waves = [np.sin(np.arange(40) * (n + 1) / 9) + n for n in range(32)]
    alone = forecast(model, waves, 6)
    with ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(
            pool.map(lambda part: forecast(model, part, 6), np.split(np.array(waves), 8))
        ):
            np.testing.assert_allclose(found, alone[4 * n : 4 * n + 4], atol=1e-5)
    return {"classes": len(models) + 1, "texts": number}


PARTS = {
    "training": (training, dict(kills=25), dict(kills=1, worlds=(2,))),
    "file": (file, dict(number=200_000, kills=10), dict(number=4000, kills=1)),
    "server": (server, dict(number=10_000, clients=50), dict(number=600, clients=20)),
    "disk": (disk, dict(kills=20), dict(kills=2)),
    "threads": (threads, dict(number=400), dict(number=32)),
}
TASKS = {"file": task_file, "save": task_save, "translate": task_translate, "cached": task_cached}


def table(results: dict) -> str:
    """The figures as a Markdown table."""
    found, rows = results["parts"], []
    for world, run in found["training"].items():
        name = "one process" if world == "1" else f"{world} processes"
        what = (
            f"killed {run['kills']} times, at {run['stopped at']} different steps of {run['steps']}"
        )
        rows.append([f"training, {name}", what, "the weights of an unkilled run, to the bit"])
    run = found["file"]
    what = (
        f"{run['lines']:,} lines, {run['left empty']:,} of them empty, invisible, broken or huge, "
    )
    what += f"killed {run['kills']} times"
    rows.append(["a file", what, f"each line as alone, in its place; {run['peak MB']} MB at most"])
    run = found["server"]
    what = f"{run['good']:,} good requests, {run['broken']} broken in {run['ways']} ways, "
    what += f"{run['hung up']} that hung up"
    memory = f"{run['MB after a fifth']} MB after a fifth of them, {run['MB']} MB at the end"
    stop = f"stopped while busy in {run['seconds to stop']} s"
    rows.append(["the server", what, f"all answered, right or with a reason; {memory}; {stop}"])
    what = "disk full, cache read-only, no home, two on one target, "
    what += f"killed {found['disk']['kills while saving']} times while saving"
    rows.append(["disks", what, "nothing lost, one sentence each"])
    run = found["threads"]
    what = f"8 threads on one model of each of {run['classes']} classes, {run['texts']} texts"
    rows.append(["threads", what, "what one thread gives"])
    return measuring.markdown(["", "what was done", "what came"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="only these")
    parser.add_argument("--quick", action="store_true", help="a short form, not saved")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        return TASKS[options.task[0]](*options.task[1:])
    path, found = measuring.RESULTS / "endurance.json", {}

    def done(name: str) -> tuple:
        run, long, short = PARTS[name]
        began = time.monotonic()
        return name, run(**(short if options.quick else long)), time.monotonic() - began

    with ThreadPoolExecutor(2 if options.quick else 1) as pool:
        for name, result, seconds in pool.map(done, options.part or PARTS):
            found[name] = result
            print(f"{name}: {result}, {seconds:.0f} s", flush=True)
    if not options.quick:
        before = json.loads(path.read_text("utf-8"))["parts"] if path.exists() else {}
        measuring.keep({"machine": measuring.machine(), "parts": before | found}, path)


if __name__ == "__main__":
    main()
