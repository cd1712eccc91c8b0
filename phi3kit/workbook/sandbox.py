"""Run a notebook that somebody else wrote: apart from everything of one's own, within limits, without the network.

What runs for ever, eats memory or prints without end is ended, and calls to the network are refused; the run's store
and files lie in a temporary folder, and passwords are kept out of its environment. It is no jail: the code may still
read and write every file that whoever starts it may. For people whom you would not let use your computer, take another.
"""

import json
import os
import re
import site
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3kit.doctor import SECRET
from phi3kit.weights import store
from phi3kit.workbook import keeper, network

# Secrets by other names; proxies, which often carry a password; what would lead to files of one's own.
_KEPT_BACK = re.compile("PASS|AUTH|PROXY|^(HF|JPY|JUPYTER|MLFLOW|XDG)_", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"://\S*@")
_SPARE = 60  # seconds beyond the limits in which the keeper should have ended all


@dataclass(frozen=True)
class Ran:
    """What came of a notebook.

    Attributes:
        notebook: with its outputs, as far as it came.
        troubles: sentences about the first cell that failed, and those that were stopped or wanted the network.
    """

    notebook: Any
    troubles: list[str]


def run(notebook: Any, limits: keeper.Limits | None = None) -> Ran:
    """Run a notebook's cells in the sandbox, also those after a cell that failed.

    Args:
        notebook: as nbformat reads it; stays as it is.
        limits: other ones than the default.
    """
    import nbformat

    limits = limits or keeper.Limits()
    with tempfile.TemporaryDirectory(prefix="phi3kit-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        for each in ("home", "temporary", "hook"):
            (folder / each).mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(network.HOOK, encoding="utf-8")
        kept = folder / keeper.RAN
        kept.write_text(json.dumps({"notebook": notebook, "troubles": [], "over": False}), encoding="utf-8")
        if not _keep(folder, limits):
            return Ran(notebook, ["It did not end within its limits, and was ended from outside."])
        ran = json.loads(kept.read_text(encoding="utf-8"))
        if not ran["over"]:
            said = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()[-400:]
            ran["troubles"].append(
                f"It was ended from outside, most often because memory ran out. It said last: {said}"
            )
    return Ran(nbformat.from_dict(ran["notebook"]), ran["troubles"])


def _keep(folder: Path, limits: keeper.Limits) -> bool:
    """Start the keeper, and stay until all is over, also when Ctrl-C comes; say whether the keeper ended in time."""
    command = [sys.executable, "-m", keeper.__name__, str(folder), json.dumps(asdict(limits))]
    if not network.refused():
        command.append("cut")
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment(os.environ, folder), cwd=folder
        )
        try:
            process.wait(limits.whole + limits.grace + _SPARE)
            return True
        except subprocess.TimeoutExpired:  # its own limits have not ended it; the folder goes with it
            return False
        finally:
            process.stdin.close()  # the sign to end all that runs
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def environment(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment variables of the sandbox.

    Args:
        given: the environment to start from.
        folder: the sandbox's own.

    Returns:
        the same without what looks like a secret, with a home, a folder for temporary files and a store of its own,
        the models where they are, and the hook that refuses the network in every Python.
    """
    from huggingface_hub import constants

    kept = {
        name: value
        for name, value in given.items()
        if not (SECRET.search(name) or _KEPT_BACK.search(name) or _WITH_PASSWORD.search(value))
    }
    return {
        **kept,
        **dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(folder / "home")),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "temporary")),
        "MLFLOW_TRACKING_URI": f"sqlite:///{(folder / 'mlflow.db').as_posix()}",
        "PHI3KIT_CACHE": str(store.root()),
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,  # not HF_HOME: the token lies there
        "HF_HUB_OFFLINE": "1",  # when a library would ask the hub, that is not the learner's doing
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "hook"), kept.get("PYTHONPATH")])),
        network.NOTES: str(folder / keeper.CALLS),
        network.REFUSE: "1",
    }
