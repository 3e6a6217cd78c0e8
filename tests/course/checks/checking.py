"""What the tests of all checks share: right answers pass, wrong ones fail and are told why.

A file of tests holds the answers and makes its tests of them:

    RIGHT = {"padding_mask": [reference, another_way]}         # at least two
    WRONG = {"padding_mask": [("inverted", lambda ids: ids == PAD), ...]}  # at least five

    class TestChecks(CheckTests):
        checks, right, wrong = data, RIGHT, WRONG              # `data` is the module of the checks

The text before a wrong answer is a part of what the check must print about it. To these the tests
add a stub, an error, an endless loop and a change in place.
"""

import random

import numpy as np
import pytest
import torch

from s2s_helpers.course.checks import running


def answer_of(check, answer, capsys) -> str:
    """What the check prints, and nothing else has changed: random numbers go on as before."""
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    assert check(answer) is None
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected
    return capsys.readouterr().out


def judged(printed: str, name: str) -> str:
    """The one mark of an answer, which must be about this check."""
    marks = [line[0] for line in printed.splitlines() if line[:1] in ("✓", "✗", "…")]
    assert len(marks) == 1, printed
    assert f"{marks[0]} {name}: " in printed
    return marks[0]


def spoil(value) -> bool:
    """Change the first tensor or list of the arguments in place; whether there was one."""
    if isinstance(value, torch.Tensor) and value.numel():
        with torch.no_grad():
            value.copy_(~value if value.dtype == torch.bool else value + 1)
        return True
    if isinstance(value, list):
        value.append(value[-1] if value else 0)
        return True
    if isinstance(value, tuple):
        return any(spoil(item) for item in value)  # stops at the first
    return False


class CheckTests:
    checks, right, wrong = None, None, None

    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch):
        """No verdict that depends on how busy the machine is."""
        monkeypatch.setattr(running, "SECONDS", 200.0)

    def pytest_generate_tests(self, metafunc):
        def cases(name):
            if "phrase" in metafunc.fixturenames:
                return self.wrong[name]
            if "answer" in metafunc.fixturenames:
                return [(answer,) for answer in self.right[name]]
            return [()] if callable(self.right[name][0]) else []

        names = ["name", *(n for n in ("phrase", "answer") if n in metafunc.fixturenames)]
        if "name" in metafunc.fixturenames:
            found = [(name, *case) for name in self.right for case in cases(name)]
            labels = [f"{case[0]}-{number}" for number, case in enumerate(found)]
            metafunc.parametrize(names, found, ids=labels)

    def test_every_check_has_two_right_answers_and_five_wrong_ones(self):
        assert set(self.checks.__all__) == set(self.right) == set(self.wrong)
        assert {name for name in self.right if len(self.right[name]) < 2} == set()
        assert {name for name in self.wrong if len(self.wrong[name]) < 5} == set()

    def test_a_right_answer_is_accepted(self, name, answer, capsys):
        printed = answer_of(getattr(self.checks, name), answer, capsys)
        assert judged(printed, name) == "✓", printed

    def test_a_wrong_answer_is_rejected_with_its_cause(self, name, phrase, answer, capsys):
        printed = answer_of(getattr(self.checks, name), answer, capsys)
        assert judged(printed, name) == "✗", printed
        assert phrase in printed, printed

    def test_nothing_is_written_yet(self, capsys):
        def stub(*arguments):
            """What there is to do."""
            ...

        for name in self.right:
            answers = (..., None, *([stub] if callable(self.right[name][0]) else []))
            for answer in answers:
                printed = answer_of(getattr(self.checks, name), answer, capsys)
                assert printed == f"… {name}: not written yet.\n"

    def test_an_error_is_shown_with_its_line(self, name, capsys):
        def broken(*arguments):
            return len(arguments) / 0

        printed = answer_of(getattr(self.checks, name), broken, capsys)
        assert judged(printed, name) == "✗"
        assert "ZeroDivisionError" in printed and "return len(arguments) / 0" in printed

    def test_an_endless_loop_is_stopped(self, name, capsys, monkeypatch):
        monkeypatch.setattr(running, "SECONDS", 0.2)
        printed = answer_of(getattr(self.checks, name), endless, capsys)
        assert judged(printed, name) == "✗"
        assert "never ends" in printed

    def test_a_change_in_place_is_found(self, name, capsys):
        changed = []

        def spoiling(*arguments):
            value = self.right[name][0](*arguments)
            changed.append(spoil(arguments))
            return value

        printed = answer_of(getattr(self.checks, name), spoiling, capsys)
        assert ("in place" in printed) == any(changed), printed


def endless(*arguments):
    while True:
        pass
