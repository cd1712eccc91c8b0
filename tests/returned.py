"""A small workbook with two exercises, and what learners make of it."""

import copy
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from phi3kit.workbook.results import MEDIA_TYPE

# What a module of `phi3kit.workbook.check` would hold.
CHECKS = """
import phi3kit
from phi3kit.workbook import check
from phi3kit.workbook.check.verdict import Wrong, exercise

@exercise(of=2)
def double(given):
    if given(2) != 4:
        raise Wrong(repr(given(2)), "4", "Multiply.")
    yield "2 becomes 4"
    if given("a") != "aa":
        raise Wrong(repr(given("a")), "aa", "Add nothing.")
    yield "a becomes aa"

@exercise(of=1)
def shout(loud, louder):
    if (loud("a"), louder("a")) != ("A", "A!"):
        raise Wrong(loud("a") + " and " + louder("a"), "A and A!", "Look for a method of text.")
    yield "both shout"

check.double, check.shout = double, shout
"""
STUBS = {
    "stub-double": "def double(given):\n    return given",
    "stub-shout": "def loud(text):\n    return text",
    "stub-shout-2": "def louder(text):\n    return loud(text)",
}
SOLUTIONS = {
    "stub-double": "def double(given):\n    return given * 2",
    "stub-shout": "def loud(text):\n    return text.upper()",
    "stub-shout-2": 'def louder(text):\n    return loud(text) + "!"',
}


def workbook() -> NotebookNode:
    """The notebook as it is committed, with its outputs."""
    stub = {"tags": ["exercise"]}
    cells = [
        new_markdown_cell("# Title", id="title"),
        new_code_cell("n = 1  # a parameter", id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell(CHECKS, id="setup"),
        new_markdown_cell("### Exercise 1: Double\n\nTwice.", id="exercise-double"),
        new_code_cell(STUBS["stub-double"], id="stub-double", metadata=stub),
        checked("double", "double", 2),
        new_markdown_cell("two hints", id="hints-double"),
        new_markdown_cell(solution(SOLUTIONS["stub-double"]), id="solution-double", metadata={"tags": ["solution"]}),
        new_markdown_cell("### Exercise 2: Shout\n\nLoudly.", id="exercise-shout"),
        new_code_cell(STUBS["stub-shout"], id="stub-shout", metadata=stub),
        new_code_cell(STUBS["stub-shout-2"], id="stub-shout-2", metadata=stub),
        checked("shout", "loud, louder", 1),
        new_markdown_cell("two hints", id="hints-shout"),
        new_markdown_cell(
            solution(SOLUTIONS["stub-shout"], SOLUTIONS["stub-shout-2"]),
            id="solution-shout",
            metadata={"tags": ["solution"]},
        ),
    ]
    return new_notebook(cells=cells)


def checked(name: str, given: str, of: int) -> NotebookNode:
    verdict = {"right": [], "of": of, "came": "", "expected": "", "hint": ""}
    output = new_output("execute_result", {"text/plain": "Not yet", MEDIA_TYPE: {f"check:{name}": verdict}})
    return new_code_cell(f"check.{name}({given})", id=f"check-{name}", metadata={"tags": ["check"]}, outputs=[output])


def solution(*blocks: str) -> str:
    code = "\n\n".join(f"```python\n{block}\n```" for block in blocks)
    return f"<details><summary>Solution</summary>\n\n{code}\n\nSince.\n\n</details>"


def returned(
    path: Path, changes: dict[str, str | None] | None = None, insert: dict[str, list[str]] | None = None
) -> Path:
    """Write what a learner gives back.

    Args:
        path: the file.
        changes: new sources by cell id; None for a cell that is gone.
        insert: sources of further cells, by the id of the cell that they follow.
    """
    from phi3kit.workbook.exercises import for_learners

    made: Any = for_learners(copy.deepcopy(workbook()))
    cells = []
    for cell in made.cells:
        source = (changes or {}).get(cell.id, cell.source)
        if source is not None:
            cells.append(cell)
            cell.source = source
        cells += map(new_code_cell, (insert or {}).get(cell.id, []))
    made.cells = cells
    nbformat.write(made, path)
    return path
