"""Training on many processes, tried out on one machine, and what it would cost on many."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from torch import nn


def training_flops(model: nn.Module, source: int, target: int) -> float:
    """Operations to train a transformer on so many source and target tokens: 2 forward, 4 backward
    for each weight and token that it multiplies (Kaplan et al. 2020, section 2.1).

    Attention's own products, small for sentences, are left out; looking embeddings up is free.
    """
    flops = 6.0 * target * model.output.weight.numel()
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and name.startswith(("encoder.", "decoder.")):
            of_source = re.search(r"^encoder\.|\.cross\.(key|value)\.", name)
            flops += 6.0 * weight.numel() * (source if of_source else target)
    return flops


def all_reduce_seconds(parameters: int, ranks: int, bandwidth: float, size: int = 4) -> float:
    """A ring all-reduce of numbers of `size` bytes at `bandwidth` bytes a second: every rank sends
    2 (N - 1) / N of them (Patarasuk and Yuan 2009)."""
    return 2 * (ranks - 1) / ranks * parameters * size / bandwidth


def torchrun(*arguments: Any, processes: int = 2, restarts: int = 0) -> Iterator[str]:
    """Run `s2s_helpers.training`, or the script that the first argument names, in so many processes
    here; yields each line that they print. When one fails, all start anew, at most `restarts`
    times.

    When the caller stops reading, all are ended. Raises RuntimeError where the run fails.
    """
    module = [] if str(arguments[0]).endswith(".py") else ["-m", "s2s_helpers.training"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}", *module]
    once = dict(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONUNBUFFERED="1", PYTHONUTF8="1")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors, subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=errors,
        encoding="utf-8", env=os.environ | once,
    ) as process:  # fmt: skip
        try:
            yield from map(str.rstrip, process.stdout)
            if process.wait():
                errors.seek(0)
                text = errors.read()
                found = re.search(r"^(?:\[rank\d+\]: *)?(\w*Error: .*)", text, re.MULTILINE)
                raise RuntimeError(f"the run failed: {found[1] if found else text[-3000:]}")
        finally:
            process.terminate()  # torchrun ends its workers first
