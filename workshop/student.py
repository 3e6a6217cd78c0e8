"""Write the notebooks that learners get: no outputs, no pointer to solutions.

    python workshop/student.py            into the folder student, where they run as they are
    python workshop/student.py --out DIR

A file that is there already and differs is somebody's work: nothing is written then.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
POINTER = re.compile(r"\[[^]]*\]\(solutions/[^)]*\)|`(?:notebooks/)?solutions/[^`]*`")
# The sentence, or the part after a semicolon, around a pointer (a zero byte by then).
SENTENCE = re.compile(r"(;?)(?:(?!\n\n)[^.;]|\.(?=\d))*\0(?:(?!\n\n)[^.;])*[.;]?")


def handout(notebook):
    """Empty a notebook's outputs, drop what it says of solutions; ValueError if one is solved."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            marked = POINTER.sub("\0", cell.source)
            cell.source = SENTENCE.sub(lambda found: "." if found[1] else "", marked).rstrip()
        if cell.cell_type != "code":
            continue
        printed = "".join(output.get("text", "") for output in cell.outputs)
        if re.search(r"^[✓✗] \w+:", printed, re.MULTILINE):
            raise ValueError(f"an exercise is worked on already: {cell.source.strip()}")
        cell.outputs, cell.execution_count = [], None
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "student")
    out = parser.parse_args().out
    texts = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        try:
            notebook = handout(nbformat.read(path, as_version=4))
        except ValueError as error:
            print(f"{path.name}: {error}. Restore it with: git checkout {path}", file=sys.stderr)
            return 1
        texts[out / path.name] = nbformat.writes(notebook) + "\n"
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            print(f"{path} is there and differs. Move it, or name another --out.", file=sys.stderr)
            return 1
    out.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    shutil.copytree(
        ROOT / "notebooks" / "figures", out / "figures", dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.py", "__pycache__"),
    )  # fmt: skip
    print(f"{len(texts)} notebooks in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
