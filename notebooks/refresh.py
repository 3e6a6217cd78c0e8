"""Execute notebooks afresh, in place, and clean away what differs between machines and runs.

python notebooks/refresh.py                    every notebook and every solution, in order
python notebooks/refresh.py 03_attention.ipynb only this one

A notebook is written only if every cell went through and no output names a folder of this machine.
For each it prints the minutes that reading and running take; the first cell should promise as many.
"""

import math
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

CELL_SECONDS = 600
WORDS_A_MINUTE = 200
WIDGET = "application/vnd.jupyter.widget-view+json"
MACHINE_PATH = re.compile(r"(/home/|/work/|/Users/|/root/|/tmp/|[A-Z]:\\+Users\\)[^\s'\"<]*")


def words(notebook, hurry: bool = False) -> int:
    """How many words of text there are to read, without what is folded and without the exercises;
    in a hurry also without the sections whose heading ends in *(skip in a hurry)*."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"<details>.*?</details>", " ", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", " ", text, flags=re.DOTALL | re.MULTILINE)
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    sections = [part for part in sections if not re.match(r"## .*exercises", part, re.IGNORECASE)]
    if hurry:
        sections = [p for p in sections if not re.match(r"## .*\*\(skip in a hurry\)\*", p)]
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$", " formula ", "\n".join(sections), flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", text)  # addresses, tags
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def minutes_to_read(count: int, seconds: float = 0.0) -> int:
    """The whole minutes for so many words and so many seconds of running."""
    return math.ceil(count / WORDS_A_MINUTE + seconds / 60)


def final_lines(text: str) -> str:
    """The text as a terminal leaves it: of every line what follows its last carriage return."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)


def clean_outputs(outputs: list) -> list:
    """Join the pieces of a stream, leave the end of its progress, and drop the views of widgets.

    A view without its state shows as an error; a widget's picture or text is read everywhere.
    """
    kept = []
    for output in outputs:
        streams = output.output_type == "stream" and kept and kept[-1].output_type == "stream"
        if streams and kept[-1].name == output.name:
            kept[-1].text += output.text
            continue
        output.get("data", {}).pop(WIDGET, None)
        output.get("metadata", {}).pop(WIDGET, None)
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = final_lines(output.text)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def check_output(number: int, output) -> None:
    """Raise ValueError for what no reader should see: a traceback, or a folder of this machine."""
    if output.output_type == "error":
        raise ValueError(f"cell {number} ends in {output.ename}: {output.evalue}")
    data = output.get("data", {})
    texts = [str(value) for kind, value in data.items() if not kind.startswith("image/")]
    text = "\n".join([output.get("text", ""), *texts])
    if "Traceback (most recent call last)" in text:
        raise ValueError(f"cell {number} prints a traceback")
    if found := MACHINE_PATH.search(text):
        raise ValueError(f"cell {number} prints a path of this machine: {found[0]}")


def clean(notebook) -> None:
    """Leave of a notebook its cells, their tags, their outputs and the plain Python 3 kernel."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"  # not random: a refresh changes only what has changed
        kept = {key: cell.metadata[key] for key in ("tags", "jupyter") if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = clean_outputs(cell.outputs)
            for output in cell.outputs:
                check_output(number, output)


def refresh(path: Path) -> str:
    """Execute, clean and write one notebook; what it took, in words."""
    notebook = nbformat.read(path, as_version=4)
    clock, seconds = {0: 0.0}, {0: 0.0}
    begin = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_execute=lambda cell_index, **_: clock.update({cell_index: time.perf_counter()}),
        on_cell_executed=lambda cell_index, **_: seconds.update(
            {cell_index: time.perf_counter() - clock[cell_index]}
        ),
    )
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ValueError(f"cell {max(clock)} failed. {error}") from error
    total = time.perf_counter() - begin
    clean(notebook)
    notebook.nbformat_minor = 5  # the first with cell ids
    nbformat.validate(notebook)
    scratch = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, scratch)
    os.replace(scratch, path)
    longest = max(seconds, key=seconds.get)
    counts = [words(notebook, hurry) for hurry in (False, True)]
    all_of_it, hurried = (minutes_to_read(count, total) for count in counts)
    return (
        f"{total:5.1f} s, its longest cell ({longest}) {seconds[longest]:.1f} s; "
        f"{counts[0]:,} words, {all_of_it} minutes; "
        f"in a hurry {counts[1]:,} words, {hurried} minutes"
    )


def main(names: list[str]) -> int:
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel is the Python that runs this
    here = Path(__file__).parent
    for path in [Path(name) for name in names] or [
        *sorted(here.glob("*.ipynb")),
        *sorted(here.glob("solutions/*.ipynb")),
    ]:
        try:
            print(f"{path.name}: {refresh(path.resolve())}", flush=True)
        except ValueError as error:
            print(f"{path.name} is left as it was: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
