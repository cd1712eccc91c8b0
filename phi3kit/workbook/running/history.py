"""How each run ended and how long it took, in a small file beside the executed notebook."""

import contextlib
import json
from pathlib import Path

from phi3kit.workbook.running import paths

FILE = "outcome.json"


def note(executed: Path, verdict: str, seconds: float, model: object) -> None:
    """Keep a run's verdict, its time and the model that it ran with.

    Args:
        executed: the executed notebook.
        verdict: as in `runner.Outcome`.
        seconds: from the start of the kernel to its end.
        model: the parameter `model`; None where the notebook has none.
    """
    record = {"verdict": verdict, "seconds": seconds, "model": model}
    executed.with_name(FILE).write_text(json.dumps(record, default=str), encoding="utf-8")


def last_seconds(name: str, model: object) -> float | None:
    """The time of the last run that ended well; None if there is none.

    Args:
        name: the notebook's file name.
        model: the parameter `model`: a large model takes many times as long as a small one.
    """
    for file in sorted(paths.RUNS.glob(f"*/{FILE}"), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(file.read_text(encoding="utf-8"))
            if file.with_name(name).is_file() and (record["verdict"], record["model"]) == ("ok", model):
                return float(record["seconds"])
    return None
