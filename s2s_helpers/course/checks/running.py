'''How a check runs a learner's function, compares it with the right one, and answers.

A check is a function of this shape, named after what it checks:

    @check                                  # seeds random numbers, and puts them back afterwards
    def padding_mask(function):
        """`function(ids)`: ids (batch, source) to a mask (batch, source), True at real tokens."""
        compare(
            "padding_mask",                 # the check's own name
            function,
            lambda ids: ids != PAD,         # the reference; its parameters name the inputs
            {                               # inputs, from small to large: description, arguments
                "one padded row": (torch.tensor([[5, 3, 0]]),),
                "rows of random lengths": (torch.randint(0, 9, (4, 7)),),
            },
            {                               # typical mistakes: the cause in a sentence, and a
                "The mask is inverted: True stands at padding.": lambda ids: ids == PAD,
            },                              # function that gives what the mistake gives
            why="Attention needs it at every step.",
        )

`predict` judges a number or a word that was guessed, `beat` a figure that was to be beaten. A check
that needs the learner's results for something else takes `results`, which gives None where the
answer is already printed, and answers with `say`. A stub holds `...`, and so is known as a stub.
Answers start with "✓ name:", "✗ name:" or "… name:", the last for what is not written yet.
'''

import ast
import contextlib
import ctypes
import functools
import inspect
import os
import queue
import random
import textwrap
import threading
import traceback
from typing import Any, NamedTuple

import numpy as np
import torch

from s2s_helpers.course.checks.values import (
    copied,
    describe,
    difference,
    is_number,
    kind,
    plain,
    turned,
)
from s2s_helpers.course.show import printable

SECONDS = 5.0  # for one call of a learner's function
PACKAGE = os.path.dirname(os.path.dirname(__file__))
LIBRARY = os.path.dirname(os.__file__)
IN_PLACE = (
    "{} was changed in place, and whoever handed it over still needs it as it was.\n"
    "x[...] = y, x += y, x.append(y) and the methods whose names end in _ do that."
)


class BrokenCheck(Exception):
    """The check is wrong, and not the answer."""


class TooSlow(BaseException):
    """Raised in an endless loop. Not an Exception, so that `except Exception` lets it through."""


class Attempt(NamedTuple):
    """What one call came to: a value, or an error and the learner's own lines that led there.

    `changed` is the number of the argument that was changed in place, or None.
    """

    value: Any = None
    error: str = ""
    lines: tuple[str, ...] = ()
    changed: int | None = None


def check(function):
    """Make a check: random numbers are the same in each run of it, and after it as before."""

    @functools.wraps(function)
    def checked(*answer):
        if all(one is None or one is ... for one in answer):  # before anything is computed
            return say("…", function.__name__, "not written yet.")
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()
        try:
            seed()
            function(*answer)
        except BrokenCheck:
            raise
        except Exception as error:  # what came may be anything, and do anything
            told = f"what came can't be judged ({type(error).__name__}: {error})"
            say("✗", function.__name__, textwrap.shorten(told, 300) + ".")
        finally:
            torch.set_rng_state(before[0])
            random.setstate(before[1])
            np.random.set_state(before[2])

    return checked


def compare(name, function, reference, inputs, mistakes=None, why="", tolerance=1e-5, patience=1):
    """Run the learner's function and the reference on all inputs, and print one answer.

    `inputs` maps a description to a tuple of arguments. `mistakes` maps the cause of a mistake, a
    sentence, to a function that makes it: the cause that is named gives the learner's output on the
    first input where that is wrong, and on more of the others than any other mistake does.
    A call may take `patience` times the usual seconds.
    """
    found = attempts(name, function, inputs, patience)
    if found is None:
        return
    right = [attempt(reference, args, 60) for args in inputs.values()]
    if broken := [one.error for one in right if one.error]:
        raise BrokenCheck(f"the reference of {name} fails {broken[0]}")
    wrong = [
        one.error or difference(one.value, other.value, tolerance)
        for one, other in zip(found, right, strict=False)  # found ends where time ran out
    ]
    bad = [bool(text) or one.changed is not None for text, one in zip(wrong, found, strict=True)]
    if not any(bad):
        return say("✓", name, f"right on {len(inputs)} inputs. {why}")
    first = bad.index(True)
    one, (label, args) = found[first], list(inputs.items())[first]
    names = parameters(reference, len(args))
    lines = [
        f"input     {each} = {describe(value)}" for each, value in zip(names, args, strict=True)
    ]
    if one.error:
        told = f"stopped on “{label}” {one.error}"
        lines = [*one.lines, *lines]
    elif wrong[first]:
        told = f"wrong on “{label}” (input {first + 1} of {len(inputs)})."
        lines.insert(0, wrong[first])
        lines.append(f"expected  {describe(right[first].value)}")
        lines.append(f"came      {describe(one.value)}")
    else:
        told = f"right on “{label}”, but it changed its input."
    if one.changed is not None:
        lines.append(IN_PLACE.format(names[one.changed]))
    if wrong[first]:
        cause = likely_cause(mistakes or {}, found, inputs, first, tolerance)
        cause = cause or turned(one.value, right[first].value, tolerance)
        lines += [f"Likely cause: {cause}"] if cause else []
    say("✗", name, told, *lines)


def likely_cause(mistakes, found, inputs, first, tolerance) -> str:
    """The mistake that gives the learner's output on the first wrong input, and on most others."""

    def gives(mistake, number):
        made, one = attempt(mistake, list(inputs.values())[number], 60), found[number]
        if made.error or one.error:
            return made.error == one.error
        return not difference(one.value, made.value, tolerance)

    explained = {
        cause: sum(gives(mistake, number) for number in range(len(found)))
        for cause, mistake in mistakes.items()
        if gives(mistake, first)
    }
    return max(explained, key=explained.get, default="")


def results(name, function, inputs, patience=1) -> list | None:
    """The learner's values on these inputs; None where an answer has been printed instead."""
    found = attempts(name, function, inputs, patience)
    for one, (label, args) in zip(found or (), inputs.items(), strict=False):
        if one.error:
            return say("✗", name, f"stopped on “{label}” {one.error}", *one.lines)
        if one.changed is not None:
            changed = IN_PLACE.format(parameters(function, len(args))[one.changed])
            return say("✗", name, f"it changed its input on “{label}”.", changed)
    return found and [one.value for one in found]


def predict(name, guess, truth, within=0.0, mistakes=None, why="", form="{}"):
    """Judge a guess: right if it is the truth, or if its numbers are at most `within` off.

    `mistakes` maps a cause to the guess it leads to. `form` writes a number, such as "{:.0%}".
    """
    if isinstance(guess, torch.Tensor) and (guess.layout != torch.strided or guess.is_meta):
        return say("✗", name, f"numbers are asked for; what came is {describe(guess)}.")
    guess = plain(guess.tolist() if hasattr(guess, "tolist") else guess)  # tensors and arrays
    if guess is None or guess is ...:
        return say("…", name, "not written yet.")
    if is_number(truth) and not is_number(guess):
        return say("✗", name, f"a number is asked for; what came is {kind(guess)}.")

    def near(value):
        if is_number(value) and is_number(guess):
            return abs(guess - value) <= within + 1e-9
        return not difference(guess, value, within or 1e-5)

    write = form.format if is_number(truth) else describe
    if near(truth):
        return say("✓", name, f"it is {write(truth)}. {why}")
    causes = [f"Likely cause: {cause}" for cause, value in (mistakes or {}).items() if near(value)]
    say("✗", name, f"you say {write(guess)}; it is {write(truth)}.", *causes[:1])


def beat(name, figure, target, higher=True, form="{:.3f}", why="", hint=""):
    """Say whether a figure is better than the target: above it, or with `higher=False` below."""
    figure = plain(figure)
    if figure is None or figure is ...:
        return say("…", name, "not written yet.")
    if not is_number(figure):
        return say("✗", name, f"a number is asked for; what came is {kind(figure)}.")
    better = figure > target if higher else figure < target
    told = f"{form.format(figure)}; {form.format(target)} was to beat."
    if better:
        return say("✓", name, f"{told} {why}")
    say("✗", name, told, *([hint] if hint else []))


def say(mark: str, name: str, text: str, *lines: str) -> None:
    """Print an answer: a mark, the check's name and a sentence, and below it indented lines."""
    lines = f"{mark} {name}: {text.strip()}", *(textwrap.indent(one, "  ") for one in lines)
    print(printable("\n".join(lines)))


def attempts(name, function, inputs, patience=1) -> list[Attempt] | None:
    """A call on each input, up to one that takes too long; None where an answer is printed."""
    if function is None or function is ...:
        return say("…", name, "not written yet.")
    if not callable(function):
        told = "hand over the function itself, without brackets and arguments behind its name"
        return say("✗", name, f"{told}; what came is {describe(function)}.")
    found = []
    for args in inputs.values():
        one = attempt(function, args, SECONDS * patience)
        nothing = not one.error and (one.value is None or one.value is ...)
        if (nothing or "ellipsis" in one.error) and unfinished(function):
            return say("…", name, "not written yet.")
        if nothing:
            return say("✗", name, "it returns None. Is the return missing?")
        found.append(one)
        if TooSlow.__name__ in one.error:
            told = f"after {SECONDS * patience:g} seconds. Is there a loop that never ends?"
            found[-1] = one._replace(error=told)
            break
    return found


def attempt(function, args: tuple, seconds: float) -> Attempt:
    """Call the function on copies of the arguments."""
    given = copied(args)
    seed()
    try:
        value = limited(function, given, seconds)
    except (Exception, SystemExit, TooSlow) as error:
        message = f"with {type(error).__name__}: {textwrap.shorten(str(error), 300)}"
        return Attempt(error=message, lines=own_lines(error))
    pairs = enumerate(zip(given, args, strict=True))
    changed = [number for number, (after, before) in pairs if difference(after, before, 0)]
    return Attempt(value, changed=changed[0] if changed else None)


def limited(function, args: tuple, seconds: float):
    """Call the function; when time is up, raise TooSlow between two of its lines.

    Works in every thread and on every system. One long call of torch's is waited for.
    """
    thread = ctypes.c_ulong(threading.get_ident())
    interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc
    # This queue and this lock may be used anew by a thread that was interrupted while using them.
    over, turn = queue.SimpleQueue(), threading.RLock()

    def watch(wait=seconds):
        while True:
            try:
                return over.get(timeout=wait)
            except queue.Empty:
                with turn:
                    if over.empty():
                        interrupt(thread, ctypes.py_object(TooSlow))
            wait = 0.5  # again, in case a bare `except` has swallowed it

    def stop():
        over.put(True)
        with turn:
            interrupt(thread, None)  # takes back what was raised too late

    try:
        try:
            with contextlib.suppress(RuntimeError):  # without threads, in a browser, no limit
                threading.Thread(target=watch, daemon=True).start()
            return function(*args)
        finally:
            stop()
    except TooSlow:
        stop()
        raise


def seed() -> None:
    torch.default_generator.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def unfinished(function) -> bool:
    """Whether a stub's `...` still stands in the function, or nobody can know."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return True
    dots = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Expr, ast.Assign, ast.Return))
    ]
    return any(isinstance(value, ast.Constant) and value.value is ... for value in dots)


def own_lines(error: BaseException) -> tuple[str, ...]:
    """The learner's own lines on the way to the error, the last three, with their numbers."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PACKAGE, LIBRARY, "<frozen"))
        and "site-packages" not in frame.filename
    ]
    return tuple(f"line {frame.lineno}:  {frame.line}" for frame in frames[-3:])


def parameters(function, count: int) -> list[str]:
    """Names for so many arguments: those of the function where it has as many."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return names if len(names) == count else [f"argument {n}" for n in range(1, count + 1)]
