"""Which checks passed in returned notebooks? They are read, never run.

    python workshop/gather.py FOLDER      a table on the screen, and FOLDER/checks.csv

FOLDER holds one folder for each learner (anna/03_attention.ipynb), or files with the learner's name
in them (03_attention_anna.ipynb). What a notebook says can be made up: this is no examination.
"""

import argparse
import csv
import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALL = re.compile(r"^check\.(\w+)\(", re.MULTILINE)
STATES = {"✓": "passed", "✗": "wrong", "…": "not written", "·": "not run"}  # best first
MOST_BYTES, MOST_FILES = 20_000_000, 5_000
SKIPPED = {".ipynb_checkpoints", "__MACOSX"}


def joined(value) -> str:
    """A notebook's text, which is a string or a list of strings; "" for anything else."""
    parts = value if isinstance(value, list) else [value]
    return "".join(part for part in parts if isinstance(part, str))


def listed(value, key) -> list[dict]:
    """The dicts of the list that value[key] is, if it is one."""
    found = value.get(key) if isinstance(value, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def read(path: Path):
    """A notebook as plain data; ValueError says what is wrong with the file."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("not a plain file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES // 1_000_000} MB")
    try:
        notebook = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not listed(notebook, "cells"):
        raise ValueError("no notebook: it has no cells")
    return notebook


def checks(notebook) -> list[str]:
    """The names of the checks that a notebook calls, in order."""
    sources = (joined(cell.get("source")) for cell in listed(notebook, "cells"))
    return list(dict.fromkeys(name for source in sources for name in CALL.findall(source)))


def marks(notebook) -> dict[str, str]:
    """The mark that each check printed, read only from the outputs of a cell that calls it."""
    found = {}
    for cell in listed(notebook, "cells"):
        printed = "".join(joined(output.get("text")) for output in listed(cell, "outputs"))
        for name in CALL.findall(joined(cell.get("source"))):
            answers = re.findall(rf"^([✓✗…]) {name}:", printed, re.MULTILINE)
            found[name] = best([found.get(name, "·"), *answers[-1:]])
    return found


def best(candidates) -> str:
    return min(candidates, key=list(STATES).index)


def plain(text: str, most: int = 40) -> str:
    """Text that cannot steer a terminal, and is not too long for a table."""
    return "".join(c if c.isprintable() else "?" for c in text[:most]) or "?"


def cell_of_csv(text: str) -> str:
    """Text that a spreadsheet takes for text, and not for a formula."""
    return "'" + text if text.lstrip()[:1] in {"=", "+", "-", "@"} else text


def whose(path: Path, folder: Path, titles: list[str]) -> tuple[str, str]:
    """The learner and the handed-out notebook that a file's place and name tell."""
    title = next((title for title in titles if title in path.name), None)
    if title is None:
        raise ValueError("its name holds none of the notebooks' names, such as 03_attention")
    inside = path.relative_to(folder).parts
    rest = re.sub(r"\(\d+\)$", "", path.stem.replace(title, "", 1).strip()).strip(" _-")
    return plain(inside[0] if len(inside) > 1 else rest or "(no name)"), title


def gather(folder: Path, handed_out: dict[str, list[str]]):
    """Results as {notebook: {learner: {check: mark}}}, and the files that were left out, with why.

    Of several copies of a notebook by one learner, a check counts as the best of them.
    """
    results, left_out = defaultdict(lambda: defaultdict(dict)), []
    walked = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    paths = sorted(p for p in walked if p.suffix == ".ipynb" and not SKIPPED.intersection(p.parts))
    for path in paths[:MOST_FILES]:
        try:
            learner, title = whose(path, folder, list(handed_out))
            said = marks(read(path))
        except (ValueError, OSError) as error:
            left_out.append(f"{plain(str(path.relative_to(folder)), 80)}: {plain(str(error), 80)}")
            continue
        old = results[title][learner]
        for name in handed_out[title]:
            old[name] = best([old.get(name, "·"), said.get(name, "·")])
    left_out += [f"{len(paths) - MOST_FILES} more files"] if len(paths) > MOST_FILES else []
    return results, left_out


def show(results, handed_out) -> None:
    """Print, for each notebook, how many passed each check, and a row of marks for each learner."""
    for title in sorted(results):
        learners, names = results[title], handed_out[title]
        print(f"\n{title}: {len(learners)} returned")
        for number, name in enumerate(names, 1):
            passed = sum(row[name] == "✓" for row in learners.values())
            print(f"  {number:2} {name}: {passed} passed")
        width = max(map(len, learners))
        for learner, row in sorted(learners.items()):
            done = sum(mark == "✓" for mark in row.values())
            print(f"  {learner:{width}}  {' '.join(row.values())}  {done} of {len(names)}")


def write(results, path: Path) -> None:
    """One row for each learner, notebook and check; with a mark by which Excel knows UTF-8."""
    scratch = path.with_name(path.name + ".part")
    with scratch.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["learner", "notebook", "check", "result"])
        for title, learners in sorted(results.items()):
            for learner, row in sorted(learners.items()):
                for name, mark in row.items():
                    writer.writerow([cell_of_csv(learner), title, name, STATES[mark]])
    os.replace(scratch, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    sys.stdout.reconfigure(errors="replace")  # a console that knows no ✓ gets a question mark
    if not folder.is_dir():
        print(f"there is no folder {folder}", file=sys.stderr)
        return 1
    ours = sorted((ROOT / "notebooks").glob("*.ipynb"))
    handed_out = {path.stem: names for path in ours if (names := checks(read(path)))}
    results, left_out = gather(folder, handed_out)
    show(results, handed_out)
    write(results, folder / "checks.csv")
    print(f"\n{'  '.join(f'{mark} {state}' for mark, state in STATES.items())}")
    print(f"All of it is in {folder / 'checks.csv'}.")
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
