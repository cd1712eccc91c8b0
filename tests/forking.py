"""Run code in a fresh process that is forked from one with slow packages loaded: seconds faster than a start.

The kit is not among those packages, nor what reads its environment once, when it is imported.
"""

import atexit
import functools
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

HUB = "filelock, httpx, onnx, platformdirs, rich.progress, tqdm.auto, tqdm.contrib.concurrent, typing_extensions, yaml"
MLFLOW = "mlflow.pyfunc, mlflow.store.tracking.sqlalchemy_store"  # reads the address of its store at each use
TIMEOUT = 600  # seconds

SERVER = """
import json, os, sys
import {packages}
for line in sys.stdin:
    request = json.loads(line)
    if not (pid := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
os.chdir(request["cwd"])
os.environ.clear()
os.environ.update(request["env"])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, path in enumerate(request["streams"], 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv = ["-c", *request["arguments"]]
sys.path[:0] = request["env"].get("PYTHONPATH", "").split(os.pathsep)
exec(request["code"], {{"__name__": "__main__"}})
"""


def run(
    code: str, *arguments: str, env: dict[str, str], packages: str = HUB, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Do what `python -c code arguments` does, with output captured, and fail after `TIMEOUT`."""
    if not hasattr(os, "fork"):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    with tempfile.TemporaryDirectory() as folder:
        streams = [str(Path(folder, name)) for name in ("stdout", "stderr")]
        request = {"code": code, "arguments": arguments, "env": env, "streams": streams, "cwd": str(cwd or Path.cwd())}
        server = _server(packages)
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], TIMEOUT)[0]:
            _kill(server)
            written = "".join(Path(path).read_text() for path in streams if Path(path).exists())
            raise AssertionError(f"No end within {TIMEOUT} s:\n{written}")
        returncode = int(server.stdout.readline())
        output, errors = (Path(path).read_text() for path in streams)
        return subprocess.CompletedProcess([code, *arguments], returncode, output, errors)


def _kill(server: subprocess.Popen[str]) -> None:
    """Kill a server and all that it started; the next call starts a new one."""
    process = psutil.Process(server.pid)
    for each in (process, *process.children(recursive=True)):
        each.kill()
    _server.cache_clear()


@functools.cache
def _server(packages: str) -> subprocess.Popen[str]:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", SERVER.format(packages=packages)], **streams)
    atexit.register(server.communicate)
    return server
