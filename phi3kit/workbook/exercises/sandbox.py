"""Run a notebook of another author: in a folder of its own, within limits, and without the network.

The sandbox ends code that runs for ever, uses too much memory or prints too much, and refuses calls to the network. The
store and the files of the run are in a temporary folder, and its environment holds no passwords. This is a protection
from accidents, not a jail: the code can read and write every file that the user who starts it can. Run notebooks of
authors that you do not trust on another computer.
"""

import contextlib
import json
import os
import re
import site
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3kit import tracking
from phi3kit.doctor import SECRET
from phi3kit.system import process
from phi3kit.weights import store
from phi3kit.workbook.exercises import network, supervisor

# Other names of secrets; proxies, whose addresses often hold a password; variables that lead to the user's own files.
_PRIVATE = re.compile("PASS|AUTH|PROXY|^(HF|JPY|JUPYTER|MLFLOW|XDG)_", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"://\S*@")
Progress = Callable[[int, int], None]  # takes the number of the cell that runs, and the number of all
SPARE = 60.0  # seconds after its limits in which the supervisor has to end


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        notebook: with the outputs of the cells that ran.
        problems: sentences about the first cell that failed, and about cells that were stopped or tried the network.
    """

    notebook: Any
    problems: list[str]


def run(notebook: Any, limits: supervisor.Limits | None = None, progress: Progress | None = None) -> Result:
    """Run a notebook's cells in the sandbox, including those after a cell that failed.

    Args:
        notebook: as nbformat reads it; it is not changed.
        limits: other limits than the default.
        progress: called while a cell runs, several times a second.
    """
    import nbformat

    limits = limits or supervisor.Limits()
    with tempfile.TemporaryDirectory(prefix="phi3kit-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        for subfolder in ("home", "temporary", "hook"):
            (folder / subfolder).mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(network.HOOK, encoding="utf-8")
        state = folder / supervisor.STATE
        state.write_text(json.dumps({"notebook": notebook, "problems": [], "finished": False}), encoding="utf-8")
        if not _supervise(folder, limits, progress or (lambda *_: None)):
            return Result(notebook, ["It did not end within its limits, and was ended from outside."])
        result = json.loads(state.read_text(encoding="utf-8"))
        if not result["finished"]:
            log = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()[-400:]
            problem = f"It was ended from outside, most often because memory ran out. The end of its log: {log}"
            result["problems"].append(problem)
    return Result(nbformat.from_dict(result["notebook"]), result["problems"])


def _supervise(folder: Path, limits: supervisor.Limits, progress: Progress) -> bool:
    """Run the supervisor to its end, and return whether it ended in time."""
    command = [*process.PYTHON, "-m", supervisor.__name__, str(folder), json.dumps(asdict(limits))]
    if not network.refusal():
        command.append("isolated")
    variables, cells = environment(os.environ, folder), folder / supervisor.CELLS
    end = time.monotonic() + limits.whole + limits.grace + SPARE
    with (
        (folder / "log").open("w", encoding="utf-8") as log,
        process.start(command, stdout=log, stderr=log, env=variables, cwd=folder) as watcher,
    ):
        while watcher.poll() is None:
            if time.monotonic() > end:
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                watcher.wait(0.2)
            if lines := cells.read_text(encoding="ascii").splitlines() if cells.exists() else ():
                progress(*map(int, lines[-1].split()))
    return True


def environment(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment variables of the sandbox.

    Args:
        variables: the environment to start from.
        folder: the sandbox's own.

    Returns:
        the variables without those that may be secret; with a home, a folder for temporary files and a store inside
        `folder`, the caches of the models, and the hook that refuses the network in every Python.
    """
    from huggingface_hub import constants

    public = {
        name: value
        for name, value in variables.items()
        if not (SECRET.search(name) or _PRIVATE.search(name) or _WITH_PASSWORD.search(value))
    }
    return {
        **public,
        **dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(folder / "home")),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "temporary")),
        "MLFLOW_TRACKING_URI": tracking.sqlite_address(folder / "mlflow.db"),
        "PHI3KIT_CACHE": str(store.root()),
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,  # not HF_HOME: the token is in that folder
        "HF_HUB_OFFLINE": "1",  # a library's own request to the hub is no call of the learner's
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "hook"), public.get("PYTHONPATH")])),
        network.NOTES: str(folder / supervisor.CALLS),
        network.REFUSE: "1",
    }
