"""Installing, the learner's own copy, and the stages of the tests: with folders and commands of the
tests' own."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import run  # noqa: E402


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small project in the place of this one."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    for name in ("01_data.ipynb", "02_basic_rnn.ipynb", "solutions/01_data.ipynb"):
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} as committed")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    for name in ("PYTHON", "TORCH", "S2S_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_an_old_python_understands_it():
    tree = ast.parse((ROOT / "run.py").read_text("utf-8"), feature_version=(3, 8))
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {getattr(n, "module", None) or n.names[0].name for n in imported}
    assert names <= sys.stdlib_module_names


# Installing


class Machine:
    """Keeps a word for each call of `install`, in place of running it; a venv works once made."""

    def __init__(self, project):
        self.project, self.works, self.pip = project, False, True
        self.offline, self.calls = (), []

    def call(self, *command):
        command = " ".join(map(str, command))
        kind = "venv" if " -m venv " in command else "torch" if "torch==" in command else "all"
        self.calls.append(kind)
        if kind == "venv":
            (self.project / ".venv").mkdir(exist_ok=True)
            self.works = self.pip = True
        if kind in self.offline:
            raise subprocess.CalledProcessError(1, command)

    def version_of(self, command):
        if command[0] == str(run.own_python()):
            return (3, 12, 1, command[0]) if self.works else ()
        return {"python3.7": (3, 7, 9, "/usr/bin/python3.7"), "nowhere": ()}.get(
            command[0], (3, 11, 0, command[0])
        )

    def install(self):
        """What a call of `install` did."""
        self.calls.clear()
        run.install()
        return self.calls


@pytest.fixture
def machine(project, monkeypatch):
    machine = Machine(project)
    monkeypatch.setattr(run, "call", machine.call)
    monkeypatch.setattr(run, "version_of", machine.version_of)
    monkeypatch.setattr(run, "has_pip", lambda python: machine.pip)
    monkeypatch.setenv("TORCH", "cpu")
    return machine


def test_it_installs_once_and_again_when_something_else_is_asked_for(machine, monkeypatch):
    assert machine.install() == ["venv", "torch", "all"]
    settings = machine.project / ".venv/share/jupyter/lab/settings/overrides.json"
    assert '"fetchNews": "false"' in settings.read_text()
    assert machine.install() == []
    (machine.project / "pyproject.toml").write_text("[project]\nmore\n")
    assert machine.install() == ["torch", "all"]
    monkeypatch.setenv("TORCH", "default")
    assert machine.install() == ["venv", "all"]
    assert machine.install() == []


def test_an_installation_that_was_cut_short_is_mended(machine):
    machine.offline = ("all",)
    with pytest.raises(subprocess.CalledProcessError):
        machine.install()
    machine.offline = ("torch",)  # no CPU build: the usual one
    assert machine.install() == ["torch", "all"]
    machine.pip = False
    (machine.project / "pyproject.toml").write_text("[project]\nmore\n")
    assert machine.install() == ["venv", "torch", "all"]
    machine.works = False
    assert machine.install() == ["venv", "torch", "all"]


@pytest.mark.parametrize(
    "named, message",
    [
        ("python3.7", r"3\.11 or newer is needed; found 3\.7\.9 at /usr/bin/python3\.7"),
        ("nowhere", "found none"),
    ],
)
def test_a_python_that_will_not_do_is_named(machine, monkeypatch, named, message):
    monkeypatch.setenv("PYTHON", named)
    with pytest.raises(run.Failed, match=message):
        machine.install()


def test_the_version_of_a_python_is_asked_of_itself():
    assert run.version_of([sys.executable]) == (*sys.version_info[:3], sys.executable)
    assert run.version_of(["no-such-python"]) == ()


@pytest.mark.parametrize(
    "system, driver, asked, build",
    [
        ("linux", None, None, "cpu"),
        ("linux", "/usr/bin/nvidia-smi", None, "default"),
        ("linux", "/usr/bin/nvidia-smi", "cpu", "cpu"),
        ("darwin", None, None, "default"),
        ("win32", None, "", "default"),
    ],
)
def test_the_build_of_torch_fits_the_machine(monkeypatch, system, driver, asked, build):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(run.shutil, "which", lambda name: driver)
    monkeypatch.delenv("TORCH", raising=False)
    if asked is not None:
        monkeypatch.setenv("TORCH", asked)
    assert run.torch_build() == build


def test_a_build_that_there_is_not(monkeypatch):
    monkeypatch.setenv("TORCH", "cuda")
    with pytest.raises(run.Failed, match="cpu or default, not 'cuda'"):
        run.torch_build()


def test_what_the_workshop_installed_is_not_installed_again(machine):
    """workshop/install.py installs by itself, without a network, and then asks for the note."""
    asked = (ROOT / "workshop" / "install.py").read_text("utf-8")
    assert 'run(own, os.path.join(folder, "run.py"), "note-installed")' in asked
    machine.call("python", "-m", "venv", ".venv")
    assert run.main(["note-installed"]) == 0
    assert machine.install() == []
    settings = machine.project / ".venv/share/jupyter/lab/settings/overrides.json"
    assert '"fetchNews": "false"' in settings.read_text()


# The learner's own copy


def texts(project):
    folder = project / run.COPY
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.i*b")}


def test_the_copy_is_filled_kept_and_brought_up_to_date(project, capsys):
    drawing = project / "notebooks" / "figures" / "attention.svg"
    drawing.parent.mkdir()
    drawing.write_text("<svg/>")
    run.fill_copy()
    assert (project / run.COPY / "figures" / "attention.svg").read_text() == "<svg/>"
    assert texts(project) == {name: f"{name} as committed" for name in run.pages()}
    mine, course = project / run.COPY / "01_data.ipynb", project / "notebooks"
    mine.write_text("my answer")
    (course / "02_basic_rnn.ipynb").write_text("mended")
    (course / "03_attention.ipynb").write_text("new")
    run.fill_copy()
    assert (
        capsys.readouterr().out == ""
    )  # the course has nothing newer of the page that was changed
    found = texts(project)
    assert found["01_data.ipynb"] == "my answer"
    assert found["02_basic_rnn.ipynb"] == "mended" and found["03_attention.ipynb"] == "new"
    (course / "01_data.ipynb").write_text("01 mended")
    run.fill_copy()
    assert mine.read_text() == "my answer"
    assert "newer versions of 01_data.ipynb; yours stay" in capsys.readouterr().out


def test_a_page_gets_its_first_state_back_and_nothing_is_lost(project, capsys):
    run.fill_copy()
    mine = project / run.COPY / "01_data.ipynb"
    mine.write_text("my answer")
    for page in ("1", "01", "01_data", "01_data.ipynb"):
        run.reset(page)
    kept = [name for name in texts(project) if "until" in name]
    assert len(kept) == 1 and texts(project)[kept[0]] == "my answer"
    assert mine.read_text() == "01_data.ipynb as committed"
    assert f"What you had is in {run.COPY}" in capsys.readouterr().out.replace("\\", "/")
    run.reset("solutions/01_data")
    with pytest.raises(run.Failed, match="names no notebook; there are 01_data"):
        run.reset("17")


def test_a_copy_whose_record_is_lost_is_not_overwritten(project):
    run.fill_copy()
    mine = project / run.COPY / "01_data.ipynb"
    mine.write_text("my answer")
    for record in ("{", None):
        path = project / run.COPY / run.FIRST_STATES
        path.unlink() if record is None else path.write_text(record)
        run.fill_copy()
        assert mine.read_text() == "my answer"


def test_the_corpora_are_found_from_another_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S2S_DATA_DIR", run.os.pathsep.join(["a", str(tmp_path / "b")]))
    folders = run.environment()["S2S_DATA_DIR"].split(run.os.pathsep)
    assert folders == [str(tmp_path / "a"), str(tmp_path / "b")]
    monkeypatch.delenv("S2S_DATA_DIR")
    assert "S2S_DATA_DIR" not in run.environment()


# The stages


def stage(name, code, failure=None, repeat=None):
    return name, ["-c", code], failure, repeat


def test_every_notebook_is_run_once_and_before_its_solutions():
    assert sorted(run.ORDERED) == sorted(f"{run.COURSE}/{name}" for name in run.pages())
    for name in run.ORDERED:
        assert run.ORDERED.index(name.replace("solutions/", "")) <= run.ORDERED.index(name)


def test_stages_go_on_after_a_red_one_and_say_what_to_run_again(monkeypatch, capfdbinary):
    monkeypatch.setattr(run, "own_python", lambda: run.ROOT / Path(sys.executable).name)
    monkeypatch.setattr(
        run,
        "run_stage",
        lambda python, arguments, real=run.run_stage: real(sys.executable, arguments),
    )
    stages = [
        stage("red", "print('FAILED tests/a.py::b c - it'); print('café'); raise SystemExit(1)",
              r"FAILED (.+?)(?: - |$)", ["-m", "pytest"]),
        stage("crash", "import os; os._exit(3)"),
        stage("fine", "print('all is well')"),
    ]  # fmt: skip
    assert run.test([], stages) == 1
    lines = capfdbinary.readouterr().out.decode("utf-8").splitlines()
    python = Path(sys.executable).name
    assert "all is well" in lines and "café" in lines
    colours = [
        line.split()[0] for line in lines if line.endswith((" s  red", " s  crash", " s  fine"))
    ]
    assert colours == ["==", "==", "==", "red", "red", "green"]
    assert lines[-2] == f'{python} -m pytest "tests/a.py::b c"'
    assert lines[-1].startswith(f"{python} -c")
    assert run.test(["fine"], stages) == 0
    with pytest.raises(run.Failed, match="no stage 'fast'; there are: red, crash, fine"):
        run.test(["fast"], stages)


@pytest.mark.parametrize(
    "name, printed, again",
    [
        ("style", "F401 unused\n  --> tests/x.py:3:1\n", "-m ruff check tests/x.py"),
        ("unit tests", "FAILED tests/a.py::test_b[c] - AssertionError: no\n", "a.py::test_b[c]"),
        ("unit tests", "ERROR tests/a.py\n", "-q tests/a.py"),
        ("planted faults", "12 faults planted in 3 s, not noticed: a b; c\n", '--only "a b"'),
        ("notebooks", "FAILED notebooks/03_attention.ipynb::Cell 4\n", "03_attention.ipynb"),
    ],
)  # fmt: skip
def test_each_stage_is_known_by_what_it_prints(monkeypatch, capsys, name, printed, again):
    monkeypatch.setattr(run, "run_stage", lambda python, arguments: (1, printed))
    assert run.test([name]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(again)


def test_what_it_is_asked_for(monkeypatch, capsys, project):
    monkeypatch.setattr(run, "install", lambda: None)
    assert run.main([]) == 0 and run.main(["--help"]) == 0 and run.main(["tset"]) == 1
    assert capsys.readouterr().out.count("python run.py lab") == 3
    states = project / run.COPY / run.FIRST_STATES
    assert run.main(["reset", "2"]) == 0
    assert list(json.loads(states.read_text())) == ["02_basic_rnn.ipynb"]
