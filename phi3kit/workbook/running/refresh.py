"""Execute a committed notebook and keep its new outputs, except what belongs to one run or one machine."""

import os
from pathlib import Path
from typing import Any

from phi3kit.workbook.running import paths
from phi3kit.workbook.running.runner import Outcome, run

_WIDGET = "application/vnd.jupyter.widget-view+json"
_PAPERMILL_TAGS = {"injected-parameters", "papermill-error-cell-tag"}


def refresh(notebook: str | Path) -> Outcome:
    """Run a notebook with its own defaults and, if every cell succeeded, replace it by the executed one.

    Args:
        notebook: a notebook's file; unchanged when a cell failed.

    Returns:
        The outcome of the run.
    """
    import nbformat

    target = Path(notebook).resolve()
    outcome = run(target)
    if outcome.verdict == "ok":
        new = target.with_suffix(".ipynb.new")
        nbformat.write(tidy(nbformat.read(outcome.notebook, as_version=4)), new)
        new.replace(target)
    return outcome


def tidy(notebook: Any) -> Any:
    """Prepare an executed notebook for a commit, so that a second run gives nearly the same file.

    Args:
        notebook: an executed notebook, as nbformat reads it; changed in place.

    Returns:
        The same object, without papermill's cells and records, times, widget state, versions and absolute paths.
    """
    notebook.cells = [cell for cell in notebook.cells if not _PAPERMILL_TAGS & set(cell.metadata.get("tags", ()))]
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = [_tidy_output(output) for output in cell.outputs if not _is_widget(output)]
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def _is_widget(output: Any) -> bool:
    return output.output_type in ("display_data", "execute_result") and set(output.data) <= {_WIDGET}


def _tidy_output(output: Any) -> Any:
    if "data" in output:
        output.data.pop(_WIDGET, None)
    names = {str(paths.ROOT): "."}
    if len(Path.home().parts) > 1:  # in some containers it is the root of the file system
        names[str(Path.home())] = "~"
    if os.environ.get("PHI3KIT_CACHE"):
        names = {str(Path(os.environ["PHI3KIT_CACHE"])): "~/.cache/phi3kit", **names}
    return type(output)(_replace(output, names))


def _replace(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for path, name in names.items():
            value = value.replace(path, name)
        return value
    if isinstance(value, dict):
        return type(value)({key: _replace(inner, names) for key, inner in value.items()})
    return [_replace(inner, names) for inner in value] if isinstance(value, list) else value
