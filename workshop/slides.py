"""Make slides of notebooks: one HTML file each, which needs no network and no server.

    python workshop/slides.py             all notebooks, into the folder slides
    python workshop/slides.py 03 06       only these

The slides are the notebook: a heading begins one, and as much follows as the screen holds. Saved
outputs are shown as they are; formulas become MathML, which browsers draw by themselves.
"""

import argparse
import ast
import base64
import html
import re
import sys
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
PYGMENTS = HtmlFormatter(style="friendly", cssclass="code")
# Code, which is left alone, or a formula, with two dollars or with one.
CODE_OR_MATH = re.compile(r"```.*?```|`[^`\n]+`|\$\$(.+?)\$\$|\$([^$\n]+(?:\n[^$\n]+)?)\$", re.S)


def text(source: str) -> str:
    """Markdown to HTML, its formulas to MathML."""
    formulas = []

    def keep(match):
        if match[1] is match[2] is None:
            return match[0]
        display = "block" if match[1] else "inline"
        formula = (match[1] or match[2]).strip().replace("\\arg", "\\mathrm{arg}")
        formulas.append(convert(formula, display=display))
        return f"FORMULA{len(formulas) - 1}END"

    def drawn(match):
        picture = base64.b64encode((ROOT / "notebooks" / match[1]).read_bytes()).decode()
        return f'src="data:image/svg+xml;base64,{picture}"'

    page = markdown2html_mistune(CODE_OR_MATH.sub(keep, source))
    page = re.sub(r'src="(figures/\w+\.svg)"', drawn, page)
    return re.sub(r"FORMULA(\d+)END", lambda match: formulas[int(match[1])], page)


def shown(output) -> str:
    """A saved output: its picture, else its HTML, else its text."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = data["image/png"].replace("\n", "")
        return f'<img alt="a figure" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    told = output.get("text", "") or data.get("text/plain", "")
    return f'<pre class="output">{html.escape(told)}</pre>' if told.strip() else ""


def is_machinery(cell) -> bool:
    """Whether a code cell only imports and asserts, and shows nothing."""
    kinds = (ast.Import, ast.ImportFrom, ast.Assert)
    return not cell.outputs and all(
        isinstance(statement, kinds) for statement in ast.parse(cell.source).body
    )


def slides(notebook) -> str:
    """The whole page."""
    blocks = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            blocks.append(text(cell.source))
        elif cell.cell_type == "code" and not is_machinery(cell):
            blocks.append(highlight(cell.source, PythonLexer(), PYGMENTS))
            blocks += [shown(output) for output in cell.outputs]
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    page = (HERE / "slides.html").read_text(encoding="utf-8")
    page = page.replace("TITLE", html.escape(title)).replace("STYLE", PYGMENTS.get_style_defs())
    return page.replace("BLOCKS", "\n".join(blocks))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("numbers", nargs="*", help="such as 03; all notebooks if none is named")
    parser.add_argument("--out", type=Path, default=ROOT / "slides")
    asked = parser.parse_args()
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for number in asked.numbers:
        if not any(path.name.startswith(number) for path in paths):
            parser.error(f"no notebook begins with {number}: {', '.join(p.stem for p in paths)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if not asked.numbers or path.name.startswith(tuple(asked.numbers)):
            page = slides(nbformat.read(path, as_version=4))
            out = asked.out / f"{path.stem}.html"
            out.write_text(page, encoding="utf-8")
            print(f"{out}: {len(page) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
