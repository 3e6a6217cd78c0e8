"""Source code on a notebook's page, with highlighting."""

import ast
import inspect
import sys
import textwrap
from types import FunctionType, MethodType, ModuleType

from IPython.display import Code, display

NEAREST = str.maketrans(
    {"✓": "[right]", "✗": "[wrong]", "…": "...", "“": '"', "”": '"', "’": "'", "·": "*", "×": "x"}
)


def show(thing: type | FunctionType | MethodType | ModuleType, *, docstring: bool = True) -> None:
    """Display the source of a class, function, method or module below the cell.

    With `docstring=False` the docstrings are left out, to save a screen when the text around the
    cell has said it all. Raises TypeError for anything that has no Python source.
    """
    display(Code(printable(source_of(thing, docstring=docstring)), language="python"))


def printable(text: str) -> str:
    """The text as it can be printed here: a terminal without UTF-8 gets the nearest it can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(NEAREST).encode(encoding, "backslashreplace").decode(encoding)
    return text


def source_of(thing, *, docstring: bool = True) -> str:
    """The text that `show` displays, without indentation before the first line."""
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)):
        raise TypeError(
            f"show takes a class, function, method or module, not an object of class "
            f"{type(thing).__name__!r}; for an object, show(type(it)) shows its class"
        )
    try:
        source = textwrap.dedent(inspect.getsource(thing)).strip("\n")
    except (OSError, TypeError) as error:
        name = getattr(thing, "__qualname__", repr(thing))
        raise TypeError(f"{name} has no Python source to show: is it written in C?") from error
    return source if docstring else _without_docstrings(source)


def _without_docstrings(source: str) -> str:
    lines = source.splitlines()
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, kinds) or not node.body:
            continue
        first = node.body[0]
        is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        # A body that is nothing but its docstring has to keep it.
        if is_text and isinstance(first.value.value, str) and len(node.body) > 1:
            end = first.end_lineno
            if end < len(lines) and not lines[end].strip():
                end += 1  # the empty line that parts the docstring from the body
            lines[first.lineno - 1 : end] = [None] * (end - first.lineno + 1)
    return "\n".join(line for line in lines if line is not None)
