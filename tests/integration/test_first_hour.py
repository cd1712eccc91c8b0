"""Obstacles of a first hour: each ends in one sentence, or the command succeeds all the same.

These tests take seconds. Whole installations are in `tests/first_hour.py`, which `make first-hour` runs.
"""

import http.server
import json
import os
import runpy
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
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


class CutOff(http.server.BaseHTTPRequestHandler):
    """An index with one package, whose connection ends in the middle of every wheel: by itself, or by a reset."""

    is_reset = False

    def do_GET(self):
        self.send_response(200)
        body = b'<a href="/torch-9.9.9-py3-none-any.whl">torch-9.9.9-py3-none-any.whl</a>'
        is_wheel = self.path.endswith(".whl")
        self.send_header("Content-Type", "application/zip" if is_wheel else "text/html")
        self.send_header("Content-Length", str(10**6 if is_wheel else len(body)))
        self.end_headers()
        self.wfile.write(body)
        if is_wheel and self.is_reset:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_):
        pass


@pytest.fixture(params=[False, True], ids=["cut off", "reset"])
def cut_off(request, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(CutOff, "is_reset", request.param)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), CutOff) as server:
        server.handle_error = lambda *_: None  # the reset is meant
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def test_a_connection_that_breaks_is_one_sentence(cut_off, tmp_path, monkeypatch, capfd):
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name, value in {"CONFIG_FILE": os.devnull, "INDEX_URL": cut_off, "NO_CACHE_DIR": "1", "RETRIES": "0"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    (tmp_path / "pins").write_text("torch==9.9.9\n", encoding="utf-8")
    module = runpy.run_path(str(ROOT / "install.py"))
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--target", str(tmp_path)]
    module["install_torch"].__globals__.update(
        PIP=pip, PYTHON=sys.executable, PINS=tmp_path / "pins", CPU_INDEX=cut_off
    )
    with pytest.raises(SystemExit, match=r"^the download broke off: check the network, then type"):
        module["install_torch"]()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.online  # it asks the package index for the sizes of the wheels
def test_the_stated_download_is_that_of_the_pins(tmp_path):
    from packaging import tags
    from packaging.utils import parse_wheel_filename

    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    # The index of torch's CPU builds tells no sizes; install.py says how large that one is.
    (tmp_path / "pins.txt").write_text(pins.replace("torch==", "# torch=="), encoding="utf-8")
    lock = tmp_path / "pylock.toml"
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml"]
    subprocess.run([*command, "pins.txt", "-o", lock.name], cwd=tmp_path, check=True)
    order = {tag: position for position, tag in enumerate(tags.sys_tags())}
    size = 0
    for package in tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]:
        wheels = []
        for wheel in package["wheels"]:
            fits = [order[tag] for tag in parse_wheel_filename(wheel["url"].rpartition("/")[2])[3] if tag in order]
            wheels += [(min(fits), wheel["size"])] if fits else []
        size += min(wheels)[1]
    stated = float(runpy.run_path(str(ROOT / "install.py"))["DOWNLOAD"].removesuffix(" GB"))
    assert stated == pytest.approx(size / 1e9 + 0.19, abs=0.06)


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
@pytest.mark.parametrize("status", [0, 1, 130])
def test_make_lab_obtains_tiny_and_opens_in_any_case(tmp_path, status):
    for program, code in {"phi3kit": status, "jupyter": 0}.items():
        (tmp_path / program).write_text(f'#!/bin/sh\necho {program} "$1" "$2" "$3" >> done\nexit {code}\n')
        (tmp_path / program).chmod(0o755)
    command = ["make", "--old-file=install", f"--file={ROOT / 'Makefile'}", "lab", f"BIN={tmp_path}"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "done").read_text().splitlines() == [
        "phi3kit weights fetch tiny",
        "jupyter lab --notebook-dir=notebooks ",
    ]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_lab_takes_another_port_and_asks_nothing(tmp_path, tiny_onnx):
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
            env=environment(**folders, HOME=tmp_path, PHI3KIT_CACHE=tiny_onnx.parents[1]),
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
