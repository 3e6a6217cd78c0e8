"""The notebooks are tidy: run in order, whole, without a trace of the machine, and easy to read."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
HOUR, CORE = NOTEBOOKS[0], [path for path in NOTEBOOKS[1:] if path.name < "08"]
BEYOND = [path for path in NOTEBOOKS if path.name >= "10"]  # what the models are used for
TAGS = {"nbval-ignore-output", "nbval-check-output"}
MACHINE_PATH = re.compile(r"/home/|/work/|/Users/|/root/|/tmp/|[A-Z]:\\+Users")
WIDGET = "application/vnd.jupyter.widget-view+json"
MOST_LINES = 25
RUNNING = 4  # minutes at most, of notebook 00 on two cores
FEWEST_EXERCISES = 4
FEWEST_EXPERIMENTS = 3
MOST_HINTS = 3

spec = importlib.util.spec_from_file_location("refresh", ROOT / "notebooks" / "refresh.py")
refresh = importlib.util.module_from_spec(spec)
spec.loader.exec_module(refresh)


def minutes(notebook) -> int | None:
    """The minutes that the first cell promises."""
    found = re.search(r"(\d+) minutes", notebook.cells[0].source)
    return int(found[1]) if found else None


def readme_minutes(readme: str) -> dict[str, int]:
    """The minutes by file name, from the rows of the README's table of notebooks."""
    rows = re.findall(r"^\|.*\(notebooks/([\w.]+\.ipynb)\).*\|\s*(\d+)\s*\|$", readme, re.MULTILINE)
    return {name: int(number) for name, number in rows}


def minutes_to_read(notebook) -> int:
    """The minutes that the words alone take."""
    return refresh.minutes_to_read(refresh.words(notebook))


def prose(cells: list) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def exercises(notebook) -> tuple[str, dict[str, list]]:
    """The text above the exercises, and the cells of each exercise by its title."""
    above, found, inside = "", {}, False
    for cell in notebook.cells:
        is_text = cell.cell_type == "markdown"
        if is_text and (heading := re.search(r"^## .*", cell.source, re.M)):
            # In the halls of the bug museum every exhibit is an exercise.
            inside = "exercises" in heading[0].lower() or heading[0].startswith("## Hall")
            above = cell.source if inside else above
        elif is_text and inside and (title := re.match(r"### (.*)", cell.source)):
            found[title[1]] = [cell]
        elif inside and found:
            list(found.values())[-1].append(cell)
    return above, found


def checks(cells: list) -> list:
    """The names of the checks that these cells call, each with its cell."""
    return [
        (name, cell)
        for cell in cells
        if cell.cell_type == "code"
        for name in re.findall(r"^check\.(\w+)\(", cell.source, re.M)
    ]


def exercise_problems(notebook, file: str) -> list[str]:
    """What is wrong with the exercises of a notebook that has solutions in a file of this name."""
    above, all_exercises = exercises(notebook)
    found, total = [], 0
    if len(all_exercises) < FEWEST_EXERCISES:
        found.append(f"fewer than {FEWEST_EXERCISES} exercises")
    for number, (title, cells) in enumerate(all_exercises.items(), 1):
        where, text = f"exercise {number}", prose(cells)
        named = re.fullmatch(rf"{number}\. \S.* \((\d+) minutes?\)", title)
        if named:
            total += int(named[1])
        else:
            found.append(f"{where}: not headed “### {number}. Title (N minutes)”, but “{title}”")
        hints = re.findall(r"<details><summary>Hint \d</summary>\n\n", text)
        folds = (text.count("<details>"), text.count("</details>"), text.count("</summary>\n\n"))
        if len(hints) > MOST_HINTS or len(set(folds)) > 1:
            found.append(f"{where}: more than {MOST_HINTS} hints, or one that does not fold")
        called = checks(cells)
        if len(called) != 1 or sum(cell.cell_type == "code" for cell in cells) < 2:
            found.append(f"{where}: not a stub and one check")
        elif printed(called[0][1]) != f"… {called[0][0]}: not written yet.\n":
            found.append(f"{where}: its check does not say that nothing is written yet")
    if f"solutions/{file}" not in above:
        found.append("the exercises do not name their solutions")
    if not re.search(rf"\b{total} minutes", above):
        found.append(f"the exercises do not say that they take {total} minutes")
    if f"and {total} for the exercises" not in notebook.cells[0].source.replace("\n", " "):
        found.append(f"the first cell does not say “and {total} for the exercises”")
    return found


def solution_problems(notebook, solution) -> list[str]:
    """What is wrong with the solutions of a notebook's exercises."""
    right = {name: cell for name, cell in checks(solution.cells) if f"✓ {name}: " in printed(cell)}
    found = []
    for _, cells in exercises(notebook)[1].items():
        for name, _ in checks(cells):
            if name not in right:
                found.append(f"no ✓ {name}")
                continue
            after = solution.cells[solution.cells.index(right[name]) + 1 :][:1]
            if not re.search(r"\bwhy\b", prose(after), re.IGNORECASE):
                found.append(f"no why after {name}")
    if any("not written yet" in printed(cell) for cell in solution.cells if "outputs" in cell):
        found.append("a stub")
    return found


def experiment_problems(notebook) -> list[str]:
    """What is wrong with exercises that are experiments, each with what comes out folded below."""
    all_exercises = exercises(notebook)[1]
    found, total = [], 0
    if len(all_exercises) < FEWEST_EXPERIMENTS:
        found.append(f"fewer than {FEWEST_EXPERIMENTS} exercises")
    for number, (title, cells) in enumerate(all_exercises.items(), 1):
        named = re.fullmatch(rf"{number}\. \S.* \((\d+) minutes?\)", title)
        if named:
            total += int(named[1])
        else:
            found.append(f"exercise {number}: not headed “### {number}. Title (N minutes)”")
        text = prose(cells)
        folds = (text.count("<details>"), text.count("</details>"), text.count("</summary>\n\n"))
        if text.count("<details><summary>What comes out</summary>") != 1 or len(set(folds)) > 1:
            found.append(f"exercise {number}: not one fold with what comes out")
    if f"and {total} for the exercises" not in notebook.cells[0].source.replace("\n", " "):
        found.append(f"the first cell does not say “and {total} for the exercises”")
    if not re.search("^## Take it with you", prose(notebook.cells), re.MULTILINE):
        found.append("nothing to take along")
    return found


def code_problems(code: list) -> list[str]:
    """What is wrong with the code cells and their outputs."""
    found = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed in order from 1")
    text = "\n".join(cell.source for cell in code)
    if re.search(r"^(import|from) torch\b", text.partition("s2s_helpers")[0], re.MULTILINE):
        found.append("torch is imported before s2s_helpers, which keeps its first import quiet")
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


def problems(notebook, solution: bool = False) -> list[str]:
    """Everything that is wrong with a notebook by itself, in words."""
    cells = notebook.cells
    found = code_problems([cell for cell in cells if cell.cell_type == "code"])
    first = cells[0].source if cells[0].cell_type == "markdown" else ""
    if not first.startswith("# "):
        found.append("no title at the start")
    if minutes(notebook) is None:
        found.append("no minutes in the first cell")
    if not solution:
        if not re.search(r"\byou(['’]ll| will) be able to", first, re.IGNORECASE):
            found.append("the first cell does not say what you will be able to do")
        last = [line.lower() for line in re.findall(r"^## .*", prose(cells), re.M)[-3:]]
        for word in ("summary", "exercises", "next"):
            if not any(word in line for line in last):
                found.append(f"no {word} at the end")
        if minutes(notebook) and minutes(notebook) < minutes_to_read(notebook):
            found.append("the minutes are fewer than its words take")
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


def test_the_drawings_are_those_of_their_script_and_each_is_told_in_words(tmp_path):
    figures = ROOT / "notebooks" / "figures"
    copy = tmp_path / "draw.py"
    copy.write_bytes((figures / "draw.py").read_bytes())
    subprocess.run([sys.executable, str(copy)], check=True)
    drawn = {path.name: path.read_text("utf-8") for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_text("utf-8") for path in figures.glob("*.svg")}
    shown = {}
    for path in NOTEBOOKS:
        text = prose(nbformat.read(path, as_version=4).cells)
        shown |= {name: told for told, name in re.findall(r"!\[([^]]*)\]\(figures/([^)]*)\)", text)}
        assert text.count("(figures/") == len(re.findall(r"!\[[^]]{60,}\]\(figures/", text)), path
    assert set(shown) == set(drawn)  # none is missing, and none is drawn for nothing
    for svg in drawn.values():
        assert "<title>" in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
        assert min(map(float, re.findall(r'<text [^>]*font-size="([\d.]+)"', svg))) >= 17


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_tidy(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.name)
def test_solutions_are_tidy_and_right(path):
    solution = nbformat.read(path, as_version=4)
    nbformat.validate(solution)
    notebook = nbformat.read(ROOT / "notebooks" / path.name, as_version=4)
    assert problems(solution, solution=True) == []
    assert exercise_problems(notebook, path.name) == []
    assert solution_problems(notebook, solution) == []


def test_the_first_eight_have_exercises_with_solutions():
    assert {path.name for path in NOTEBOOKS if path.name < "09"} <= {
        path.name for path in SOLUTIONS
    }


@pytest.mark.parametrize("path", BEYOND, ids=lambda path: path.name)
def test_what_goes_beyond_has_experiments_and_something_to_take_along(path):
    assert experiment_problems(nbformat.read(path, as_version=4)) == []


def test_the_hour_takes_an_hour_by_an_honest_count():
    """150 words and 12 lines of code a minute, and the minutes that it runs."""
    notebook, lines = nbformat.read(HOUR, as_version=4), 0
    for cell in notebook.cells:
        if cell.source.startswith("## Exercises") or "\n## Exercises" in cell.source:
            break
        code = cell.source.splitlines() if cell.cell_type == "code" else []
        lines += sum(bool(line.strip()) for line in code)
    assert minutes(notebook) == 60
    assert refresh.words(notebook) / 150 + lines / 12 + RUNNING <= 60


def test_the_core_takes_an_hour():
    promised = [minutes(nbformat.read(path, as_version=4)) for path in CORE]
    assert sum(promised) <= 60, promised


def test_the_readme_names_every_notebook_with_its_minutes():
    promised = {path.name: minutes(nbformat.read(path, as_version=4)) for path in NOTEBOOKS}
    assert readme_minutes((ROOT / "README.md").read_text(encoding="utf-8")) == promised


def test_the_notebooks_are_numbered_from_nought():
    numbers = [int(path.name.split("_")[0]) for path in NOTEBOOKS]
    assert numbers == list(range(len(NOTEBOOKS)))


# Words that only this course used, and the words that a newcomer would look for.
HOUSE_WORDS = {
    "four verbs": "four methods", "twin": "copy, control", "arms": "conditions",
    "mark to beat": "baseline", "mends?": "fix", "mended": "fixed", "reckon(?:ed)?": "estimate",
    "gold words?": "reference tokens", "own words?": "predicted prefix", "wires": "components",
    "means? of means": "macro-average", "in the mean": "on average", "spoiled": "noised",
    "held against": "compared with", "lets itself": "can be", "whoever": "anyone who",
    "filling": "padding", "new combinations": "unseen combinations", "eats?": "takes",
}  # fmt: skip


def house_words(text: str) -> list[str]:
    """Which of them stand in a text, code left out."""
    plain = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", " ", text, flags=re.DOTALL).lower()
    return [word for word in HOUSE_WORDS if re.search(rf"\b{word}\b", plain)]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.name < "09"], ids=lambda p: p.name)
def test_the_text_has_the_field_s_words(path):
    cells = nbformat.read(path, as_version=4).cells
    words = house_words(prose(cells))
    assert words == [], {word: HOUSE_WORDS[word] for word in words}


def test_a_house_word_is_found():
    assert house_words("It has `verb` and $twin$ in it.") == []
    assert house_words("Each of the four verbs mends two arms.") == ["four verbs", "arms", "mends?"]


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
    "torch is imported before": source(2, "import torch\n\nassert s2s_helpers"),
    "no title": source(0, "20 minutes; you will be able to read"),
    "no minutes": source(0, "# Data\n\nyou'll be able to read"),
    "the first cell does not say": source(0, "# Data\n\n20 minutes"),
    "no summary": source(5, "## Exercises\n\n## Next"),
    "no exercises": source(5, "## Summary\n\n## Next"),
    "no next": source(5, "## Summary\n\n## Exercises"),
    "three code cells": lambda n: n.cells.pop(3),
    "an empty cell": source(3, " \n"),
    "the minutes are fewer": source(3, "word " * 4001),
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


def solved_example():
    """A notebook with four exercises, and its solutions, with nothing wrong."""
    notebook, solution = example(), example()
    notebook.cells[0].source = "# Data\n\n20 minutes, and 12 for the exercises."
    notebook.cells.pop()
    notebook.cells.append(new_markdown_cell("## Exercises\n\n12 minutes; solutions/01_data.ipynb"))
    for number, name in enumerate(("a", "b", "c", "d"), 1):
        hint = "\n\n<details><summary>Hint 1</summary>\n\nLook.\n\n</details>"
        text = f"### {number}. Write {name} (3 minutes)\n\nAs above.{hint}"
        called = new_code_cell(f"check.{name}(my_{name})")
        answers = (f"… {name}: not written yet.\n", f"✓ {name}: right on 2 inputs.\n")
        asked, solved = ({**called, "outputs": [new_output("stream", text=t)]} for t in answers)
        notebook.cells += [
            new_markdown_cell(text), new_code_cell("def f(): ..."), nbformat.from_dict(asked)
        ]  # fmt: skip
        solution.cells += [nbformat.from_dict(solved), new_markdown_cell("**Why.** So.")]
    notebook.cells.append(new_markdown_cell("## Where next"))
    return notebook, solution


def test_tidy_exercises_have_no_problems():
    notebook, solution = solved_example()
    assert list(exercises(notebook)[1])[3] == "4. Write d (3 minutes)"
    assert exercise_problems(notebook, "01_data.ipynb") == []
    assert solution_problems(notebook, solution) == []


def replaced(cell, old, new):
    """A fault in the exercises: other text in that cell."""

    def fault(notebook, solution):
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)

    return fault


EXERCISE_FAULTS = {
    "fewer than 4 exercises|the exercises do not say|the first": lambda n, s: n.cells.__delitem__(
        slice(15, 18)
    ),
    "exercise 1: not headed|the exer|the first": replaced(6, "(3 minutes)", ""),
    "exercise 1: not headed “### 1.|the exercises|the first": replaced(6, "1.", "2."),
    "exercise 1: more": replaced(6, "</details>", ""),
    "exercise 1: more than 3": replaced(6, "</summary>\n\n", "</summary>"),
    "exercise 2: not a stub": lambda n, s: n.cells.pop(10),
    "exercise 2: not a stub and one check|no ✓ e": replaced(11, "check.b", "check.e()\ncheck.b"),
    "exercise 2: its check": lambda n, s: n.cells[11].outputs[0].update(text="✓ b: right.\n"),
    "the exercises do not name": replaced(5, "solutions", "answers"),
    "the exercises do not say": replaced(5, "12 minutes", "13 minutes"),
    "the first cell": replaced(0, "12 for", "13 for"),
    "no ✓ a": lambda n, s: s.cells[6].outputs[0].update(text="✗ a: wrong.\n"),
    "no why after a": lambda n, s: s.cells[7].update(source="Done."),
    "a stub": lambda n, s: s.cells[4].outputs.append(
        new_output("stream", text="… x: not written yet.")
    ),
}


@pytest.mark.parametrize("messages", EXERCISE_FAULTS)
def test_each_fault_of_exercises_is_found(messages):
    notebook, solution = solved_example()
    EXERCISE_FAULTS[messages](notebook, solution)
    found = exercise_problems(notebook, "01_data.ipynb") + solution_problems(notebook, solution)
    for problem, start in zip(found, messages.split("|"), strict=True):
        assert problem.startswith(start)


def experiments_example():
    """A notebook with three experiments and something to take along."""
    notebook = example()
    notebook.cells[0].source = "# Data\n\n20 minutes, and 9 for the exercises."
    notebook.cells[-1].source = "## Take it with you"
    notebook.cells.append(new_markdown_cell("## Exercises"))
    for number in (1, 2, 3):
        fold = "<details><summary>What comes out</summary>\n\nLess.\n\n</details>"
        text = f"### {number}. Try it (3 minutes)\n\nHalve it.\n\n{fold}"
        notebook.cells.append(new_markdown_cell(text))
    notebook.cells.append(new_markdown_cell("## Where next"))
    return notebook


def test_tidy_experiments_have_no_problems():
    assert experiment_problems(experiments_example()) == []


@pytest.mark.parametrize(
    ("cell", "old", "new", "messages"),
    [
        (8, "### 2", "#### 2", ["fewer than 3", "exercise 2: not headed", "the first cell"]),
        (7, " (3 minutes)", "", ["exercise 1: not headed", "the first cell"]),
        (8, "What comes", "Hint", ["exercise 2: not one fold"]),
        (9, "</details>", "", ["exercise 3: not one fold"]),
        (9, "</summary>\n", "</summary>", ["exercise 3: not one fold"]),
        (0, "9 for", "8 for", ["the first cell"]),
        (5, "Take it", "Leave it", ["nothing to take along"]),
    ],
)
def test_each_fault_of_experiments_is_found(cell, old, new, messages):
    notebook = experiments_example()
    assert old in notebook.cells[cell].source
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    found = experiment_problems(notebook)
    for message in messages:
        assert any(problem.startswith(message) for problem in found), found


def test_words_are_counted_without_folds_exercises_and_formulas():
    texts = [
        "# One two\n\n| three | 4 |\n| --- | --- |",
        "<details><summary>no</summary>\n\nno\n\n</details>",
        "## five $x + y = z$\n\n```text\nno no\n```\n[seven](no/no.ipynb) *eight* - <b>nine</b>",
        "## Exercises\n\nno no\n\n### no\n\nno",
        "## Ten more *(skip in a hurry)*\n\n### eleven",
    ]
    notebook = new_notebook(cells=[new_markdown_cell(text) for text in texts])
    assert refresh.words(notebook) == 16
    assert refresh.words(notebook, hurry=True) == 9
    assert refresh.minutes_to_read(400) == 2 and refresh.minutes_to_read(400, 1) == 3


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
