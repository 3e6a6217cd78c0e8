"""Do the tests pass in any order? Run them many times, each time in another one.

python tests/repeat.py        20 times, with one worker and with four in turn
python tests/repeat.py 3 -k beam    3 times, with these arguments of pytest

A red run says its seed: --random-order-seed repeats its order, and with one worker all of it.
"""

import os
import re
import subprocess
import sys
import time


def main(arguments: list[str]) -> int:
    times = int(arguments.pop(0)) if arguments and arguments[0].isdigit() else 20
    once = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    red = 0
    for number in range(times):
        workers = 4 if number % 2 else 1
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "tests"]
        command += ["--ignore=tests/browser", "--random-order", f"--random-order-seed={number}"]
        began = time.monotonic()
        run = subprocess.run([*command, *arguments], env=once, capture_output=True, text=True)
        found = re.findall(r"^(?:FAILED|ERROR) .*|^\d+ \w+.* in .*", run.stdout, re.MULTILINE)
        print(f"seed {number}, {workers} workers, {time.monotonic() - began:.0f} s: ", end="")
        print("\n".join(found) or run.stdout[-2000:] + run.stderr[-2000:], flush=True)
        red += run.returncode != 0
    print(f"{times - red} of {times} runs were green")
    return int(bool(red))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
