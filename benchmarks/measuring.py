"""What the benchmarks share: jobs in turn, their times, and what they ran on."""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from treadmill import Callback

from s2s_helpers.files import atomic_write
from s2s_helpers.training.distributed import Processes
from s2s_helpers.training.trainer import StopTraining

RESULTS = Path(__file__).parent / "results"


def pin(threads: int) -> None:
    """Keep the process on so many of its cores, with as many threads."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < threads:
            sys.exit(f"--threads {threads} needs as many cores; this process may use {len(cores)}")
        os.sched_setaffinity(0, cores[:threads])
    torch.set_num_threads(threads)


def device_for(name: str) -> torch.device:
    """The device that "auto" or "cpu" means: a CUDA GPU if there is one, else the processor."""
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu")


def device_name(device: torch.device, cores: int) -> str:
    """The GPU's name, or the processor's, its widest instructions, and how many cores work."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor, able = machine()["processor"], torch.backends.cpu.get_cpu_capability()
    return f"{processor} ({able}), {cores} core{'s' * (cores > 1)}"


def alternate(jobs: dict, rounds: int) -> tuple[dict, dict]:
    """Call every job once in each round, to and fro. Returns for each its (wall, CPU) seconds of
    all rounds, and what it gave."""
    times, outputs = {name: [] for name in jobs}, {}
    for number in range(rounds):
        for name in list(jobs) if number % 2 == 0 else reversed(jobs):
            wall, cpu = time.perf_counter(), time.process_time()
            outputs[name] = jobs[name]()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times, outputs


def median_of(times: list[tuple], which: int) -> float:
    """Median of the wall (0) or CPU (1) seconds."""
    return statistics.median(pair[which] for pair in times)


def times_as_fast(ours: list[tuple], theirs: list[tuple], which: int) -> float:
    """Their seconds over ours, round by round, and the median of that: what slows a whole round
    down does not count."""
    return statistics.median(b[which] / a[which] for a, b in zip(ours, theirs, strict=True))


class Clock(Callback):
    """Ends a training when its seconds are over, and knows what share of them is spent: the mean of
    all processes that train together, so that they end with the same step."""

    def __init__(self, seconds: float, now: Callable[[], float], processes: Processes):
        self.seconds, self.now, self.processes, self.spent = seconds, now, processes, 0.0

    def on_train_start(self, trainer, **kwargs):
        self.started = self.now()

    def on_batch_end(self, trainer, batch_idx, metrics, **kwargs):
        spent = (self.now() - self.started) / self.seconds
        self.spent = min(1.0, float(self.processes.sums(spent)[0]) / self.processes.world)
        if self.spent == 1:
            raise StopTraining


def fit_for(
    seconds: float, trainer, schedule: Callable, now: Callable[[], float] = time.process_time
) -> None:
    """Train for so many seconds, silently and without looking at validation. The `schedule` is one
    of 100 steps: it is asked with the percent of the time that is over. A neighbour on the machine
    takes less of CPU time, which is meant where nothing is said, than of the wall clock's
    (`now=time.time`)."""
    clock = Clock(seconds, now, trainer.processes)
    trainer.callbacks.append(clock)
    trainer.schedule = lambda step: schedule(100 * clock.spent)
    trainer.val_dataloader, trainer.monitor = None, "loss"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(StopTraining):
        trainer.fit()


def machine(*packages: str) -> dict:
    """What it ran on, and with which versions of torch and these packages."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for package in ("torch", *packages):
        if importlib.util.find_spec(package):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def keep(results: dict, path: Path) -> None:
    """Write results as JSON: the file is the old one or the whole new one."""
    with atomic_write(path) as file:
        file.write(json.dumps(results, indent=1).encode() + b"\n")


def spread(values: list[float], form: str = ".1f") -> str:
    """Mean and standard deviation over the seeds; of one value itself, of none a dash."""
    if not values:
        return "-"
    mean = format(statistics.mean(values), form)
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):{form}}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])
