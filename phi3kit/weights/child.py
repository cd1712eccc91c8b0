"""A Python module run in a process of its own, which ends when ours does: a kill of ours leaves nobody at work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# The child reads from a pipe that nobody writes to; it closes when we are gone, whatever ended us.
_WATCHED = """
import os, runpy, sys, threading
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(module: str, *arguments: str, scratch: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments`, and return when it has ended.

    Args:
        module: as `-m` names it.
        arguments: on its command line.
        scratch: its working directory, from which nobody else's modules can be imported, and where it puts whatever
            it calls temporary.
        options: of `subprocess.run`; `env` is added to our own environment.
    """
    theirs, ours = os.pipe()
    env = os.environ | {"TMPDIR": str(scratch), "PYTHONUTF8": "1"} | options.pop("env", {})
    told = {"encoding": "utf-8", "errors": "replace"}
    try:
        command = [sys.executable, "-c", _WATCHED, module, *arguments]
        return subprocess.run(command, stdin=theirs, cwd=scratch, env=env, check=False, **told, **options)
    finally:
        os.close(theirs)
        os.close(ours)
