"""The notebooks are tidy: run in order, whole, without a trace of the machine, and easy to read."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TAGS = {"nbval-ignore-output", "nbval-check-output"}
MACHINE_PATH = re.compile(r"/home/|/work/|/Users/|/root/|/tmp/|[A-Z]:\\+Users")
WIDGET = "application/vnd.jupyter.widget-view+json"
MOST_LINES = 25


def minutes(notebook) -> int | None:
    """The minutes that the first cell promises."""
    found = re.search(r"(\d+) minutes", notebook.cells[0].source)
    return int(found[1]) if found else None


def readme_minutes(readme: str) -> dict[str, int]:
    """The minutes by file name, from the rows of the README's table of notebooks."""
    rows = re.findall(r"^\|.*\(notebooks/([\w.]+\.ipynb)\).*\|\s*(\d+)\s*\|$", readme, re.MULTILINE)
    return {name: int(number) for name, number in rows}


def code_problems(code: list) -> list[str]:
    """What is wrong with the code cells and their outputs."""
    found = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed in order from 1")
    for number, cell in enumerate(code, 1):
        where = f"code cell {number}"
        if len(cell.source.splitlines()) > MOST_LINES:
            found.append(f"{where}: more than {MOST_LINES} lines")
        tags = set(cell.metadata.get("tags", []))
        if tags - TAGS:
            found.append(f"{where}: unknown tags {sorted(tags - TAGS)}")
        # Lines that start with assert: a comment that says the word checks nothing.
        following = "\n".join(later.source for later in code[number : number + 2])
        if "nbval-ignore-output" in tags and not re.search(r"^\s*assert\b", following, re.M):
            found.append(f"{where}: ignores its output, and no cell soon after asserts")
        if set(cell.metadata) - {"tags", "jupyter"}:
            found.append(f"{where}: metadata of a run, not refreshed")
        for output in cell.outputs:
            data = output.get("data", {})
            text = output.get("text", "") + "".join(
                str(value) for kind, value in data.items() if not kind.startswith("image/")
            )
            if output.output_type == "error" or "Traceback (most recent" in text:
                found.append(f"{where}: error")
            if MACHINE_PATH.search(text):
                found.append(f"{where}: path of a machine")
            if WIDGET in data:
                found.append(f"{where}: view of a widget, not refreshed")
            if "\r" in text:
                found.append(f"{where}: unfinished progress, not refreshed")
    return found


def problems(notebook) -> list[str]:
    """Everything that is wrong with a notebook by itself, in words."""
    cells = notebook.cells
    found = code_problems([cell for cell in cells if cell.cell_type == "code"])
    first = cells[0].source if cells[0].cell_type == "markdown" else ""
    if not first.startswith("# "):
        found.append("no title at the start")
    if minutes(notebook) is None:
        found.append("no minutes in the first cell")
    if not re.search(r"\byou(['’]ll| will) be able to", first, re.IGNORECASE):
        found.append("the first cell does not say what you will be able to do")
    end = "\n".join(cell.source for cell in cells[-4:] if cell.cell_type == "markdown").lower()
    found += [
        f"no {word} at the end" for word in ("summary", "exercises", "next") if word not in end
    ]
    kinds = "".join(cell.cell_type[0] for cell in cells)
    if "ccc" in kinds:
        found.append(f"three code cells in a row without text, from cell {kinds.index('ccc')}")
    if any(not cell.source.strip() for cell in cells):
        found.append("an empty cell")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    if "widgets" in notebook.metadata:
        found.append("the state of widgets, not refreshed")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_tidy(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook) == []


def test_the_readme_names_every_notebook_with_its_minutes():
    promised = {path.name: minutes(nbformat.read(path, as_version=4)) for path in NOTEBOOKS}
    assert readme_minutes((ROOT / "README.md").read_text(encoding="utf-8")) == promised


def test_the_notebooks_are_numbered_from_one():
    numbers = [int(path.name.split("_")[0]) for path in NOTEBOOKS]
    assert numbers == list(range(1, len(NOTEBOOKS) + 1))


# The checks themselves: a small notebook that passes, and each fault planted in it.


def example():
    """A notebook with nothing wrong."""
    printed = new_output("stream", name="stdout", text="2.5\n")
    picture = new_output("display_data", {"image/png": "iVBORw0/tmp/", "text/plain": "<Figure>"})
    training = new_code_cell("fit()", execution_count=1, outputs=[printed])
    training.metadata.tags = ["nbval-ignore-output"]
    return new_notebook(
        cells=[
            new_markdown_cell("# Data\n\nAbout 20 minutes. Then you will be able to read text."),
            training,
            new_code_cell("if done:\n    assert x > 1", execution_count=2, outputs=[picture]),
            new_markdown_cell("Why it is so."),
            new_code_cell("x", execution_count=3),
            new_markdown_cell("## Summary\n\n## Exercises\n\n## Next"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )


def output(kind="stream", **fields):
    """A fault: this output in the last code cell."""
    return lambda n: n.cells[4].outputs.append(new_output(kind, **fields))


def source(cell, text):
    """A fault: this text in that cell."""
    return lambda n: n.cells[cell].update(source=text)


FAULTS = {
    "not executed in order": lambda n: n.cells[1].update(execution_count=2),
    "not executed in order from": lambda n: n.cells[4].update(execution_count=None),
    "code cell 3: more than 25": source(4, "x\n" * 26),
    "code cell 3: unknown tags": lambda n: n.cells[4].metadata.update(tags=["nbval-skip"]),
    "code cell 1: ignores its output": source(2, "# assert x"),
    "code cell 3: ignores": lambda n: n.cells[4].metadata.update(tags=["nbval-ignore-output"]),
    "code cell 3: metadata": lambda n: n.cells[4].metadata.update(execution={"iopub": "now"}),
    "code cell 3: error": output("error", ename="E", evalue="e", traceback=[]),
    "code cell 3: err": output(text="Traceback (most recent call last):\n"),
    "code cell 3: path": output(text="saved in /home/ada/s2s\n"),
    "code cell 3: path of": output("display_data", data={"text/html": "<b>/Users/ada</b>"}),
    "code cell 3: view": output("display_data", data={WIDGET: {"model_id": "1"}}),
    "code cell 3: unfinished": output(text=" 10%\r 20%\r"),
    "no title": source(0, "20 minutes; you will be able to read"),
    "no minutes": source(0, "# Data\n\nyou'll be able to read"),
    "the first cell does not say": source(0, "# Data\n\n20 minutes"),
    "no summary": source(5, "## Exercises\n\n## Next"),
    "no exercises": source(5, "## Summary\n\n## Next"),
    "no next": source(5, "## Summary\n\n## Exercises"),
    "three code cells": lambda n: n.cells.pop(3),
    "an empty cell": source(3, " \n"),
    "the kernel": lambda n: n.metadata.kernelspec.update(name="my-env"),
    "the state of widgets": lambda n: n.metadata.update(widgets={}),
}


def test_a_tidy_notebook_has_no_problems():
    assert problems(example()) == []


@pytest.mark.parametrize("message", FAULTS)
def test_each_fault_is_found(message):
    notebook = example()
    FAULTS[message](notebook)
    (found,) = problems(notebook)
    assert found.startswith(message)


def test_the_minutes_are_read_from_the_readmes_table():
    row = "| [01 Data](notebooks/01_data.ipynb) | read text | 20 |\n"
    assert readme_minutes(f"see notebooks/01_data.ipynb\n\n{row}") == {"01_data.ipynb": 20}
    assert readme_minutes(row.replace("20", "–")) == {}


def test_the_sanitizing_rules_are_pairs_and_replace_what_differs():
    text = (ROOT / "tests" / "nbval_sanitize.cfg").read_text(encoding="utf-8")
    rules = re.findall(r"^regex: (.*)$\n^replace: (.*)$", text, re.MULTILINE)  # as nbval reads it
    assert len(rules) == text.count("\nregex:") == text.count("\nreplace:")

    def sanitized(line):
        for pattern, replacement in rules:
            line = re.sub(pattern, replacement, line)
        return line

    for one, other in [
        ("<Model at 0x7f01ab>", "<Model at 0x55cd>"),
        ("/tmp/ipykernel_12/345.py:3: UserWarning", "/var/ipykernel_9/1.py:14: UserWarning"),
        ("took 12.3 s", "took 9 s"),
        ("in 850 ms", "in 12.5 ms"),
        ("100%|████| 20/20 [00:00<00:00, 97.4it/s]", "100%|███| 20/20 [00:02<00:00, 9.1it/s]"),
        ("at 0:01:23", "at 0:02:01"),
        ("1,200.5 tokens/s".replace(",", ""), "900 tokens/s"),
        ("<Figure size 640x480 with 1 Axes>", "<Figure size 600x400 with 2 Axes>"),
    ]:
        assert sanitized(one) == sanitized(other)
    for one, other in [
        ("accuracy 0.95", "accuracy 0.94"),
        ("12 pairs", "13 pairs"),
        ("3s4", "4s4"),
    ]:
        assert sanitized(one) != sanitized(other)
