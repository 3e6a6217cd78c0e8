"""What every check does: answer once, name the cause, stop loops, leave everything as it was."""

import contextlib
import functools
import importlib
import math
import os
import pkgutil
import subprocess
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checking import CheckTests, answer_of, judged

from s2s_helpers.course import checks
from s2s_helpers.course.checks import running
from s2s_helpers.course.checks.running import beat, check, compare, limited, predict, results, say
from s2s_helpers.course.checks.values import copied, describe, difference, turned
from s2s_helpers.data import Batch

A = torch.tensor([[1.0, 2.0, 3.0]])
B = torch.arange(6.0).view(2, 3)


@check
def softmax(function):
    """`function(scores)`: scores (rows, columns) to the softmax of every row."""
    compare(
        "softmax",
        function,
        lambda scores: scores.softmax(-1),
        {"one row": (A,), "two rows": (B,), "random": (torch.randn(4, 4),)},
        {
            "Softmax over the wrong axis.": lambda scores: scores.softmax(0),
            "Softmax over everything.": lambda scores: scores.flatten().softmax(0).view_as(scores),
            "Not divided by the sum.": lambda scores: scores.exp(),
        },
        why="Rows sum to 1.",
    )


@check
def root(guess):
    predict(
        "root", guess, 3.0, within=0.1, mistakes={"That is the square.": 81.0}, why="3 · 3 = 9."
    )


def by_loop(scores):
    rows = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in scores.tolist()]
    return torch.tensor(rows, dtype=torch.float64).t().contiguous().t()


RIGHT = {
    "softmax": [lambda scores: scores.softmax(1), by_loop, torch.nn.Softmax(-1)],
    "root": [3.05, 3, torch.tensor(2.95), np.float32(3)],
}
WRONG = {
    "softmax": [
        ("wrong axis", lambda scores: scores.softmax(0)),
        ("Not divided by the sum", lambda scores: scores.exp()),
        ("Softmax over everything", lambda s: s.exp() / s.exp().sum()),
        ("Its shape is (1, 3, 1); (1, 3)", lambda scores: scores.softmax(1)[..., None]),
        ("is too many", lambda scores: scores.softmax(1)[..., None]),
        ("changed places", lambda scores: scores.softmax(1).T),
        ("what came is a list", lambda scores: scores.softmax(1).tolist()),
        ("int64; float32 is right", lambda scores: scores.softmax(1).long()),
        ("returns None", lambda scores: scores.softmax(1) and None),
        ("without brackets", A),
    ],
    "root": [
        ("That is the square", 81),
        ("you say 2; it is 3", 2),
        ("a number is asked for; what came is a text", "3"),
        ("a number is asked for; what came is True or False", True),
        ("what came is a list", torch.tensor([3.0, 3.0])),
    ],
}


class TestChecks(CheckTests):
    checks = SimpleNamespace(softmax=softmax, root=root, __all__=["softmax", "root"])
    right, wrong = RIGHT, WRONG


def test_no_two_checks_have_one_name():
    files = pkgutil.iter_modules(checks.__path__)
    modules = [importlib.import_module(f"s2s_helpers.course.checks.{each.name}") for each in files]
    names = [name for module in modules for name in getattr(module, "__all__", ())]
    assert len(names) == len(set(names)) and all(hasattr(checks, name) for name in names)


def test_a_cause_is_not_named_where_its_output_is_right(capsys):
    # Over one row of one number, every mistake of softmax's gives the right output.
    printed = answer_of(softmax, lambda scores: scores.softmax(0) + 1e-3 * len(scores), capsys)
    assert "✗" in printed and "cause" not in printed


def test_the_cause_that_explains_more_inputs_is_named(capsys):
    mistakes = {"once": lambda n: n + 1 if n == 1 else n, "always": lambda n: n + 1}
    inputs = {"one": (1,), "two": (2,)}
    compare("add", lambda n: n + 1, lambda n: n, inputs, mistakes)
    assert "Likely cause: always" in capsys.readouterr().out


def test_a_mistake_that_ends_in_the_same_error_is_the_cause(capsys):
    inputs = {"a row": ([1, 2],)}
    compare(
        "last", lambda row: row[2], lambda row: row[-1], inputs, {"Counted from 1.": lambda r: r[2]}
    )
    printed = capsys.readouterr().out
    assert printed.startswith(
        "✗ last: stopped on “a row” with IndexError: list index out of range\n"
    )
    assert "input     row = [1, 2]" in printed and "Likely cause: Counted from 1." in printed


def test_the_answer_is_whole_and_readable(capsys):
    softmax(lambda scores: scores.softmax(0))
    assert capsys.readouterr().out == (
        "✗ softmax: wrong on “one row” (input 1 of 3).\n"
        "  3 of 3 values are off; the first, at [0, 0]: 1 came, 0.09 is right.\n"
        "  input     scores = [[1, 2, 3]]  float32 (1, 3)\n"
        "  expected  [[0.09, 0.2447, 0.6652]]  float32 (1, 3)\n"
        "  came      [[1, 1, 1]]  float32 (1, 3)\n"
        "  Likely cause: Softmax over the wrong axis.\n"
    )


def test_a_learner_s_prints_and_interrupt_go_through(capsys):
    softmax(lambda scores: print("mine") or scores.softmax(1))
    assert capsys.readouterr().out.startswith("mine\n")

    def interrupted(scores):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        softmax(interrupted)


def test_a_stub_may_use_what_is_not_there_yet(capsys):
    def half_done(scores):
        exponents = ...
        return exponents / 2

    softmax(half_done)
    assert capsys.readouterr().out == "… softmax: not written yet.\n"


def test_only_the_learner_s_own_lines_are_shown(capsys):
    def helper(scores):
        return torch.nn.functional.softmax(scores, dim="last")

    def function(scores):
        return helper(scores)

    softmax(function)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "line " in line]
    assert [line.partition(":  ")[2] for line in lines] == [
        "return helper(scores)",
        'return torch.nn.functional.softmax(scores, dim="last")',
    ]


@pytest.mark.parametrize("loop", ["swallows", "sleeps", "passes"])
def test_loops_are_stopped_in_the_main_thread_and_in_others(loop):
    def turn():
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01 if loop == "sleeps" else 0)

    def swallow():
        try:
            turn()
        except:  # noqa: E722
            turn()

    found = []

    def run():
        with pytest.raises(running.TooSlow):
            limited(swallow if loop == "swallows" else turn, (), 0.1)
        found.append(sum(range(10**5)))  # nothing comes late

    run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(found) == 2


def test_a_function_that_ends_near_the_limit_leaves_nothing_behind():
    for _ in range(30):
        with contextlib.suppress(running.TooSlow):
            limited(lambda: [None for _ in range(20_000)], (), 0.0005)
        assert sum(range(20_000)) == 199_990_000


def test_results_gives_values_or_says_why_not(capsys):
    inputs = {"one": ([1],), "none": ([],)}
    assert results("first", len, inputs) == [1, 0]
    assert results("first", lambda row: row[0], inputs) is None
    assert capsys.readouterr().out.startswith("✗ first: stopped on “none” with IndexError")
    assert results("first", lambda row: row.append(1) or 1, inputs) is None
    assert "row was changed in place" in capsys.readouterr().out
    assert results("first", ..., inputs) is None


def test_a_figure_is_beaten_or_not(capsys):
    beat("speed", 0.5, 0.4, why="Well done.")
    beat("speed", torch.tensor(0.3), 0.4, hint="Try more.")
    beat("error", 0.3, 0.4, higher=False)
    beat("speed", None, 0.4)
    beat("speed", "fast", 0.4)
    assert capsys.readouterr().out == (
        "✓ speed: 0.500; 0.400 was to beat. Well done.\n"
        "✗ speed: 0.300; 0.400 was to beat.\n  Try more.\n"
        "✓ error: 0.300; 0.400 was to beat.\n"
        "… speed: not written yet.\n"
        "✗ speed: a number is asked for; what came is a text.\n"
    )


def test_predictions_need_not_be_numbers(capsys):
    predict("word", "chat", "chat")
    predict("word", "chien", "chat")
    predict("shape", (2, 3), (2, 3))
    predict("share", 0.51, 0.5, within=0.02, form="{:.0%}")
    predict("weights", torch.tensor([0.33, 0.33, 0]), [1 / 3, 1 / 3, 0.0], within=0.01)
    assert capsys.readouterr().out == (
        "✓ word: it is 'chat'.\n"
        "✗ word: you say 'chien'; it is 'chat'.\n"
        "✓ shape: it is (2, 3).\n"
        "✓ share: it is 50%.\n"
        "✓ weights: it is [0.3333, 0.3333, 0].\n"
    )


@pytest.mark.parametrize(
    ("came", "right"),
    [
        (B.double(), B), (B.t().contiguous().t(), B), (B.clone().requires_grad_(), B),
        (B.long().int(), B.long()), (torch.tensor(2), 2), (2, torch.tensor(2)), (2.0, 2),
        ([1, 2], (1, 2)), ((1, [2]), [1, (2,)]), ({1: B}, {1: B.clone()}),
        ({1, 2}, frozenset({1, 2})),
        (torch.tensor(math.nan), torch.tensor(math.nan)), (math.inf, math.inf),
        (np.bool_(True), True),
        (torch.tensor(0.5), 0.5), (np.float64(0.5), torch.tensor(0.5)), (torch.tensor(True), True),
    ],
)  # fmt: skip
def test_what_is_as_good_differs_in_nothing(came, right):
    assert difference(came, right) == ""


@pytest.mark.parametrize(
    ("came", "right", "text"),
    [
        (B.T, B, "shape"), (B.bool(), B, "bool; float32 is right"), (B > 1, B > 2, "off"),
        (B.long(), B, "int64; float32"), (B, B.long(), "float32; int64"),
        (1.0, 2.0, "Another number"), (A.sum(), B.sum(), "Another value"),
        (10_000, 10_001, "Another"), ([1], [1, 2], "1 elements; 2"), ([1, 3], [1, 2], "Element 1"),
        ("a", "b", "Another value"), ("a", 1, "a text"), (True, 1, "True or False"),
        (1, True, "number"),
        (B.numpy(), B, "a numpy array"), ({1: 2}, {2: 2}, "keys"), ({1: 2}, {1: 3}, "“1”"),
        ([1], {1}, "A set is asked for; what came is a list"), (B * math.nan, B, "nan came"),
        (None, B, "None"), (B + 1e-3, B, "6 of 6"), (object(), [1], "an object"),
    ],
)  # fmt: skip
def test_a_difference_is_named(came, right, text):
    assert text in difference(came, right)


def test_no_two_checks_have_the_same_name():
    folder = Path(checks.__file__).parent
    modules = [
        importlib.import_module(f"s2s_helpers.course.checks.{p.stem}") for p in folder.glob("*.py")
    ]
    names = [name for module in modules for name in getattr(module, "__all__", ())]
    assert len(names) > 30 and sorted(set(names)) == sorted(names)


def test_axes_that_changed_places_are_noticed():
    square = torch.arange(4).view(2, 2)
    assert "changed places" in turned(square.T, square)
    assert "too many" in turned(B[None], B) and "missing" in turned(A[0], A)
    assert turned(B + 1, B) == "" and turned(B.view(3, 2), B) == "" and turned([1], B) == ""


def test_copies_are_deep_where_values_can_change_and_shared_where_not():
    module = torch.nn.Linear(1, 1)
    batch = Batch(torch.ones(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
    value = (B, [A], {"key": A}, batch, module)
    twin = copied(value)
    assert difference(twin, value) == "" and twin[4] is module
    for one in (twin[0], twin[1][0], twin[2]["key"], twin[3].source):
        before = copied(value)
        one += 1
        assert difference(before, value) == "" and difference(twin, value)


def test_values_are_told_in_a_line():
    assert describe(torch.tensor([0.123456, -math.inf])) == "[0.1235, -inf]  float32 (2,)"
    assert describe(torch.zeros(5, 5)) == "float32 of shape (5, 5)"
    assert describe([1, "a", (2.0,)]) == "[1, 'a', (2)]"
    assert describe(torch.nn.Linear(1, 1)) == "a Linear" and describe(say) == "the function say"
    assert describe(torch.nn.LSTM(1, 1)) == "an LSTM"
    assert len(describe(list(range(1000)))) < 40 and len(describe("x " * 500)) < 210


# Whatever comes

RECURSIVE: list = []
RECURSIVE.append(RECURSIVE)


class Hostile:
    """Whatever is asked of it is an error."""

    def _no(self, *arguments):
        raise RuntimeError("no")

    __eq__ = __repr__ = __str__ = __len__ = __iter__ = __bool__ = __float__ = __getattr__ = _no
    __hash__ = None


WEIRD = {
    "10**400": 10**400, "-10**5000": -(10**5000), "nan": math.nan, "-inf": -math.inf, "1j": 1j,
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.empty(2, device="meta"), "complex tensor": torch.tensor([1j, 2]),
    "no numbers": torch.empty(0), "bfloat16": torch.ones(2, 3, dtype=torch.bfloat16),
    "objects": np.array([None, "a", 2], dtype=object), "dates": np.array(["2020"], "datetime64[Y]"),
    "decimal": Decimal("NaN"), "fraction": Fraction(1, 3), "bytes": b"\xff", "half": "\ud800",
    "recursive": RECURSIVE, "deep": functools.reduce(lambda x, _: [x], range(5000), 0),
    "class": int, "generator": (x for x in ()), "hostile": Hostile(), "list of it": [Hostile()],
    "range": range(3), "mixed": {1, "a"}, "keys": {(): 1, None: 2}, "module": math,
}  # fmt: skip
ALL = {
    name: getattr(checks, name)
    for file in pkgutil.iter_modules(checks.__path__)
    for name in getattr(importlib.import_module(f"{checks.__name__}.{file.name}"), "__all__", ())
}


@pytest.mark.parametrize("number", range(len(WEIRD)), ids=WEIRD)
def test_whatever_comes_gets_one_answer(number, capsys, monkeypatch):
    monkeypatch.setattr(running, "SECONDS", 200.0)
    weird = [*WEIRD.values()][number]
    # Each check gets three of them, but for the challenges, which first decode with a model.
    some = {name: ALL[name] for name in list(ALL)[number % 8 :: 8] if not name.startswith("beat_")}
    for name, judge in {"root": root, "softmax": softmax, **some}.items():
        for answer in weird, lambda *arguments: weird:
            printed = answer_of(judge, answer, capsys)
            assert judged(printed, name) in ("✗", "…"), printed


def test_numbers_beyond_all_floats_and_tensors_without_numbers_are_told(capsys):
    assert "you say inf; it is 3.0" in answer_of(root, 10**400, capsys)
    assert "a number is asked for; what came is a complex" in answer_of(root, 1j, capsys)
    assert "you say nan; it is 3.0" in answer_of(root, math.nan, capsys)
    sparse = torch.eye(3).to_sparse()
    assert "what came is a tensor (sparse_coo) of shape (3, 3)" in answer_of(root, sparse, capsys)
    told = answer_of(softmax, lambda scores: scores.to_sparse(), capsys)
    assert "A tensor with all its numbers is asked for; what came is a tensor (sparse_coo)" in told


ASCII = """
from s2s_helpers.course.checks import data
from s2s_helpers.course.show import show
from s2s_helpers.loss import Seq2SeqLoss
data.padding_mask(lambda ids: ids == 0)
data.padding_mask(lambda ids: ids != 0)
data.padding_mask(None)
show(Seq2SeqLoss)
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_without_utf_8_gets_its_answers(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    ran = subprocess.run([sys.executable, "-c", ASCII], capture_output=True, env=environment)
    printed = ran.stdout.decode(encoding)
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")
    assert "[wrong] padding_mask: wrong on" in printed and "[right] padding_mask:" in printed
    assert "padding_mask: not written yet." in printed and "class Seq2SeqLoss" in printed
