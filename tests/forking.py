"""Run code in a fresh process that is forked from one with common packages loaded: five times faster than a start.

huggingface_hub and phi3kit are not among those packages, since they read the environment when they are imported.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = """
import json, os, sys
import filelock, httpx, onnx, platformdirs, rich.progress, tqdm.auto, tqdm.contrib.concurrent, typing_extensions, yaml
for line in sys.stdin:
    request = json.loads(line)
    if not (pid := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
os.environ.clear()
os.environ.update(request["env"])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, path in enumerate(request["streams"], 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv = ["-c", *request["arguments"]]
exec(request["code"], {"__name__": "__main__"})
"""


def run(code: str, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Do what `python -c code arguments` does, with output captured."""
    if not hasattr(os, "fork"):
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        streams = [str(Path(folder, name)) for name in ("stdout", "stderr")]
        request = {"code": code, "arguments": arguments, "env": env, "streams": streams}
        server = _server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        returncode = int(server.stdout.readline())
        return subprocess.CompletedProcess(
            [code, *arguments], returncode, *(Path(path).read_text() for path in streams)
        )


@functools.cache
def _server() -> subprocess.Popen[str]:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", SERVER], **streams)
    atexit.register(server.communicate)
    return server
