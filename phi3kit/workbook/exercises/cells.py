"""A notebook's exercises, and the two copies made from it: one to hand out, and one with the solutions filled in.

An exercise is written once, in the notebook, as cells with these ids:

    exercise-NAME   markdown: a heading and the task
    stub-NAME       code, tagged `exercise`: where the learner writes (a second one is stub-NAME-2)
    check-NAME      code, tagged `check`: one call of `check.NAME`
    hints-NAME      markdown: two collapsed hints
    solution-NAME   markdown, tagged `solution`: collapsed, with one block of Python for each stub, in order
"""

import copy
import re
from dataclasses import dataclass
from typing import Any

from phi3kit.errors import Phi3KitError

_ID = re.compile(r"(?:exercise|stub|check|hints|solution)-(\w+?)(?:-\d)?")
_BLOCK = re.compile(r"^```python\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
        name: the name of its check, for example `stop_sequence`.
        title: its heading.
        stubs: the code that the learner begins with, a text for each cell.
        check: the code of its check.
        solutions: the code that passes, a text for each stub; empty in a learner's copy.
    """

    name: str
    title: str
    stubs: tuple[str, ...]
    check: str
    solutions: tuple[str, ...]


class Incomplete(Phi3KitError):
    """An exercise lacks a cell or a part of its solution; the message names it."""


def exercises(notebook: Any) -> list[Exercise]:
    """The exercises of a notebook, in order.

    Args:
        notebook: as nbformat reads it.

    Raises:
        Incomplete: an exercise lacks a cell, or its solution does not have one block for each stub.
    """
    sources = {cell.id: cell.source for cell in notebook.cells}
    names = dict.fromkeys(match[1] for id_ in sources if (match := _ID.fullmatch(id_)))
    return [_exercise(name, notebook, sources) for name in names]


def for_learners(notebook: Any) -> Any:
    """A copy without solutions and outputs.

    Args:
        notebook: as nbformat reads it; it is not changed.
    """
    result = _without_outputs(notebook)
    result.cells = [cell for cell in result.cells if not cell.id.startswith("solution-")]
    return result


def solved(notebook: Any) -> Any:
    """A copy in which each stub is replaced by its solution, without outputs.

    Args:
        notebook: as nbformat reads it; it is not changed.

    Raises:
        Incomplete: an exercise has no solution, or lacks another part.
    """
    result = _without_outputs(notebook)
    cells = {cell.id: cell for cell in result.cells}
    for exercise in exercises(notebook):
        if not exercise.solutions:
            raise Incomplete(f"The exercise {exercise.name} has no solution: add the cell solution-{exercise.name}.")
        for stub, solution in zip(_stubs(notebook, exercise.name), exercise.solutions, strict=True):
            cells[stub].source = solution
    return result


def _exercise(name: str, notebook: Any, sources: dict[str, str]) -> Exercise:
    missing = [f"{part}-{name}" for part in ("exercise", "check", "hints") if f"{part}-{name}" not in sources]
    stubs = tuple(sources[stub] for stub in _stubs(notebook, name))
    solutions = tuple(_BLOCK.findall(sources.get(f"solution-{name}", "")))
    if missing or not stubs:
        raise Incomplete(f"The exercise {name} is not complete: add the cell {(missing or [f'stub-{name}'])[0]}.")
    if f"solution-{name}" in sources and len(solutions) != len(stubs):
        counts = f"{len(stubs)} stubs and {len(solutions)} solutions"
        raise Incomplete(f"The exercise {name} has {counts}: give each stub one block of Python in solution-{name}.")
    title = sources[f"exercise-{name}"].splitlines()[0].lstrip("# ")
    return Exercise(name, title, stubs, sources[f"check-{name}"], solutions)


def _stubs(notebook: Any, name: str) -> list[str]:
    return [cell.id for cell in notebook.cells if re.fullmatch(rf"stub-{name}(-\d)?", cell.id)]


def _without_outputs(notebook: Any) -> Any:
    result = copy.deepcopy(notebook)
    for cell in result.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return result
