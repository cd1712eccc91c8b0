"""Grade a returned notebook: run it with our own checks in the sandbox, and read what they say.

A learner's own check cells, parameters and outputs count for nothing: ours take their place, and everything is run.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3kit.errors import InvalidRequest
from phi3kit.workbook import places, sandbox
from phi3kit.workbook.exercises import Exercise, exercises
from phi3kit.workbook.keeper import Limits
from phi3kit.workbook.results import MEDIA_TYPE


@dataclass(frozen=True)
class Mark:
    """What one exercise earned.

    Attributes:
        exercise: the name of its check.
        title: its heading.
        right: how many steps were right.
        of: how many there are.
        told: what to say to the learner, by label: what came, what was expected, a hint; or why nothing was checked.
    """

    exercise: str
    title: str
    right: int
    of: int
    told: dict[str, str]


@dataclass(frozen=True)
class Report:
    """What one returned notebook earned.

    Attributes:
        notebook: the name of ours that it was made from.
        marks: one for each exercise, in order.
        troubles: sentences about cells that failed, were stopped, or wanted the network.
    """

    notebook: str
    marks: list[Mark]
    troubles: list[str]

    @property
    def right(self) -> int:
        """How many steps were right in all."""
        return sum(mark.right for mark in self.marks)

    @property
    def of(self) -> int:
        """How many steps there are in all."""
        return sum(mark.of for mark in self.marks)


def grade(notebook: str | Path, limits: Limits | None = None) -> Report:
    """Run a returned notebook in the sandbox, and give what each of its exercises earned.

    Args:
        notebook: a file made from one of ours, whatever its name.
        limits: other ones than the sandbox's own.

    Raises:
        InvalidRequest: no such file, no notebook, or none of ours with exercises.
    """
    returned = _read(Path(notebook))
    name, ours = _origin(Path(notebook), returned)
    ran = sandbox.run(_with_our_cells(returned, ours), limits)
    cells, committed = ({cell.get("id"): cell for cell in each.cells} for each in (ran.notebook, ours))
    marks = [_mark(one, cells, committed[f"check-{one.name}"]) for one in exercises(ours)]
    return Report(name, marks, ran.troubles)


def _read(path: Path) -> Any:
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise InvalidRequest("NOTEBOOK", str(path), "a file that exists") from None
    except Exception:  # a broken file makes nbformat stumble in many ways
        raise InvalidRequest("NOTEBOOK", str(path), "a Jupyter notebook, which that file is not") from None
    return notebook


def _origin(path: Path, returned: Any) -> tuple[str, Any]:
    """The name and content of that notebook of ours of whose exercises the returned one has the most cells."""
    import nbformat

    ids = {cell.get("id") for cell in returned.cells}
    shared = {}
    for source in places.notebooks():
        ours = nbformat.read(source, as_version=4)
        theirs = {f"{part}-{one.name}" for one in exercises(ours) for part in ("exercise", "stub", "check")}
        shared[source.stem] = len(theirs & ids), ours
    best = max(shared, key=lambda name: shared[name][0])
    if not shared[best][0]:
        allowed = f"a copy of {' or '.join(shared)} with its exercises, saved by a program that keeps cells' ids"
        raise InvalidRequest("NOTEBOOK", str(path), allowed)
    return best, shared[best][1]


def _with_our_cells(returned: Any, ours: Any) -> Any:
    """The returned notebook with our parameters and checks in the place of its own; a check that is gone comes last."""
    made = copy.deepcopy(returned)
    left = {cell.id: cell for cell in copy.deepcopy(ours).cells if _is_ours(cell)}
    for id_, cell in left.items():
        cell.outputs = []
        if id_.startswith("check-"):
            cell.source = f"from phi3kit.workbook import check\n{cell.source}"  # whatever that name may mean by now
    made.cells = [left.pop(cell.get("id"), cell) for cell in made.cells]
    made.cells += [cell for id_, cell in left.items() if id_.startswith("check-")]
    made.metadata = ours.metadata
    return made


def _is_ours(cell: Any) -> bool:
    return cell.id.startswith("check-") or "parameters" in cell.metadata.get("tags", ())


def _mark(one: Exercise, cells: dict[str, Any], committed: Any) -> Mark:
    cell, stub = cells[f"check-{one.name}"], cells.get(f"stub-{one.name}", {})
    if verdict := _verdict(one.name, cell):
        told = {label: verdict[label] for label in ("came", "expected", "hint") if label in verdict}
        return Mark(one.name, one.title, len(verdict["right"]), verdict["of"], told)
    outputs = [*stub.get("outputs", ()), *cell.outputs]  # what the learner's own cell says comes first
    error = next((output for output in outputs if output.output_type == "error"), None)
    why = f"{error.ename}: {error.evalue}" if error else "the notebook did not come so far"
    of = _verdict(one.name, committed).get("of", 1)  # the untouched stub's verdict tells
    return Mark(one.name, one.title, 0, of, {"not checked": why})


def _verdict(name: str, cell: Any) -> dict[str, Any]:
    kept = [output.get("data", {}).get(MEDIA_TYPE, {}).get(f"check:{name}") for output in cell.outputs]
    return next(filter(None, kept), {})
