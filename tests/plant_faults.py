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
import compileall
import gc
import multiprocessing
import os
import py_compile
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
PRELOAD = """torch torch._dynamo treadmill pytest pdb hypothesis.strategies sacrebleu filelock pooch
sentencepiece num2words pandas matplotlib.pyplot IPython.display anywidget
_hypothesis_pytestplugin _pytest.junitxml _pytest.unittest"""


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


def run(fault: Fault, copy: Path, note: Path) -> None:
    """Run a fault's tests in the copy where it is planted; a process of its own, ends here."""
    with note.with_suffix(".log").open("w", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ |= {"PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.dont_write_bytecode = True

    import pytest
    from hypothesis import Phase, settings

    import s2s_helpers

    if not Path(s2s_helpers.__file__).is_relative_to(copy):
        raise ImportError(f"the tests would run against {s2s_helpers.__file__}")
    # A failing example is enough, it need not be a small one.
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("faults", deadline=None, derandomize=True, phases=phases)

    class Witness:
        def pytest_exception_interact(self, node, call):
            note.write_text(f"{call.excinfo.typename} {node.nodeid}", "utf-8")

    plugins = ["-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
    options = ["-x", "-q", "--assert=plain", "--tb=native", *plugins]
    options += ["--hypothesis-profile", "faults", "-k", fault.chosen, f"tests/{fault.tests}"]
    sys.exit(int(pytest.main(options, plugins=[Witness()])))


def verdict(code: int, seen: str) -> str:
    """How a run ended: pytest's code 0 is all green, 1 a failing test, others no test at all."""
    error = seen.partition(" ")[0]
    if code == 1 and seen and error not in BAD:
        return "red"
    return "GREEN" if code == 0 else "BROKEN"


def run_all(jobs: list[Fault], copies: list[Path]):
    """Run the jobs, one at a time in each copy; of each, (job, verdict, seconds, seen, log)."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    if context.get_start_method() == "fork":
        for module in PRELOAD.split():
            __import__(module)
        gc.freeze()  # pytest collects garbage four times a run: not among what is loaded here
    waiting, running, free = list(enumerate(jobs)), {}, list(copies)
    while waiting or running:
        while waiting and free:
            (number, job), copy = waiting.pop(0), free.pop()
            path, note = copy / "s2s_helpers" / job.file, copy.parent / f"{number}.txt"
            sound = path.read_text("utf-8")
            path.write_text(sound.replace(job.old, job.new), "utf-8")
            process = context.Process(target=run, args=(job, copy, note), daemon=True)
            process.start()
            running[process.sentinel] = (process, job, copy, sound, note, time.perf_counter())
        ready = wait(running, timeout=1)
        now = time.perf_counter()
        for sentinel, (process, job, copy, sound, note, started) in list(running.items()):
            if sentinel in ready or now - started > LIMIT:
                process.kill()
                process.join()
                del running[sentinel]
                (copy / "s2s_helpers" / job.file).write_text(sound, "utf-8")
                free.append(copy)
                seen = note.read_text("utf-8") if note.exists() else ""
                log = note.with_suffix(".log").read_text("utf-8", errors="replace")
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
        copies = [Path(os.path.realpath(folder), str(number)) for number in range(options.jobs)]
        for copy in copies:
            for part in ("s2s_helpers", "tests", "benchmarks"):
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / part, copy / part, ignore=ignored)
            shutil.copy(ROOT / "pyproject.toml", copy)
            # Compiled once: a file that was changed is told by its hash, not by its time.
            by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
            compileall.compile_dir(copy / "s2s_helpers", quiet=1, invalidation_mode=by_hash)
        jobs = faults if options.after_green else whole(faults) + faults
        for job, found, seconds, seen, log in run_all(jobs, copies):
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
