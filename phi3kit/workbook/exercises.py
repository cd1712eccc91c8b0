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

_BLOCK = re.compile(r"^```python\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
        name: of its check, for example `stop_sequence`.
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


def exercises(notebook: Any) -> list[Exercise]:
    """The exercises of a notebook, in order.

    Args:
        notebook: as nbformat reads it.
    """
    sources = {cell.id: cell.source for cell in notebook.cells}
    found = []
    for id_, source in sources.items():
        if id_.startswith("check-"):
            name = id_.removeprefix("check-")
            title = sources[f"exercise-{name}"].splitlines()[0].lstrip("# ")
            stubs = tuple(sources[stub] for stub in _stubs(notebook, name))
            solutions = tuple(_BLOCK.findall(sources.get(f"solution-{name}", "")))
            found.append(Exercise(name, title, stubs, source, solutions))
    return found


def for_learners(notebook: Any) -> Any:
    """A copy without solutions and outputs.

    Args:
        notebook: as nbformat reads it; stays as it is.
    """
    made = _without_outputs(notebook)
    made.cells = [cell for cell in made.cells if "solution" not in cell.metadata.get("tags", ())]
    return made


def solved(notebook: Any) -> Any:
    """A copy with every stub replaced by its solution, without outputs.

    Args:
        notebook: as nbformat reads it; stays as it is.
    """
    made = _without_outputs(notebook)
    cells = {cell.id: cell for cell in made.cells}
    for one in exercises(notebook):
        for stub, solution in zip(_stubs(notebook, one.name), one.solutions, strict=True):
            cells[stub].source = solution
    return made


def _stubs(notebook: Any, name: str) -> list[str]:
    return [cell.id for cell in notebook.cells if re.fullmatch(rf"stub-{name}(-\d)?", cell.id)]


def _without_outputs(notebook: Any) -> Any:
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return made
