"""show: the displayed text is the source itself, on every run."""

import ast
import functools

import pytest
from IPython.core.formatters import DisplayFormatter

from s2s_helpers.course import show as show_module
from s2s_helpers.course.show import show, source_of


class Example:
    """What it is.

    More about it.
    """

    def double(self, x):
        """Twice x."""
        # why
        return 2 * x

    def only_a_docstring(self):
        """Nothing else."""

    text = """not a docstring"""


@functools.cache
def cached(x):
    """Kept."""
    return x


@pytest.fixture
def shown(monkeypatch):
    """The forms, by mime type, that a notebook would get of a thing."""

    def forms(thing, **options):
        displayed = []
        monkeypatch.setattr(show_module, "display", displayed.append)
        show(thing, **options)
        (only,) = displayed
        return DisplayFormatter(active_types=["text/plain", "text/html"]).format(only)[0]

    return forms


def test_the_plain_text_is_the_source_and_the_html_is_highlighted(shown):
    forms = shown(Example)
    text = forms["text/plain"]
    assert text.startswith("class Example:\n") and "return 2 * x" in text
    assert '<span class="k">return</span>' in forms["text/html"] and "Example" in forms["text/html"]
    assert shown(Example) == forms


def test_a_method_is_shown_without_its_indentation():
    assert source_of(Example.double).startswith('def double(self, x):\n    """Twice x."""')
    assert source_of(Example().double) == source_of(Example.double)


def test_a_wrapped_function_shows_the_function_inside():
    assert "def cached(x):" in source_of(cached)


def test_a_module_is_shown_whole():
    assert source_of(show_module).startswith('"""Source code on a notebook')


def test_without_docstrings_the_code_stays_the_same(shown):
    text = source_of(Example, docstring=False)
    assert "What it is" not in text and "Twice x" not in text
    assert "# why" in text and "not a docstring" in text
    assert "Nothing else" in text  # a body needs one statement
    assert text.startswith("class Example:\n    def double(self, x):\n        # why\n")
    ast.parse(text)
    assert shown(Example, docstring=False)["text/plain"] == text


@pytest.mark.parametrize("thing", [3, "text", Example()])
def test_an_object_is_refused_with_its_class(thing):
    with pytest.raises(TypeError, match=type(thing).__name__):
        show(thing)


def test_what_is_not_python_is_refused():
    with pytest.raises(TypeError, match="no Python source"):
        show(len)
