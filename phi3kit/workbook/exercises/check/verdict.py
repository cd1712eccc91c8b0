"""The verdict of a check: the steps that are right and, for the first that is not, got, expected and a hint."""

import contextvars
import ctypes
import functools
import html
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from phi3kit.workbook.running.results import MEDIA_TYPE

StepGenerator = Callable[..., Iterator[str]]


class Wrong(Exception):
    """A check raises this at the first step that is not right.

    Args:
        got: what the learner's code returned, in words or as `repr` writes it.
        expected: what would have been right.
        hint: what to look at after this very mistake, without the solution.
    """

    def __init__(self, got: str, expected: str, hint: str) -> None:
        super().__init__(got, expected, hint)
        self.got, self.expected, self.hint = got, expected, hint


@dataclass(frozen=True)
class Verdict:
    """The result of a check. A notebook displays it below the cell, and `grading` reads it from the cell's outputs.

    Attributes:
        exercise: the name of the check.
        right: a sentence for each step that is right, in order.
        steps: the number of steps of the check.
        got: what the first wrong step got; empty if all steps are right.
        expected: what would have been right there.
        hint: what to look at.
    """

    exercise: str
    right: tuple[str, ...]
    steps: int
    got: str = ""
    expected: str = ""
    hint: str = ""

    @property
    def passed(self) -> bool:
        """Whether every step is right."""
        return len(self.right) == self.steps

    def __str__(self) -> str:
        lines = [self._summary] + [f"  right:     {step}" for step in self.right]
        return "\n".join(lines + [f"  {label + ':':<10} {text}" for label, text in self._mistake])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        data = {f"check:{self.exercise}": self.to_dict()}
        return {"text/plain": str(self), "text/html": self._html(), MEDIA_TYPE: data}

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON holds it."""
        return {"right": list(self.right), "steps": self.steps, **dict(self._mistake)}

    @property
    def _summary(self) -> str:
        return f"{'Right' if self.passed else 'Not yet'}: {len(self.right)} of {self.steps}"

    @property
    def _mistake(self) -> list[tuple[str, str]]:
        parts = [("got", self.got), ("expected", self.expected), ("hint", self.hint)]
        return [] if self.passed else parts

    def _html(self) -> str:
        rows = [("right", step) for step in self.right] + self._mistake
        # The learner's text may hold anything: it is escaped, and keeps its line breaks.
        cells = "".join(
            f'<tr><th scope="row" style="text-align: left; vertical-align: top">{label}</th>'
            f'<td style="text-align: left; white-space: pre-wrap">{_to_html(label, text)}</td></tr>'
            for label, text in rows
        )
        border = "solid #2e7d32" if self.passed else "dashed #b26a00"  # the style tells them apart without colours
        summary = f"<strong>{self._summary}</strong>"
        return f'<div style="border-left: 4px {border}; padding-left: 0.8em">{summary}<table>{cells}</table></div>'


def _to_html(label: str, text: str) -> str:
    """Escape a text. Backticks mark code in our own sentences, but not in what the check got."""
    escaped = html.escape(text)
    return escaped if label == "got" else re.sub("`([^`]+)`", r"<code>\1</code>", escaped)


def exercise(steps: int) -> Callable[[StepGenerator], Callable[..., Verdict]]:
    """Turn a generator, which yields one sentence for each step that is right, into a check.

    Args:
        steps: the number of sentences that it yields when everything is right.
    """

    def decorate(generator: StepGenerator) -> Callable[..., Verdict]:
        @functools.wraps(generator)
        def check(*arguments: Any) -> Verdict:
            right: list[str] = []
            try:
                for step in generator(*arguments):
                    right.append(step)
            except Wrong as wrong:
                return Verdict(generator.__name__, tuple(right), steps, wrong.got, wrong.expected, wrong.hint)
            return Verdict(generator.__name__, tuple(right), steps)

        return check

    return decorate


def call(
    function: Callable[..., Any],
    *arguments: Any,
    expected: str,
    hints: dict[type[Exception], str] | None = None,
    seconds: float | None = 5.0,
    late: str = "A loop may never end: what changes from one round of it to the next?",
) -> Any:
    """Call a learner's function. If it raises an error or does not end, the verdict got that.

    Args:
        function: the learner's function.
        arguments: its arguments.
        expected: what it should return.
        hints: the hint for each likely kind of error; for any other, the hint is to read the message.
        seconds: the time after which a call is given up; None for one that runs a model.
        late: the hint for a call that was given up.

    Raises:
        Wrong: `function` is not a function, raised an error (which is then the cause), or did not end in time.
    """
    if not callable(function):
        got = f"{shorten(function)}, which is not a function"
        raise Wrong(got, expected, "Keep the line with `def` as it was in the cell.")
    try:
        return _within(seconds, function, *arguments) if seconds else function(*arguments)
    except _Late:
        raise Wrong(f"nothing after {seconds:g} s: the call had not ended", expected, late) from None
    except Exception as error:
        matching = (hint for kind, hint in (hints or {}).items() if isinstance(error, kind))
        hint = next(matching, "The message says what went wrong. Call your function yourself to see more.")
        raise Wrong(describe(error), expected, hint) from error


class _Late(Exception):
    """A call did not end in time."""


def _within(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a thread of its own, and return what it returns or raise what it raises."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    try:
        if not wait([future], seconds).done:
            raise _Late
        return future.result()
    finally:
        if not future.done():  # a loop would slow down the notebook; a sleep ends later, by itself
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


def describe(error: Exception) -> str:
    """The type and the message of an error, as a verdict writes them."""
    return f"{type(error).__name__}: {shorten(str(error))}"


def shorten(value: object) -> str:
    """A value as a verdict writes it: a text as it is, any other value as `repr` writes it, 200 characters at most."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
