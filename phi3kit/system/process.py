"""Start, watch, measure and end processes.

Every command runs under a watcher: this module, run as a program. The watcher reads a pipe to which nothing is
written. The pipe closes when the process that started the watcher ends, for whatever reason, a kill included; the
watcher then ends the command and everything that the command started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

GRACE = 10.0  # seconds between the request to end and the kill
PYTHON = (sys.executable, "-P")  # -P: a module in the working directory does not hide an installed one
_PR_SET_CHILD_SUBREAPER = 36  # from Linux's <sys/prctl.h>


@contextlib.contextmanager
def start(
    command: Sequence[str],
    *,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start a command under a watcher, and end it with everything that it started when the block is left.

    Args:
        command: the program and its arguments.
        stdout: as `subprocess.Popen` takes it.
        stderr: as `subprocess.Popen` takes it.
        cwd: the command's working directory; this process's own by default.
        env: the command's environment; this process's own by default.

    Yields:
        the watcher's process. It exits with the command's exit code, 128 + N if signal N ended the command.
    """
    read_end, write_end = os.pipe()
    watched = [*PYTHON, "-m", __name__, *command]
    text = {"encoding": "utf-8", "errors": "replace"}
    try:
        process = subprocess.Popen(watched, stdin=read_end, stdout=stdout, stderr=stderr, cwd=cwd, env=env, **text)
    except BaseException:
        os.close(write_end)
        raise
    finally:
        os.close(read_end)
    try:
        yield process
    finally:
        os.close(write_end)
        try:
            process.wait(3 * GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(
    command: Sequence[str],
    *,
    scratch: Path,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `start` does.

    Args:
        command: the program and its arguments.
        scratch: its working directory, and the folder for its temporary files.
        stdout: as `subprocess.run` takes it.
        stderr: as `subprocess.run` takes it.
        env: variables to add to this process's environment.
    """
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUTF8": "1"} | (env or {})
    with start(command, stdout=stdout, stderr=stderr, cwd=scratch, env=environment) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(list(command), process.returncode, output, errors)


def resident(pid: int) -> int:
    """The bytes of resident memory that the descendants of a process hold together."""
    total = 0
    for process in _descendants(pid):
        with contextlib.suppress(_psutil().Error):
            total += process.memory_info().rss
    return total


def end_descendants(grace: float = GRACE) -> None:
    """Ask everything that this process started to end, and kill what is left after `grace` seconds."""
    psutil = _psutil()
    for seconds in (grace, 0, 0, 0, 0):  # a process started during one round is found, and killed, in the next
        family = _descendants(os.getpid())
        if not family:
            return
        for process in family if seconds else ():
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in psutil.wait_procs(family, timeout=seconds)[1]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=3)


def adopt_orphans() -> None:
    """On Linux, become the parent of descendants whose own parent ends, so that `end_descendants` finds them."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _descendants(pid: int) -> list[Any]:
    """All descendants, parents first, so that a server gets the signal before its workers."""
    psutil = _psutil()
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _psutil() -> Any:
    import psutil

    return psutil


def _watch(command: list[str]) -> int:
    """Run the command until it ends or standard input does, then end what is left of it."""

    def end_when_alone() -> None:
        while os.read(0, 1024):
            pass
        end_descendants()

    # The command gets Ctrl-C itself. A handler, unlike SIG_IGN, is not inherited by it.
    signal.signal(signal.SIGINT, lambda *_: None)
    adopt_orphans()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=end_when_alone, daemon=True).start()
    code = process.wait()
    end_descendants()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_watch(sys.argv[1:]))
