"""The workshop kit, on small made-up inputs and without a network."""

import ast
import csv
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "workshop"))

import archive  # noqa: E402
import gather  # noqa: E402
import install  # noqa: E402
import preflight  # noqa: E402
import slides  # noqa: E402
import student  # noqa: E402

# Preflight


@pytest.mark.parametrize("name", ["preflight", "install"])
def test_old_pythons_understand_what_has_to_answer_them(name):
    source = (ROOT / "workshop" / f"{name}.py").read_text(encoding="ascii")
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {
        alias.name
        for statement in tree.body
        if isinstance(statement, ast.Import)
        for alias in statement.names
    }
    assert imported <= sys.stdlib_module_names
    assert not any(isinstance(node, ast.JoinedStr | ast.AnnAssign) for node in ast.walk(tree))


@pytest.mark.parametrize(
    "version, bounds, kept",
    [
        ("2.13.0+cpu", ">=2.6,<3", True),
        ("2.6", ">=2.6.0,<3", True),
        ("2.5.9", ">=2.6,<3", False),
        ("3.0.0rc1", ">=2.6,<3", False),
        ("0.10.1", ">=0.9,<0.12", True),  # as numbers, not as text
        ("0.12", ">=0.9,<0.12", False),
    ],
)
def test_versions_are_compared_with_bounds(version, bounds, kept):
    assert preflight.within(version, bounds) is kept


def test_preflight_knows_what_pyproject_lists():
    listed = dict(preflight.requirements(preflight.pyproject()))
    assert {"torch", "jupyterlab", "anywidget"} <= listed.keys() and "pytest" not in listed
    assert listed["torch"].startswith(">=")


def answer(capsys, monkeypatch, *checks):
    monkeypatch.setattr(preflight, "CHECKS", checks)
    code = preflight.main()
    return code, capsys.readouterr().out.splitlines()


def test_preflight_says_what_is_wrong_and_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(
        preflight, "requirements", lambda text: [("nowhere", ">=1"), ("numpy", "<1")]
    )

    def needs_it():
        import nowhere  # noqa: F401

    code, lines = answer(capsys, monkeypatch, preflight.python, preflight.packages, needs_it)
    assert code == 1 and lines[0].startswith("ok ")
    assert lines[1].startswith("WRONG") and "numpy is " in lines[1] and "<1 is needed" in lines[1]
    assert "missing: nowhere" in lines[1] and "What to do: run" in lines[1]
    assert lines[2].startswith("- ") and "for want of packages" in lines[2]


def test_preflight_stops_at_an_old_python(capsys, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 1))
    code, lines = answer(capsys, monkeypatch, preflight.python, preflight.packages)
    assert code == 1 and len(lines) == 2 and "3.8.1 is too old" in lines[0]


def test_preflight_trains_and_notices_what_does_not_learn(capsys, monkeypatch):
    import torch

    code, (line, _) = answer(capsys, monkeypatch, preflight.training)
    assert code == 0 and "30 steps" in line
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    code, (line, _) = answer(capsys, monkeypatch, preflight.training)
    assert code == 1 and "did not learn" in line


def test_preflight_notices_damaged_captions_and_a_missing_widget(capsys, monkeypatch, tmp_path):
    from s2s_helpers.corpora import multi30k

    monkeypatch.setenv("S2S_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("S2S_CACHE_DIR", str(tmp_path / "none"))
    code, (line, _) = answer(capsys, monkeypatch, preflight.corpora)
    assert code == 0 and line.startswith("note") and "only notebook 08" in line
    for name in multi30k.SHA256:
        (tmp_path / name).write_bytes(b"cut")
    code, (line, _) = answer(capsys, monkeypatch, preflight.corpora)
    assert code == 1 and "is damaged" in line
    monkeypatch.setattr(preflight, "WIDGETS", ("anywidget", "@nobody/nothing"))
    code, (line, _) = answer(capsys, monkeypatch, preflight.widgets)
    assert code == 1 and "no extension @nobody/nothing" in line


# Archive and installation


def wheel(folder, name, version, *requires):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
    with zipfile.ZipFile(path, "w") as packed:
        told = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}"
        packed.writestr(f"{name}-{version}.dist-info/METADATA", told)
    return path


def test_what_another_system_needs_is_missed(tmp_path):
    wheels = [
        wheel(
            tmp_path, "lab", "1", "terms; os_name == 'nt'", "bare[fast]", "docs; extra == 'docs'"
        ),
        wheel(tmp_path, "bare", "2", "quick; extra == 'fast' and python_version < '3.12'"),
    ]
    assert archive.missing(["lab>=1"], wheels, "linux-x86_64-3.12") == []
    assert archive.missing(["lab>=1"], wheels, "windows-x86_64-3.12") == ["terms"]
    assert archive.missing(["lab>=1", "torch>=2"], wheels, "linux-arm64-3.11") == [
        "quick",
        "torch>=2",
    ]


def pack(tmp_path, made_for):
    files = {"project/a.txt": tmp_path / "a.txt", "wheels/b.whl": tmp_path / "b.whl"}
    for name, path in files.items():
        path.write_text(name)
    return archive.pack(files, made_for, tmp_path / "s2s.pyz")


def test_an_archive_is_whole_or_not_there(tmp_path):
    digest = pack(tmp_path, ["any-3.12"])
    assert digest == hashlib.sha256((tmp_path / "s2s.pyz").read_bytes()).hexdigest()
    assert (tmp_path / "s2s.pyz.sha256").read_text() == f"{digest}  s2s.pyz\n"
    assert not list(tmp_path.glob("*.part"))
    install.unpack(tmp_path / "s2s.pyz", tmp_path / "out")
    assert (tmp_path / "out" / "project" / "a.txt").read_text() == "project/a.txt"

    with zipfile.ZipFile(tmp_path / "s2s.pyz", "a") as packed, pytest.warns(UserWarning):
        packed.writestr("project/a.txt", "another, and whole as zip files go")
    with pytest.raises(ValueError, match=r"project/a\.txt"):
        install.unpack(tmp_path / "s2s.pyz", tmp_path / "out")

    before = (tmp_path / "s2s.pyz").read_bytes()
    with pytest.raises(FileNotFoundError):
        archive.pack({"gone": tmp_path / "gone"}, [], tmp_path / "s2s.pyz")
    assert (tmp_path / "s2s.pyz").read_bytes() == before


@pytest.mark.parametrize("found, said", [(b"project/A.txt", "damaged"), (None, "is for any-3.12")])
def test_an_archive_that_cannot_be_installed_says_why(tmp_path, found, said):
    own = f"{install.kind()}-{sys.version_info[0]}.{sys.version_info[1]}"
    pack(tmp_path, [own] if found else ["any-3.12"])
    if found:  # one letter of a file's content is another
        data = (tmp_path / "s2s.pyz").read_bytes()
        assert data.count(b"project/a.txt") > 1
        at = data.index(b"project/a.txt", data.index(b"project/a.txt") + 1)
        (tmp_path / "s2s.pyz").write_bytes(data[:at] + found + data[at + len(found) :])
    command = [sys.executable, tmp_path / "s2s.pyz", tmp_path / "course"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and said in done.stdout and not done.stderr
    assert not (tmp_path / "course").exists()


def test_an_archive_overwrites_nothing(tmp_path):
    pack(tmp_path, ["any-3.12"])
    (tmp_path / "s2s-workshop").mkdir()
    command = [sys.executable, tmp_path / "s2s.pyz"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "is there already" in done.stdout


# Handing out, and gathering


def returned(*texts, call="check.padding_mask(mine)\n", **fields):
    outputs = [new_output("stream", name="stdout", text=text) for text in texts]
    return new_notebook(cells=[new_code_cell(call, outputs=outputs)], **fields)


def save(notebook, path):
    path.parent.mkdir(exist_ok=True)
    path.write_text(nbformat.writes(notebook), encoding="utf-8")


def test_a_handout_has_no_outputs_and_no_solutions():
    notebook = returned("… padding_mask: not written yet.\n")
    notebook.cells[0].execution_count = 3
    words = "Ask. Solutions:\n[1.5](solutions/01.ipynb).\n\nIn 2.5 s; `solutions/01.ipynb` has all."
    notebook.cells.append(new_markdown_cell(words))
    handed = student.handout(notebook)
    assert handed.cells[0].outputs == [] and handed.cells[0].execution_count is None
    assert handed.cells[1].source == "Ask.\n\nIn 2.5 s."
    with pytest.raises(ValueError, match="worked on already"):
        student.handout(returned("✓ padding_mask: right on 9 inputs.\n"))


def test_the_courses_handouts_run_where_they_are_put_and_replace_no_work(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["student.py", "--out", str(tmp_path)])
    assert student.main() == 0
    drawings = {path.name for path in (ROOT / "notebooks" / "figures").glob("*.svg")}
    assert drawings and {path.name for path in (tmp_path / "figures").iterdir()} == drawings
    names = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"figures"}
    assert not any("solutions/" in path.read_text("utf-8") for path in tmp_path.glob("*.ipynb"))
    (tmp_path / "01_data.ipynb").write_text("my work")
    assert student.main() == 1 and (tmp_path / "01_data.ipynb").read_text() == "my work"


HANDED_OUT = {"01_data": ["padding_mask", "bucket"]}


@pytest.mark.parametrize(
    "texts, mark",
    [
        (["✓ padding_mask: right on 12 inputs.\n"], "✓"),
        (["my print\n", "✗ padding_mask: wrong\n  expected 1\n"], "✗"),
        (["… padding_mask: not written yet.\n"], "…"),
        (["it says ✓ padding_mask: right\n"], "·"),  # not at the start of a line
        (["✓ padding_masks: right\n"], "·"),
        (["✓ padding_mask: as printed by me\n✗ padding_mask: wrong\n"], "✗"),  # the check is last
        ([], "·"),
    ],
)
def test_a_check_counts_as_its_own_cell_says(texts, mark):
    assert gather.marks(returned(*texts)) == {"padding_mask": mark}
    assert gather.marks(returned(*texts, call="print(lie)  # check.padding_mask(mine)")) == {}


def test_what_is_returned_is_gathered_by_learner(tmp_path, capsys, monkeypatch):
    right, wrong = "✓ padding_mask: right\n", "✗ padding_mask: wrong\n"
    save(returned(right), tmp_path / "anna" / "01_data.ipynb")
    save(returned(wrong), tmp_path / "anna" / "01_data (1).ipynb")  # the better copy counts
    save(returned(wrong), tmp_path / "01_data_bob.ipynb")
    save(returned(right), tmp_path / "01_data_=HYPERLINK(1).ipynb")
    save(returned(right), tmp_path / "01_data_\x1b[2Jeve.ipynb")
    results, left_out = gather.gather(tmp_path, HANDED_OUT)
    found = {learner: row["padding_mask"] for learner, row in results["01_data"].items()}
    assert found == {"anna": "✓", "bob": "✗", "=HYPERLINK": "✓", "?[2Jeve": "✓"} and not left_out
    assert all(row["bucket"] == "·" for row in results["01_data"].values())

    gather.write(results, tmp_path / "checks.csv")
    with open(tmp_path / "checks.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and rows[0]["learner"] == "'=HYPERLINK"
    assert {
        "learner": "anna",
        "notebook": "01_data",
        "check": "bucket",
        "result": "not run",
    } in rows
    gather.show(results, HANDED_OUT)
    shown = capsys.readouterr().out
    assert "1 padding_mask: 3 passed" in shown and "\x1b" not in shown
    assert "anna        ✓ ·  1 of 2" in shown


def test_files_that_are_no_notebooks_are_named_and_skipped(tmp_path, links, monkeypatch):
    monkeypatch.setattr(gather, "MOST_BYTES", 10_000)
    odd = {
        "01_data_cut": '{"cells": [',
        "01_data_deep": "[" * 5_000,
        "01_data_large": " " * 10_001,
        "01_data_list": "[1, 2]",
        "01_data_number": '{"cells": 7}',
        "03_other": "{}",
    }
    for name, text in odd.items():
        (tmp_path / f"{name}.ipynb").write_text(text)
    (tmp_path / "01_data_link.ipynb").symlink_to("/dev/zero")
    strange = {"cells": [{"source": 5, "outputs": {}}, {"source": ["check.padding_mask(", 7]}]}
    (tmp_path / "01_data_strange.ipynb").write_text(json.dumps(strange))
    results, left_out = gather.gather(tmp_path, HANDED_OUT)
    assert list(results["01_data"]) == ["strange"]
    named = dict(line.split(".ipynb: ") for line in left_out)
    assert named.keys() == {*odd, "01_data_link"}
    assert named["01_data_large"].startswith("larger") and named["01_data_cut"].startswith(
        "no JSON"
    )


# Slides


def test_slides_need_no_network_and_hold_the_notebook():
    picture = new_output("display_data", {"image/png": "iVBORw0K\n", "text/plain": "<Figure>"})
    printed = new_output("stream", name="stdout", text="a <b>\n")
    page = slides.slides(
        new_notebook(
            cells=[
                new_markdown_cell("# Loss & co\n\nWith $p(k)$ and `$HOME`:\n\n$$\\frac{a}{b}$$"),
                new_code_cell("import os\n\nassert os", outputs=[]),
                new_code_cell("plot()", outputs=[printed, picture]),
            ]
        )
    )
    assert "<title>Loss &amp; co</title>" in page
    assert page.count("<math") == 2 and "<mfrac>" in page and "<code>$HOME</code>" in page
    assert "import" not in page.split("<main>")[1].split("</main>")[0]
    assert "a &lt;b&gt;" in page and "data:image/png;base64,iVBORw0K" in page
    assert "&lt;Figure&gt;" not in page
    assert 'src="http' not in page and 'href="http' not in page and "@import" not in page


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.name)
def test_every_formula_of_a_notebook_is_drawn(path):
    page = slides.slides(nbformat.read(path, as_version=4))
    page = page.split("<main>")[1].split("</main>")[0]
    assert "FORMULA" not in page and 'src="figures/' not in page
    assert "\\" not in "".join(part.split("</math>")[0] for part in page.split("<math")[1:])


# workshop/README.md

WORKSHOP = (ROOT / "workshop" / "README.md").read_text(encoding="utf-8")


def minutes_of_exercises():
    """Minutes of each exercise, as "03.2"; of each notebook, to read it and for all exercises."""
    by_exercise, by_notebook = {}, {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        number, cells = path.name[:2], nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for each, minutes in re.findall(r"^### (\d+)\. .*\((\d+) minutes\)$", text, re.M):
            by_exercise[f"{number}.{each}"] = int(minutes)
        first = cells[0].source
        by_notebook[number] = tuple(
            int(re.search(rf"(\d+) {words}", first)[1])
            for words in ("minutes", "for the exercises")
        )
    return by_exercise, by_notebook


def test_the_timetables_add_up_and_keep_to_the_notebooks():
    by_exercise, by_notebook = minutes_of_exercises()
    tables = re.findall(r"^\| at .*\n\| --- .*\n((?:\|.*\n)+)", WORKSHOP, re.M)
    assert len(tables) == 4
    for rows in map(str.splitlines, tables):
        clock = None
        for row in rows:
            at, minutes, what = (cell.strip() for cell in row.strip("|").split("|"))
            hours, rest = map(int, at.split(":"))
            assert clock in (None, 60 * hours + rest), row
            if what == "end":
                break
            clock = 60 * hours + rest + int(minutes)
            if reading := re.fullmatch(r"(\d\d): read and run", what):
                assert int(minutes) == by_notebook[reading[1]][0], row
            if what.startswith("ex"):
                assert int(minutes) == sum(map(by_exercise.get, re.findall(r"\d\d\.\d+", what))), (
                    row
                )


def test_each_notebook_has_its_section_with_its_minutes():
    _, by_notebook = minutes_of_exercises()
    found = re.findall(r"^### (\d\d) .*: (\d+) minutes, exercises (\d+)$", WORKSHOP, re.M)
    assert {number: (int(a), int(b)) for number, a, b in found} == by_notebook


def test_the_solutions_pass_every_check_that_is_gathered():
    for solution in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")):
        path = ROOT / "notebooks" / solution.name
        solved = gather.marks(gather.read(solution))
        handed_out = gather.checks(gather.read(path))
        assert handed_out and {name: solved.get(name) for name in handed_out} == dict.fromkeys(
            handed_out, "✓"
        ), path.name
