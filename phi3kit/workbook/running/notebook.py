"""A notebook's file, read for a run: what a run writes anew is left out, and what nbformat can repair is repaired."""

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
    import nbformat

    try:
        text = path.read_text(encoding="utf-8-sig")
        notebook = _repaired(text)
        f"{path}{nbformat.writes(notebook)}".encode()  # the executed notebook names its own path
        return notebook
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "is not in UTF-8"
    except UnicodeEncodeError:
        problem = "has half of a character in its name or in a cell"
    except nbformat.reader.NotJSONError:
        problem = "is no JSON" if text.strip() else "is empty"
    except nbformat.ValidationError as error:
        problem = f"is not valid at {error.json_path} ({error.message.splitlines()[0][:150]})"
    except nbformat.NBFormatError as error:
        problem = f"cannot be read: {error}"
    except Exception:  # nbformat raises many kinds of errors for a damaged file
        problem = "holds no notebook"
    raise InvalidRequest("NOTEBOOK", str(path), f"a Jupyter notebook: {path.name} {problem}")


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


def _repaired(text: str) -> Any:
    import nbformat

    content = nbformat.reader.reads(text)
    if "nbformat" not in content:
        raise ValueError("nbformat takes any other JSON for a notebook of its first version")
    notebook = nbformat.convert(content, 4)
    notebook.nbformat_minor = 5
    ids: set[str] = set()
    for cell in notebook.cells:
        for key in [key for key in cell if key not in _KEPT]:
            del cell[key]
        if cell.get("id") in ids or not re.fullmatch(r"[\w-]{1,64}", str(cell.get("id") or ""), re.ASCII):
            cell.id = nbformat.v4.nbbase.random_cell_id()
        ids.add(cell.id)
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.validate(notebook, relax_add_props=True)
    return notebook
