"""Pairs from docstrings: what is taken, what is left, and that no pair leaks between splits."""

import sys
import sysconfig
import textwrap

import pytest

from s2s_helpers.corpora import Pair, docstrings

BODY = "Every value outside of the interval is set to the nearer end of it."


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("get_default_dtype", "get default dtype"),
        ("getHTTPResponse", "get http response"),
        ("HTTPConnection", "http connection"),
        ("Conv2d", "conv 2 d"),
        ("__iter__", "iter"),
        ("_", "_"),
    ],
)
def test_names_are_cut_into_words(name, words):
    assert docstrings.name_in_words(name) == words


def test_a_docstring_is_a_pair():
    doc = """Clip the values of an :class:`~numpy.ndarray`
    to *limits*.

    Every value outside of the
    ``interval`` is set to the nearer end of it. [1]_

    One more, with :func:`max <builtins.max>`.

    Parameters
    ----------
    a : array
    """
    source, target = docstrings.as_pair("clip_values", doc)
    assert target == "Clip the values of an numpy.ndarray to limits."
    assert source == f"clip values: {BODY} One more, with max."
    assert docstrings.lead(Pair(source, target)) == BODY


@pytest.mark.parametrize(
    "end",
    [
        "Parameters\n----------\na : array",
        ">>> clip(3)",
        "It goes so: >>> clip(3)",
        ":param a: an array",
        "Args:\n    a: an array",
        "- one\n- two",
        ".. note:: of no use",
    ],
)
def test_the_text_ends_at_what_is_no_prose(end):
    pair = docstrings.as_pair("clip", f"Clip an array.\n\n{BODY}\n\n{end}\n\nMore text.")
    assert pair == (f"clip: {BODY}", "Clip an array.")


@pytest.mark.parametrize(
    "docstring",
    [
        "",
        "Clip an array.",
        "Clip it.\n\nToo short.",
        f"Clip.\n\n{BODY}",
        f"Clip {'and clip ' * 8}again.\n\n{BODY}",
        f"Clip an array.\n\n>>> clip(3)\n\n{BODY}",
    ],
)
def test_what_makes_no_good_pair_is_left_out(docstring):
    assert docstrings.as_pair("clip", docstring) is None


def test_long_texts_are_cut():
    source, _ = docstrings.as_pair("f", "A long text.\n\n" + "word " * 100)
    assert source == "f: " + " ".join(["word"] * docstrings.BODY_WORDS)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of packages in the place of those of this machine; `write` adds a module."""
    monkeypatch.setattr(sysconfig, "get_paths", lambda: dict(purelib=tmp_path, stdlib=tmp_path))
    docstrings.load.cache_clear()

    def write(path, code):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")

    yield write
    docstrings.load.cache_clear()


def function(name, summary, body=BODY):
    return f'def {name}():\n    """{summary}\n\n    {body}\n    """\n'


def test_files_are_read_and_never_run(packages, tmp_path):
    packages("some/shapes.py", "raise SystemExit\n" + function("area", "The area of a shape."))
    method = textwrap.indent(function("m", "What it holds."), " " * 8)
    thing = f'if 1:\n    class A:\n        """A thing\n        of sorts.\n\n        {BODY}"""\n'
    packages("some/__init__.py", thing + method)
    packages("some/broken.py", 'def """broken')
    for hidden in ("some/tests/t.py", "some/_private/p.py", "some/site-packages/s.py"):
        packages(hidden, function("hidden", "This is not read."))
    found = list(docstrings.harvest(tmp_path / "some", tmp_path))
    assert [(pair.module, pair.source.split(":")[0], pair.target) for pair in found] == [
        ("some", "a", "A thing of sorts."),
        ("some", "m", "What it holds."),
        ("some.shapes", "area", "The area of a shape."),
    ]
    assert "some" not in sys.modules


def test_nothing_leaks_between_the_splits(packages):
    for number in range(60):
        code = function("own", f"Summary of number {number}.", f"Number {number} it is. {BODY}")
        code += function("common", "One that all of them have.", f"But {number} texts. {BODY}")
        code += function("copied", f"Another {number} of them.", "As IT stood: elsewhere, " + BODY)
        packages(f"pack/part{number}/deep.py", code)
        packages(
            f"pack/part{number}/other.py", function("b", f"The b {number}!", f"{number} {BODY}")
        )
    splits = docstrings.load(("pack", "none"), progress=False)
    parts = splits.train, splits.validation, splits.test
    assert sum(map(len, parts)) == 60 + 1 + 1 + 60
    assert len(splits.train) > 3 * len(splits.test) and len(splits.validation) > 1
    modules = [{pair.module.rpartition(".")[0] for pair in part} for part in parts]
    assert not (modules[0] & modules[1] or modules[0] & modules[2] or modules[1] & modules[2])
    again = docstrings.load(("pack",), progress=False)
    assert again == splits
    with pytest.raises(ValueError, match="a split is empty; name more packages"):
        docstrings.load(("none",), progress=False)
