"""The pages around the notebooks: their links lead somewhere, and they name what there is."""

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

import s2s_helpers

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("notebooks/**/*.ipynb")]
PAGES += ROOT.glob("benchmarks/speedrun.md")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def text_of(page):
    text = page.read_text("utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```|`[^`\n]*`|\$[^$\n]*\$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """What a heading can be linked by, on GitHub and in JupyterLab (which keeps capitals)."""
    heads = re.findall(r"^#+ +(.+?) *$", text_of(page), re.MULTILINE)
    github = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    return github | {head.replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_project_lead_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = unquote(link).partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_the_version_is_that_of_the_changes_and_of_the_citation():
    first = re.search(
        r"^## (\S+) \((\S+)\)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert s2s_helpers.__version__ == first[1]
    assert f"version: {first[1]}\ndate-released: {first[2]}\n" in citation


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.suffix == ".md"], ids=lambda page: page.parent.name
)
def test_commands_that_are_named_exist(page):
    text = page.read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    targets = re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split()
    named = re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) <= set(targets)
    for command in re.findall(r"python3? run\.py ([a-z]+)", text):
        assert command in (ROOT / "run.py").read_text("utf-8")


def test_the_pages_are_those_of_git():
    """So that no page is forgotten by the tests above."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {ROOT / name for name in listed.stdout.split()} <= set(PAGES)
