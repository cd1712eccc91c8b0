"""A notebook's file, read for a run: what a run writes anew is left out, and what nbformat can repair is repaired."""

import json
import re
from pathlib import Path
from typing import Any

from phi3kit.errors import InvalidRequest

INJECTED = "injected-parameters"  # papermill's tag for the cell that replaces the defaults
_KEPT = ("cell_type", "id", "metadata", "source", "attachments")


def read(path: Path) -> Any:
    """Read a notebook without its outputs.

    Args:
        path: of any version that nbformat knows.

    Returns:
        An `nbformat.NotebookNode` of version 4.5.

    Raises:
        InvalidRequest: the file cannot be read, or is no notebook; the message names the file and what it is instead.
    """
    notebook = repaired(path, content(path))
    _check_characters(path, notebook)
    return notebook


def content(path: Path) -> dict[str, Any]:
    """Read the JSON of a notebook; in version 4, it has cells, each with its type and its source.

    Raises:
        InvalidRequest: the file cannot be read, or is no such JSON.
    """
    raw = b""
    try:
        raw = path.read_bytes()
        parsed = json.loads(raw)
    except FileNotFoundError:
        raise InvalidRequest("NOTEBOOK", str(path), "a file that exists") from None
    except OSError as error:
        raise InvalidRequest("NOTEBOOK", str(path), f"a file that can be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"is no whole JSON: {error}" if raw.strip() else "is empty") from None
    if problem := _problem(parsed):
        raise refusal(path, problem)
    return parsed


def repaired(path: Path, content: dict[str, Any]) -> Any:
    """Return the content of a file as a valid notebook of version 4.5 without outputs.

    Args:
        path: the file, for messages.
        content: as the function `content` returns it.

    Raises:
        InvalidRequest: it cannot be repaired.
    """
    import nbformat

    try:
        return _repaired(content)
    except nbformat.ValidationError as error:
        problem = f"is not valid at {error.json_path} ({error.message.splitlines()[0][:150]})"
    except Exception:  # nbformat raises many kinds of errors for a damaged file
        problem = f"is in version {content['nbformat']} of the format, and cannot be converted to version 4"
    raise refusal(path, problem)


def refusal(path: Path, problem: str) -> InvalidRequest:
    """Return the refusal of a file, from what it is instead of a notebook."""
    return InvalidRequest("NOTEBOOK", str(path), f"a Jupyter notebook ({path.name} {problem})")


def has_tag(cell: Any, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", ())


def insert(notebook: Any, parameters: dict[str, Any]) -> Any:
    """Insert a cell with parameters behind the cells tagged `parameters`, as papermill does with JSON's types alone.

    Args:
        notebook: as `read` returns it; changed in place.
        parameters: name to value, which may be anything that Python writes as a literal.

    Returns:
        The same notebook.
    """
    from nbformat.v4 import new_code_cell

    if parameters:
        lines = ["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())]
        notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, INJECTED)]
        last = max(at for at, cell in enumerate(notebook.cells) if has_tag(cell, "parameters"))
        notebook.cells.insert(last + 1, new_code_cell("\n".join(lines), metadata={"tags": [INJECTED]}))
    return notebook


def _problem(content: Any) -> str | None:
    """What keeps JSON from being a notebook, after the name of the file."""
    if not isinstance(content, dict) or type(content.get("nbformat")) is not int:
        return "is JSON, but not of a notebook"
    if content["nbformat"] != 4:
        return None
    if not isinstance(cells := content.get("cells"), list):
        return "has no list of cells"
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            return f"has a cell, number {number}, that is neither code, markdown nor raw text"
        lines = cell.get("source")
        if not isinstance(lines, str | list) or not all(isinstance(line, str) for line in lines):
            return f"has a cell, number {number}, without a source"
    return None


def _repaired(content: dict[str, Any]) -> Any:
    import nbformat

    notebook = nbformat.convert(nbformat.from_dict(content), 4)
    notebook.update(nbformat=4, nbformat_minor=5, metadata=notebook.get("metadata") or {})
    ids: set[str] = set()
    for cell in notebook.cells:
        for key in [key for key in cell if key not in _KEPT]:
            del cell[key]
        cell.source = "".join(cell.source)
        cell.metadata = cell.get("metadata") or nbformat.NotebookNode()
        if not isinstance(id_ := cell.get("id"), str) or id_ in ids or not re.fullmatch(r"[\w-]{1,64}", id_, re.ASCII):
            cell.id = nbformat.v4.nbbase.random_cell_id()
        ids.add(cell.id)
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.validate(notebook, relax_add_props=True)
    return notebook


def _check_characters(path: Path, notebook: Any) -> None:
    """Refuse half of a UTF-16 pair, which no file can hold: the executed notebook names its own path."""
    import nbformat

    try:
        (str(path) + nbformat.writes(notebook)).encode()
    except UnicodeEncodeError:
        raise refusal(path, "has half of a character in its name or in a cell") from None
