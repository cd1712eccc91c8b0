"""Grade a returned notebook: run it in the sandbox with our own checks, and read their verdicts.

The learner's own check cells, parameters and outputs do not count: ours replace them, and every cell is run again.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3kit.errors import InvalidRequest
from phi3kit.workbook.exercises import sandbox
from phi3kit.workbook.exercises.cells import Exercise, exercises
from phi3kit.workbook.exercises.supervisor import Limits
from phi3kit.workbook.running import paths
from phi3kit.workbook.running.notebook import content, refusal, repaired
from phi3kit.workbook.running.results import MEDIA_TYPE


@dataclass(frozen=True)
class Mark:
    """The result of one exercise.

    Attributes:
        exercise: the name of its check.
        title: its heading.
        right: the number of steps that are right.
        steps: the number of steps.
        feedback: what to tell the learner, by label: got, expected and hint; or why the exercise was not checked.
    """

    exercise: str
    title: str
    right: int
    steps: int
    feedback: dict[str, str]


@dataclass(frozen=True)
class Report:
    """The result of one returned notebook.

    Attributes:
        notebook: the name of our notebook that it is a copy of.
        marks: one for each exercise, in order.
        problems: sentences about cells that failed, were stopped, or tried the network.
    """

    notebook: str
    marks: list[Mark]
    problems: list[str]

    @property
    def right(self) -> int:
        """The number of steps that are right in all exercises."""
        return sum(mark.right for mark in self.marks)

    @property
    def steps(self) -> int:
        """The number of steps in all exercises."""
        return sum(mark.steps for mark in self.marks)


def grade(notebook: str | Path, limits: Limits | None = None, progress: sandbox.Progress | None = None) -> Report:
    """Run a returned notebook in the sandbox, and mark each of its exercises.

    Args:
        notebook: a file made from one of our notebooks, under any name.
        limits: other limits than the default.
        progress: called with the number of each cell that begins, and with that of all cells.

    Raises:
        InvalidRequest: the file does not exist, is not a notebook, or is no copy of one of ours with exercises.
    """
    returned = _read(Path(notebook))
    name, original = _original(Path(notebook), returned)
    result = sandbox.run(_with_our_cells(returned, original), limits, progress)
    cells = {cell.get("id"): cell for cell in result.notebook.cells}
    committed = {cell.id: cell for cell in original.cells}
    marks = [_mark(exercise, cells, committed[f"check-{exercise.name}"]) for exercise in exercises(original)]
    return Report(name, marks, result.problems)


def _read(path: Path) -> Any:
    """A new notebook from the sources and ids of the returned cells, which are all that a grade depends on."""
    returned = content(path)
    copy_it = "copy its code into the notebook that was handed out"
    if returned["nbformat"] != 4:
        raise refusal(path, f"is in version {returned['nbformat']} of the format, not 4: {copy_it}")
    if returned["cells"] and not any(cell.get("id") for cell in returned["cells"]):
        raise refusal(path, f"has lost the ids of its cells: {copy_it}")
    cells = [{name: cell.get(name) for name in ("cell_type", "id", "source")} for cell in returned["cells"]]
    for cell in cells:
        cell["source"] = "".join(cell["source"]).encode(errors="replace").decode()  # half an emoji stops the kernel
    return repaired(path, {"nbformat": 4, "cells": cells})


def _original(path: Path, returned: Any) -> tuple[str, Any]:
    """The name and content of the notebook of ours that shares most exercise cells with the returned one."""
    import nbformat

    ids = {cell.get("id") for cell in returned.cells}
    candidates = {}
    for source in paths.notebooks():
        notebook = nbformat.read(source, as_version=4)
        names = [exercise.name for exercise in exercises(notebook)]
        shared = ids & {f"{part}-{name}" for name in names for part in ("exercise", "stub", "check")}
        candidates[source.stem] = len(shared), notebook
    best = max(candidates, key=lambda name: candidates[name][0])
    if not candidates[best][0]:
        allowed = f"a copy of {' or '.join(candidates)} with its exercises, saved by a program that keeps cells' ids"
        raise InvalidRequest("NOTEBOOK", str(path), allowed)
    return best, candidates[best][1]


def _with_our_cells(returned: Any, original: Any) -> Any:
    """The returned notebook with our parameters and checks instead of its own; a missing check is added at the end."""
    result = copy.deepcopy(returned)
    originals = {cell.id: cell for cell in copy.deepcopy(original).cells if _is_ours(cell)}
    for id_, cell in originals.items():
        cell.outputs = []
        if id_.startswith("check-"):
            # The learner's code may have used the name `check` for something else.
            cell.source = f"from phi3kit.workbook.exercises import check\n{cell.source}"
    result.cells = [originals.pop(cell.get("id"), cell) for cell in result.cells]
    result.cells += [cell for id_, cell in originals.items() if id_.startswith("check-")]
    result.metadata = original.metadata
    return result


def _is_ours(cell: Any) -> bool:
    return cell.id.startswith("check-") or "parameters" in cell.metadata.get("tags", ())


def _mark(exercise: Exercise, cells: dict[str, Any], committed: Any) -> Mark:
    check, stub = cells[f"check-{exercise.name}"], cells.get(f"stub-{exercise.name}", {})
    if verdict := _verdict(exercise.name, check):
        feedback = {label: verdict[label] for label in ("got", "expected", "hint") if label in verdict}
        return Mark(exercise.name, exercise.title, len(verdict["right"]), verdict["steps"], feedback)
    outputs = [*stub.get("outputs", ()), *check.outputs]  # an error of the learner's own cell comes first
    error = next((output for output in outputs if output.output_type == "error"), None)
    reason = f"{error.ename}: {error.evalue}" if error else "the run ended before this exercise"
    steps = _verdict(exercise.name, committed).get("steps", 1)  # the number is in the untouched stub's verdict
    return Mark(exercise.name, exercise.title, 0, steps, {"not checked": reason})


def _verdict(name: str, cell: Any) -> dict[str, Any]:
    verdicts = [output.get("data", {}).get(MEDIA_TYPE, {}).get(f"check:{name}") for output in cell.outputs]
    return next(filter(None, verdicts), {})
