"""Do the tests notice? Plant faults in copies of the package, one at a time, and run the tests.

    python tests/plant_faults.py                   plants them all
    python tests/plant_faults.py --only "beam"     those whose name holds this
    python tests/plant_faults.py --list            names them
    python tests/plant_faults.py --after-green     without first running the tests as they are

The faults are in faults.txt, each a change to one file of the package. It counts as noticed if a
test fails: not if the copy cannot be imported or nothing is run, for then it is the fault that is
bad. So is one whose old text is not in the file exactly once: after a change of the package, change
the fault too.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300  # seconds for one run of pytest, which needs one or two
# Not a test that noticed, but a fault that was written badly.
BAD = {"NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError"}
# What the tests import, other than the package itself: loaded once, before the runs fork off.
PRELOAD = """torch torch._dynamo treadmill pytest hypothesis.strategies sacrebleu
matplotlib.pyplot pooch num2words"""


class Fault(NamedTuple):
    name: str
    file: str
    tests: str  # file
    chosen: str  # -k
    old: str
    new: str


def read_faults(path: Path) -> list[Fault]:
    """The entries of faults.txt, each checked against the file it changes."""
    faults, file, tests = [], "", ""
    for line in path.read_text("utf-8").splitlines():
        mark, rest = line[:2], line[2:]
        if mark == "= ":
            file, tests = rest.split()
        elif mark in ("- ", "+ "):
            at = 4 + (mark == "+ ")
            faults[-1][at] += ("\n" if faults[-1][at] else "") + rest
        elif line and mark != "# ":
            name, _, chosen = line.removesuffix("]").partition(" [")
            faults.append([name, file, tests, chosen, "", ""])
    faults = [Fault(*fault) for fault in faults]
    for fault in faults:
        count = (ROOT / "s2s_helpers" / fault.file).read_text("utf-8").count(fault.old)
        if count != 1:
            sys.exit(f"{fault.name}: {fault.file} has its old text {count} times\n{fault.old}")
    return faults


def run(fault: Fault, note: Path) -> None:
    """Plant the fault in a copy and run its tests there; a process of its own, which ends here."""
    named = note.with_suffix(".log")
    with named.open("w", encoding="utf-8") as log, tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        shutil.copytree(note.with_name("unfaulted"), folder, dirs_exist_ok=True)
        path = Path(folder, "s2s_helpers", fault.file)
        path.write_text(path.read_text("utf-8").replace(fault.old, fault.new), "utf-8")
        os.chdir(folder)
        sys.path.insert(0, folder)
        os.environ |= {"PYTHONPATH": folder, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        sys.dont_write_bytecode = True

        import pytest
        from hypothesis import Phase, settings

        import s2s_helpers

        if not Path(s2s_helpers.__file__).is_relative_to(folder):
            raise ImportError(f"the tests would run against {s2s_helpers.__file__}")
        # A failing example is enough, it need not be a small one.
        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("faults", deadline=None, derandomize=True, phases=phases)

        class Witness:
            def pytest_exception_interact(self, node, call):
                note.write_text(f"{call.excinfo.typename} {node.nodeid}", "utf-8")

        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
        options += ["--hypothesis-profile", "faults", "-k", fault.chosen, f"tests/{fault.tests}"]
        code = pytest.main(options, plugins=[Witness()])
        os.chdir(ROOT)
    sys.exit(int(code))


def verdict(code: int, seen: str) -> str:
    """How a run ended: pytest's code 0 is all green, 1 a failing test, others no test at all."""
    error = seen.partition(" ")[0]
    if code == 1 and seen and error not in BAD:
        return "red"
    return "GREEN" if code == 0 else "BROKEN"


def run_all(jobs: list[Fault], workers: int, folder: Path):
    """Run the jobs, so many at a time, and yield (job, verdict, seconds, what was seen, log)."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    if context.get_start_method() == "fork":
        for module in PRELOAD.split():
            __import__(module)
    waiting, running = list(enumerate(jobs)), {}
    while waiting or running:
        while waiting and len(running) < workers:
            number, job = waiting.pop(0)
            note = folder / f"{number}.txt"
            process = context.Process(target=run, args=(job, note), daemon=True)
            process.start()
            running[process.sentinel] = (process, job, note, time.perf_counter())
        ready = wait(running, timeout=1)
        now = time.perf_counter()
        for sentinel, (process, job, note, started) in list(running.items()):
            if sentinel in ready or now - started > LIMIT:
                process.kill()
                process.join()
                del running[sentinel]
                seen = note.read_text("utf-8") if note.exists() else ""
                log = note.with_suffix(".log")
                log = log.read_text(errors="replace") if log.exists() else ""
                yield job, verdict(process.exitcode, seen), now - started, seen, log


def whole(faults: list[Fault]) -> list[Fault]:
    """The tests of the faults without a fault: a job for each test file."""
    chosen = defaultdict(list)
    for fault in faults:
        chosen[fault.tests].append(fault.chosen)
    return [
        Fault(
            f"nothing planted, {tests}", "__init__.py", tests,
            " or ".join(f"({word})" for word in words) if all(words) else "", "\n", "\n",
        )
        for tests, words in chosen.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="NAME", help="part of a fault's name")
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    parser.add_argument(
        "--after-green", action="store_true", help="the tests have just passed: not once more"
    )
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    faults = read_faults(Path(__file__).with_name("faults.txt"))
    faults = [fault for fault in faults if options.only in fault.name]
    if options.list or not faults:
        sys.exit("\n".join(fault.name for fault in faults) or f"no fault named {options.only!r}")
    warnings.filterwarnings("ignore", message=".*pynvml.*")
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    started, missed = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        # Copied once, so that what is edited meanwhile changes nothing.
        for part in ("s2s_helpers", "tests", "benchmarks"):
            to = Path(folder, "unfaulted", part)
            shutil.copytree(ROOT / part, to, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", Path(folder, "unfaulted"))
        jobs = faults if options.after_green else whole(faults) + faults
        for job, found, seconds, seen, log in run_all(jobs, options.jobs, Path(folder)):
            planted = job in faults
            print(f"{found:6} {seconds:5.1f} s  {job.name:55} {seen}", flush=True)
            if found != ("red" if planted else "GREEN"):
                missed.append(job.name)
                print(log[-3000:])
                if not planted:
                    sys.exit(f"{job.tests} must pass before faults are planted")
    print(f"\n{len(faults)} faults planted in {time.perf_counter() - started:.0f} s", end=", ")
    print(f"not noticed: {'; '.join(missed)}" if missed else "all noticed")
    print(f"{len(faults) - len(missed)} passed, {len(missed)} failed")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
