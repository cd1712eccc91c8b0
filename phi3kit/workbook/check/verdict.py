"""What a check says of a learner's code: what is right so far, what came, what was expected, and the hint that fits."""

import functools
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from phi3kit.workbook.results import MEDIA_TYPE

Steps = Callable[..., Iterator[str]]


class Wrong(Exception):
    """Raised by a check at the first thing that is not right.

    Args:
        came: what the learner's code gave, in words or as `repr` shows it.
        expected: what would have been right.
        hint: where to look, for this very mistake; it does not give the solution away.
    """

    def __init__(self, came: str, expected: str, hint: str) -> None:
        super().__init__(came, expected, hint)
        self.came, self.expected, self.hint = came, expected, hint


@dataclass(frozen=True)
class Verdict:
    """What a check found; a notebook shows it below the cell, and `grade` reads it from there.

    Attributes:
        exercise: the name of the check.
        right: what was found right, in the order of the check's steps.
        of: how many steps the check has.
        came: what came instead at the first step that was not right; empty if all were.
        expected: what would have been right there.
        hint: where to look.
    """

    exercise: str
    right: tuple[str, ...]
    of: int
    came: str = ""
    expected: str = ""
    hint: str = ""

    @property
    def passed(self) -> bool:
        """Whether every step was right."""
        return len(self.right) == self.of

    def __str__(self) -> str:
        lines = [self._head] + [f"  right:     {step}" for step in self.right]
        return "\n".join(lines + [f"  {label + ':':<10} {text}" for label, text in self._trouble])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self._html(), MEDIA_TYPE: {f"check:{self.exercise}": self.told()}}

    def told(self) -> dict[str, Any]:
        """The verdict as JSON holds it."""
        return {"right": list(self.right), "of": self.of, **dict(self._trouble)}

    @property
    def _head(self) -> str:
        return f"{'Right' if self.passed else 'Not yet'}: {len(self.right)} of {self.of}"

    @property
    def _trouble(self) -> list[tuple[str, str]]:
        parts = [("came", self.came), ("expected", self.expected), ("hint", self.hint)]
        return [] if self.passed else parts

    def _html(self) -> str:
        rows = [("right", step) for step in self.right] + self._trouble
        # A learner's text may hold anything: it is escaped, and keeps its line breaks.
        cells = "".join(
            f'<tr><th scope="row" style="text-align: left; vertical-align: top">{label}</th>'
            f'<td style="text-align: left; white-space: pre-wrap">{_marked(label, text)}</td></tr>'
            for label, text in rows
        )
        border = "solid #2e7d32" if self.passed else "dashed #b26a00"  # told apart without colour too
        head = f"<strong>{self._head}</strong>"
        return f'<div style="border-left: 4px {border}; padding-left: 0.8em">{head}<table>{cells}</table></div>'


def _marked(label: str, text: str) -> str:
    """Our own words may name code between backticks; what came is shown as it is."""
    safe = html.escape(text)
    return safe if label == "came" else re.sub("`([^`]+)`", r"<code>\1</code>", safe)


def exercise(of: int) -> Callable[[Steps], Callable[..., Verdict]]:
    """Make a check out of a generator that yields one sentence for each thing it found right.

    Args:
        of: how many sentences it yields when all is right: an exercise's points.
    """

    def decorate(steps: Steps) -> Callable[..., Verdict]:
        @functools.wraps(steps)
        def check(*given: Any) -> Verdict:
            right: list[str] = []
            try:
                for step in steps(*given):
                    right.append(step)
            except Wrong as wrong:
                return Verdict(steps.__name__, tuple(right), of, wrong.came, wrong.expected, wrong.hint)
            return Verdict(steps.__name__, tuple(right), of)

        return check

    return decorate


def called(code: Callable[..., Any], *given: Any, expected: str, hints: dict[type[Exception], str]) -> Any:
    """Call a learner's function; what it raises becomes what came.

    Args:
        code: the function.
        given: what it is called with.
        expected: what it should give.
        hints: for each kind of error that is likely, the hint that fits; for any other, to read the message.

    Raises:
        Wrong: it is no function, or it raised something.
    """
    if not callable(code):
        raise Wrong(f"{shown(code)}, which is no function", expected, "Keep the line with `def` as the stub has it.")
    try:
        return code(*given)
    except Exception as error:
        fitting = (hint for kind, hint in hints.items() if isinstance(error, kind))
        hint = next(fitting, "The message says what went wrong; call your function by hand to see more.")
        raise Wrong(f"{type(error).__name__}: {shown(str(error))}", expected, hint) from error


def shown(value: object) -> str:
    """A value as a verdict shows it: short, and a text as it stands."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
