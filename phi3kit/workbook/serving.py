"""`mlflow models serve`, started for a while: wait until it answers, and end all of it afterwards.

A process between, which is this module run as a program, ends the server also when whoever started it was killed.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import httpx
import psutil

from phi3kit.errors import Phi3KitError


class ServerFailed(Phi3KitError):
    """The server ended, or did not answer in time; the message ends with the last lines of its log."""


@contextmanager
def serve(model_uri: str, timeout: float = 120.0) -> Iterator[str]:
    """Serve a logged model on a free loopback port and give the server's URL.

    Args:
        model_uri: as `log_model` returned it, or `models:/name@alias`.
        timeout: seconds to wait for `/ping`.

    Raises:
        ServerFailed: when the server ends before it answers, or does not answer in time.
    """
    import mlflow

    port = free_port()
    # This interpreter's own MLflow, whatever PATH says.
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model_uri, "-p", str(port)]
    watched = [sys.executable, "-m", __name__, *command, "--env-manager", "local"]
    # MLflow starts `uvicorn` by name; a kernel's PATH need not hold the environment that it runs in.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    environment["HF_HUB_OFFLINE"] = "1"  # a logged model is whole; MLflow's pipeline would ask a hub at each `stop`
    print(f"$ mlflow models serve -m {model_uri} -p {port} --env-manager local")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        server = subprocess.Popen(watched, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(server, f"http://127.0.0.1:{port}/ping", timeout, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _end(server)


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
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
    why = (
        f"ended with exit code {server.returncode}" if server.poll() is not None else f"gave no answer in {timeout:g} s"
    )
    raise ServerFailed(f"The server {why}. The end of its log:\n{tail}")


def _end(server: subprocess.Popen) -> None:
    """End the server and what it started: on most systems `mlflow` is a parent of the process that listens."""
    try:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in reversed(family):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait()


def _watch(command: list[str]) -> int:
    """Run a command to its end, or until our standard input ends, as it does when its other side is gone."""

    def until_alone() -> None:
        sys.stdin.read()
        _end(server)

    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=until_alone, daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    sys.exit(_watch(sys.argv[1:]))
