"""Execute a committed notebook and keep its new outputs, without anything that belongs to one run or one machine."""

import os
from pathlib import Path
from typing import Any

from phi3kit.workbook import places
from phi3kit.workbook.runner import Outcome, run

_WIDGET = "application/vnd.jupyter.widget-view+json"
_NOT_OURS = {"injected-parameters", "papermill-error-cell-tag"}


def refresh(notebook: str | Path) -> Outcome:
    """Run a notebook with its own defaults and, if that went well, put what came in its place.

    Args:
        notebook: a notebook's file; changed only when every cell ended well.

    Returns:
        the outcome of the run.
    """
    import nbformat

    target = Path(notebook).resolve()
    outcome = run(target)
    if outcome.verdict == "ok":
        tidy = tidied(nbformat.read(outcome.notebook, as_version=4))
        aside = target.with_suffix(".ipynb.new")
        nbformat.write(tidy, aside)
        aside.replace(target)
    return outcome


def tidied(notebook: Any) -> Any:
    """An executed notebook as it is committed: a second run without a change gives nearly the same file.

    Args:
        notebook: an executed notebook, as nbformat reads it; changed in place.

    Returns:
        the same object, without papermill's cells and records, times, widget state, versions and absolute paths.
    """
    notebook.cells = [cell for cell in notebook.cells if not _NOT_OURS & set(cell.metadata.get("tags", ()))]
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = [_tidied_output(output) for output in cell.outputs if _says_something(output)]
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def _says_something(output: Any) -> bool:
    return output.output_type not in ("display_data", "execute_result") or set(output.data) - {_WIDGET} != set()


def _tidied_output(output: Any) -> Any:
    if "data" in output:
        output.data.pop(_WIDGET, None)
    places_here = {str(places.ROOT): "."}
    if len(Path.home().parts) > 1:  # in some containers it is the root of the file system
        places_here[str(Path.home())] = "~"
    if os.environ.get("PHI3KIT_CACHE"):
        places_here = {str(Path(os.environ["PHI3KIT_CACHE"])): "~/.cache/phi3kit", **places_here}
    return type(output)(_without(output, places_here))


def _without(value: Any, places_here: dict[str, str]) -> Any:
    if isinstance(value, str):
        for path, name in places_here.items():
            value = value.replace(path, name)
        return value
    if isinstance(value, dict):
        return type(value)({key: _without(inner, places_here) for key, inner in value.items()})
    return [_without(inner, places_here) for inner in value] if isinstance(value, list) else value
