"""A small workbook with two exercises, and the notebooks that its learners return."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from phi3kit.workbook.exercises.cells import for_learners
from phi3kit.workbook.running.results import MEDIA_TYPE

# The checks of the two exercises, which a real workbook has in `phi3kit.workbook.exercises.check`.
CHECKS = """
import phi3kit
from phi3kit.workbook.exercises import check
from phi3kit.workbook.exercises.check.verdict import Wrong, exercise

@exercise(steps=2)
def double(function):
    if function(2) != 4:
        raise Wrong(repr(function(2)), "4", "Multiply.")
    yield "2 becomes 4"
    if function("a") != "aa":
        raise Wrong(repr(function("a")), "aa", "Add nothing.")
    yield "a becomes aa"

@exercise(steps=1)
def shout(loud, louder):
    if (loud("a"), louder("a")) != ("A", "A!"):
        raise Wrong(loud("a") + " and " + louder("a"), "A and A!", "Look for a method of text.")
    yield "both shout"

check.double, check.shout = double, shout
"""
STUBS = {
    "stub-double": "def double(value):\n    return value",
    "stub-shout": "def loud(text):\n    return text",
    "stub-shout-2": "def louder(text):\n    return loud(text)",
}
SOLUTIONS = {
    "stub-double": "def double(value):\n    return value * 2",
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
        check_cell("double", "double", 2),
        new_markdown_cell("two hints", id="hints-double"),
        solution_cell("double", SOLUTIONS["stub-double"]),
        new_markdown_cell("### Exercise 2: Shout\n\nLoudly.", id="exercise-shout"),
        new_code_cell(STUBS["stub-shout"], id="stub-shout", metadata=stub),
        new_code_cell(STUBS["stub-shout-2"], id="stub-shout-2", metadata=stub),
        check_cell("shout", "loud, louder", 1),
        new_markdown_cell("two hints", id="hints-shout"),
        solution_cell("shout", SOLUTIONS["stub-shout"], SOLUTIONS["stub-shout-2"]),
    ]
    return new_notebook(cells=cells)


def check_cell(name: str, arguments: str, steps: int) -> NotebookNode:
    verdict = {"right": [], "steps": steps, "got": "", "expected": "", "hint": ""}
    output = new_output("execute_result", {"text/plain": "Not yet", MEDIA_TYPE: {f"check:{name}": verdict}})
    source = f"check.{name}({arguments})"
    return new_code_cell(source, id=f"check-{name}", metadata={"tags": ["check"]}, outputs=[output])


def solution_cell(name: str, *blocks: str) -> NotebookNode:
    code = "\n\n".join(f"```python\n{block}\n```" for block in blocks)
    source = f"<details><summary>Solution</summary>\n\n{code}\n\nSince.\n\n</details>"
    return new_markdown_cell(source, id=f"solution-{name}", metadata={"tags": ["solution"]})


def returned(
    path: Path, changes: dict[str, str | None] | None = None, insert: dict[str, list[str]] | None = None
) -> Path:
    """Write the notebook that a learner returns.

    Args:
        path: the file.
        changes: new sources by cell id; None removes the cell.
        insert: sources of further cells, by the id of the cell that they follow.
    """
    notebook = for_learners(workbook())
    cells = []
    for cell in notebook.cells:
        source = (changes or {}).get(cell.id, cell.source)
        if source is not None:
            cells.append(cell)
            cell.source = source
        cells += map(new_code_cell, (insert or {}).get(cell.id, []))
    notebook.cells = cells
    nbformat.write(notebook, path)
    return path
