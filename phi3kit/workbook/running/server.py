"""`mlflow models serve` for the length of a `with` block: wait until the server answers, and end it afterwards."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import httpx

from phi3kit.errors import Phi3KitError
from phi3kit.system import process


class ServerFailed(Phi3KitError):
    """The server ended, or did not answer in time; the message ends with the last lines of its log."""


@contextmanager
def serve(model_uri: str, timeout: float = 120.0) -> Iterator[str]:
    """Serve a logged model on a free loopback port and yield the server's URL.

    The server ends with the block, and also when this process is killed.

    Args:
        model_uri: as `log_model` returned it, or `models:/name@alias`.
        timeout: seconds to wait for `/ping`.

    Raises:
        ServerFailed: the server ended before it answered, or did not answer in time.
    """
    import mlflow

    port = _free_port()
    arguments = ["models", "serve", "-m", model_uri, "-p", str(port), "--env-manager", "local"]
    # MLflow starts `uvicorn` by name; a kernel's PATH need not hold the environment that it runs in.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    environment["HF_HUB_OFFLINE"] = "1"  # a logged model is complete; MLflow's pipeline would ask a hub at each `stop`
    print(f"$ mlflow {' '.join(arguments)}")
    command = [*process.PYTHON, "-m", "mlflow", *arguments]  # this interpreter's MLflow, whatever PATH says
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        process.start(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as server,
    ):
        _wait(server, f"http://127.0.0.1:{port}/ping", timeout, log)
        yield f"http://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(server: subprocess.Popen, url: str, timeout: float, log: TextIO) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    log.seek(0)
    tail = "\n".join(log.read().splitlines()[-8:])
    reason = f"gave no answer in {timeout:g} s" if server.poll() is None else f"ended with exit code {server.poll()}"
    raise ServerFailed(f"The server {reason}. The end of its log:\n{tail}")
