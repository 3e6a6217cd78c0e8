"""Install the course, open it, test it: the same commands on Linux, macOS and Windows.

    python run.py lab           install into .venv, and open your own copy of the notebooks
    python run.py test          install likewise, and run every check that CI runs
    python run.py open          open your own copy with the Python that runs this
    python run.py reset 03      give your copy of notebook 03 its first state, and keep what you had
    python run.py install       install only

    python run.py notebooks [FILE ...]    execute and clean every notebook, or these
    python run.py format                  format the code and the notebooks
    python run.py preflight | student | gather FOLDER | slides [NUMBER ...] | archive
                                          for classes: see workshop/README.md

Three settings come from the environment. PYTHON: the Python that .venv is made with. TORCH: "cpu"
for PyTorch's small CPU build, "default" for what pip finds (on Linux several GB of CUDA); unless it
is set, a Linux machine without an NVIDIA driver gets the small one. S2S_DATA_DIR: folders with
corpora.

Only the standard library is used, in words that Python 3.8 understands, so that it can answer.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)
EXTRAS = ".[notebooks,advanced,test]"
# Treadmill wants torchvision too; these two are a matching pair.
TORCH_CPU = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
TORCH_CPU += ["torch==2.13.0", "torchvision==0.28.0"]
COURSE, COPY = "notebooks", "my_notebooks"
FIRST_STATES = ".first_states.json"  # in the copy: of each page, the hash of what was put there
# JupyterLab would ask about news, over the text of the first notebook.
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}
SCRIPTS = {
    "notebooks": "notebooks/refresh.py",
    "student": "workshop/student.py",
    "gather": "workshop/gather.py",
    "slides": "workshop/slides.py",
    "archive": "workshop/archive.py",
}
SOURCES = ["run.py", "s2s_helpers", "tests", "benchmarks", "notebooks", "workshop"]


class Failed(Exception):
    """What is wrong, and what to do; printed without a traceback."""


# Installing


def own_python() -> Path:
    """The Python of .venv, whether it is there or not."""
    return ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def torch_build() -> str:
    """ "cpu" or "default": what TORCH says, or else what fits this machine."""
    chosen = os.environ.get("TORCH") or ""
    if chosen not in ("", "cpu", "default"):
        raise Failed(f"TORCH is cpu or default, not {chosen!r}.")
    without_gpu = sys.platform == "linux" and not shutil.which("nvidia-smi")
    return chosen or ("cpu" if without_gpu else "default")


def version_of(command: list) -> tuple:
    """The version of a Python, such as (3, 12, 1), and its path; () where there is none."""
    ask = "import sys; print(*sys.version_info[:3], sys.executable, sep='|')"
    try:
        answer = subprocess.run([*command, "-c", ask], stdout=subprocess.PIPE, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    *version, path = answer.stdout.decode().strip().split("|")
    return (*map(int, version), path)


def find_python() -> str:
    """The path of a Python that is new enough: what PYTHON names, or this, or another."""
    named = os.environ.get("PYTHON")
    others = [f"python3.{minor}" for minor in (14, 13, 12, 11)] + ["python3", "python"]
    commands = [[sys.executable], *([name] for name in others), ["py", "-3"]]
    found = ()
    for command in [[named]] if named else commands:
        version = version_of(command)
        if version[:2] >= OLDEST:
            return version[3]
        found = found or version
    what = "found {}.{}.{} at {}".format(*found) if found else "found none"
    raise Failed(
        f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed; {what}. Install one from "
        "python.org, or name one that is there in the variable PYTHON."
    )


def stamp(torch: str) -> str:
    """What is asked for: the dependencies, this folder, this build of torch."""
    return f"{(ROOT / 'pyproject.toml').read_text('utf-8')}{ROOT}\n{torch}\n"


def call(*command) -> None:
    """Run a command in the project's folder; raise CalledProcessError where it fails."""
    subprocess.run([str(part) for part in command], cwd=str(ROOT), check=True)


def install() -> None:
    """Make .venv, or bring it up to date. Where the last install that went through was asked for
    the same, pip is not called at all."""
    torch, own = torch_build(), own_python()
    note = ROOT / ".venv" / "installed"
    before = note.read_text("utf-8") if note.is_file() else ""
    works = version_of([str(own)])[:2] >= OLDEST
    if works and before == stamp(torch):
        return
    if not works or (before and before.splitlines()[-1] != torch) or not has_pip(own):
        call(find_python(), "-m", "venv", "--clear", ROOT / ".venv")
    if note.is_file():
        note.unlink()
    pip = [own, "-m", "pip", "install", "--disable-pip-version-check"]
    if torch == "cpu":
        try:
            call(*pip, "--retries", "1", "--no-deps", *TORCH_CPU)
        except subprocess.CalledProcessError:
            print("No CPU build of PyTorch for this Python: going on with the usual one.")
    call(*pip, "-e", EXTRAS)
    note_installed(torch)


def note_installed(torch: str) -> None:
    """What follows an installation: JupyterLab's settings, and the stamp that spares another."""
    settings = ROOT / ".venv" / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    news = {"@jupyterlab/apputils-extension:notification": NO_NEWS}
    (settings / "overrides.json").write_text(json.dumps(news), "utf-8")
    (ROOT / ".venv" / "installed").write_text(stamp(torch), "utf-8")


def has_pip(python: Path) -> bool:
    """Whether this Python has pip: a .venv whose making was stopped has none."""
    silent = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.run([str(python), "-m", "pip", "--version"], **silent).returncode == 0


# The learner's own copy


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def first_states() -> dict:
    try:
        return json.loads((ROOT / COPY / FIRST_STATES).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def put(name: str, states: dict) -> None:
    """Copy a page of the course into the learner's folder."""
    page = ROOT / COPY / name
    page.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(str(ROOT / COURSE / name), str(page))
    states[name] = digest(page)
    (ROOT / COPY / FIRST_STATES).write_text(json.dumps(states, indent=1), "utf-8")


def pages() -> list:
    """The notebooks and solutions of the course, as names within its folder."""
    found = sorted((ROOT / COURSE).glob("*.ipynb")) + sorted((ROOT / COURSE).glob("*/*.ipynb"))
    found = [path.relative_to(ROOT / COURSE) for path in found]
    return [path.as_posix() for path in found if ".ipynb_checkpoints" not in path.parts]


def fill_copy() -> None:
    """Put what is missing into the learner's folder; bring up to date what they did not touch.

    A page that they changed stays as it is; where the course has a new one, a line says so.
    """
    states, changed = first_states(), []
    pictures = ROOT / COPY / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for picture in (ROOT / COURSE / "figures").glob("*.svg"):
        shutil.copyfile(str(picture), str(pictures / picture.name))
    for name in pages():
        page = ROOT / COPY / name
        theirs = digest(page) if page.exists() else None
        ours, first = digest(ROOT / COURSE / name), states.get(name)
        if theirs is None or (theirs == first and theirs != ours):
            put(name, states)
        elif theirs != ours and ours != first:
            changed.append(name)
    if changed:
        print(
            f"The course has newer versions of {', '.join(changed)}; yours stay as you left them. "
            f"For the new one: python run.py reset {changed[0]}"
        )


def reset(page: str) -> None:
    """Give a page its first state; what the learner had is kept beside it."""
    number = f"{int(page):02}_" if page.isdigit() else None
    names = [n for n in pages() if n.startswith(number or page) or n == f"{page}.ipynb"]
    if len(names) != 1:
        raise Failed(f"{page!r} names no notebook; there are {', '.join(pages())}")
    theirs = ROOT / COPY / names[0]
    if theirs.exists() and digest(theirs) != digest(ROOT / COURSE / names[0]):
        kept = theirs.with_name(f"{theirs.stem} until {datetime.now():%Y-%m-%d %H.%M.%S}.ipynb")
        os.replace(str(theirs), str(kept))
        print(f"What you had is in {kept.relative_to(ROOT)}.")
    put(names[0], first_states())
    print(f"{COPY}/{names[0]} is as at the start; reload it in JupyterLab.")


def open_lab(python: Path) -> int:
    """JupyterLab on the learner's own copy; where there is no screen it prints its address."""
    fill_copy()
    flags = [f"--LabApp.default_url=/lab/tree/{COPY}/00_in_an_hour.ipynb"]
    screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if not screen:
        flags.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--allow-root")
    try:
        lab = [str(python), "-m", "jupyterlab", *flags]
        return subprocess.run(lab, cwd=str(ROOT), env=environment()).returncode
    except KeyboardInterrupt:  # how a server is ended
        return 0


def environment() -> dict:
    """The environment of what is started here. A notebook runs in its own folder, so relative paths
    to the corpora are made absolute."""
    folders = os.environ.get("S2S_DATA_DIR", "").split(os.pathsep)
    absolute = os.pathsep.join(os.path.abspath(folder) for folder in folders if folder)
    found = dict(os.environ, PYTHONUTF8="1")
    return dict(found, S2S_DATA_DIR=absolute) if absolute else found


def one_thread() -> dict:
    """The same for workers side by side: with more threads they fight for the same cores."""
    return dict(environment(), OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")


# Testing

NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"]
NBVAL += ["--nbval-sanitize-with", "tests/nbval_sanitize.cfg"]
# The longest first, so that the workers end together; a notebook before its solutions, which find
# what it has trained.
LONGEST = ["08_real_translation.ipynb", "13_pretrained.ipynb", "00_in_an_hour.ipynb"]
LONGEST += ["solutions/08_real_translation.ipynb", "12_forecasting.ipynb"]
LONGEST += ["11_sequence_generation.ipynb", "14_production.ipynb", "05_training.ipynb"]
ORDERED = LONGEST + [name for name in pages() if name not in LONGEST]
ORDERED = [f"{COURSE}/{name}" for name in ORDERED]
IN_ORDER = ["--dist", "loadfile", "--no-loadscope-reorder"]
PYTEST = ["-m", "pytest", "-q"]
# Name, arguments of Python, what a line that names a failure looks like, and what runs that again.
STAGES = [
    ("style", ["-m", "ruff", "check", *SOURCES], r"--> (\S+?):", ["-m", "ruff", "check"]),
    ("format", ["-m", "ruff", "format", "--check", *SOURCES], None, None),
    ("types", ["-m", "mypy"], r"(s2s_helpers\S+?):\d", None),
    (
        "unit tests",
        [*PYTEST, "-n", "2", "tests", "--ignore=tests/browser"],
        r"(?:FAILED|ERROR) (.+?)(?: - |$)",
        PYTEST,
    ),
    (
        "planted faults",
        ["tests/plant_faults.py"],
        r"not noticed: (.+?)(?:;|$)",
        ["tests/plant_faults.py", "--only"],
    ),
    (
        "notebooks",
        [*PYTEST, "-n", "2", *IN_ORDER, *NBVAL, *ORDERED],
        r"(?:FAILED|ERROR) (.+?\.ipynb)",
        [*PYTEST, *NBVAL],
    ),
    (
        "browser",
        [*PYTEST, "-n", "3", "--maxschedchunk=1", "-rs", "tests/browser"],
        r"(?:FAILED|ERROR) (.+?)(?: - |$)",
        PYTEST,
    ),
    ("endurance", ["benchmarks/endurance.py", "--quick"], None, None),
]


def shown(arguments: list) -> str:
    """A command as one types it."""
    python = own_python().relative_to(ROOT)
    return " ".join([str(python), *(f'"{a}"' if " " in a else a for a in arguments)])


def run_stage(python: Path, arguments: list) -> tuple:
    """Run one stage and show what it prints as it comes; its exit status and that text."""
    text = b""
    with subprocess.Popen(
        [str(python), *arguments],
        cwd=str(ROOT), env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        for piece in iter(lambda: process.stdout.read1(4096), b""):
            text += piece
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    return process.returncode, text.decode("utf-8", "replace")


def test(names: list, stages: list = STAGES) -> int:
    """Run the stages, all or those named, each to its end; 0 where all are green."""
    known = [name for name, *_ in stages]
    if unknown := [name for name in names if name not in known]:
        raise Failed(f"there is no stage {unknown[0]!r}; there are: {', '.join(known)}")
    lines, green, again = [], set(), []
    for name, arguments, failure, repeat in stages:
        if names and name not in names:
            continue
        if name == "planted faults" and "unit tests" in green:
            arguments = [*arguments, "--after-green"]
        print(f"\n== {name}: {shown(arguments)}", flush=True)
        began = time.monotonic()
        status, text = run_stage(own_python(), arguments)
        seconds = time.monotonic() - began
        lines.append(f"{'red' if status else 'green':6} {seconds:6.0f} s  {name}")
        print(f"== {lines[-1]}", flush=True)
        if not status:
            green.add(name)
        else:
            found = re.search(failure, text, re.MULTILINE) if failure else None
            again.append(shown([*repeat, found[1].strip()] if found and repeat else arguments))
    print("\n" + "\n".join(lines))
    if again:
        print("\nTo see a failure of each red stage again:\n" + "\n".join(again))
    return int(bool(again))


def main(arguments: list) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "note-installed":  # asked by workshop/install.py
        note_installed(torch_build())
        return 0
    if command == "open":
        return open_lab(Path(sys.executable))
    if command == "reset" and len(rest) == 1:
        reset(rest[0])
        return 0
    if command == "preflight":  # without .venv, any Python answers
        python = own_python() if own_python().exists() else sys.executable
        return subprocess.run([str(python), "workshop/preflight.py"], cwd=str(ROOT)).returncode
    if command not in ("lab", "test", "install", "format", *SCRIPTS):
        print(__doc__)
        return int(command not in ("", "help", "--help", "-h"))
    install()
    if command == "lab":
        return open_lab(own_python())
    if command == "test":
        return test(rest)
    if command == "format":
        call(own_python(), "-m", "ruff", "check", "--fix", *SOURCES)
        call(own_python(), "-m", "ruff", "format", *SOURCES)
    if command in SCRIPTS:
        script = [str(own_python()), SCRIPTS[command], *rest]
        return subprocess.run(script, cwd=str(ROOT), env=one_thread()).returncode
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"This failed, and says above why: {' '.join(map(str, error.cmd))}")
    except KeyboardInterrupt:
        sys.exit(130)
