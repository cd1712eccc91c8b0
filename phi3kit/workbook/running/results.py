"""Named results of a notebook: a cell writes them with `record`, and `read` reads them from the executed file.

The cell's outputs hold them under a media type of their own, which no front end displays.
"""

from pathlib import Path
from typing import Any

from phi3kit.errors import InvalidRequest

MEDIA_TYPE = "application/vnd.phi3kit.result+json"


def record(**results: Any) -> None:
    """Store named results in the outputs of the notebook cell that calls this; outside a notebook, do nothing.

    Args:
        results: values that JSON can hold. NumPy's numbers are converted to plain ones.

    Raises:
        InvalidRequest: a value that JSON cannot hold.
    """
    import json
    import sys

    plain = {name: value.item() if hasattr(value, "item") else value for name, value in results.items()}
    for name, value in plain.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            allowed = "text, a finite number, true, false, none, or lists and dicts of these"
            raise InvalidRequest(name, value, allowed) from None
    ipython = sys.modules.get("IPython")  # a running kernel has imported it
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display

        display({MEDIA_TYPE: plain}, raw=True)


def read(notebook: str | Path) -> dict[str, Any]:
    """Return all results that an executed notebook recorded, by name; a later one replaces an earlier one.

    Args:
        notebook: an executed notebook's file.
    """
    import nbformat

    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return {name: value for output in outputs for name, value in output.get("data", {}).get(MEDIA_TYPE, {}).items()}
