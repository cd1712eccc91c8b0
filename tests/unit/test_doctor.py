"""The doctor: each check on a patient made ill on purpose, what no line may tell, and the command around it."""

import contextlib
import getpass
import json
import os
import socket
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from phi3kit import tracking
from phi3kit.cli import app
from phi3kit.doctor import checks, discreet, examine


def found(check) -> list[tuple[str, str, str]]:
    """What one check finds, as a person would see it."""
    return [(one.verdict, one.what, one.remedy) for one in examine({"it": check})]


@pytest.fixture
def closed() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server():
    """An HTTP server on loopback that answers every path with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.status = 200
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_check_that_raises_or_hangs_is_a_line_and_the_next_ones_are_made():
    def faint():
        raise RuntimeError("two\nlines")
        yield

    forever = threading.Event()
    ill = {"faint": faint, "hang": lambda: forever.wait(), "well": lambda: [("ok", "fine", "")]}
    faint, hang, well = examine(ill, patience=0.3)
    forever.set()
    assert (faint.verdict, faint.what) == ("fix", "could not be looked at: RuntimeError: two lines")
    assert (hang.verdict, hang.what) == ("fix", "gave no answer in 0.3 s")
    assert faint.remedy and hang.remedy
    assert (well.name, well.what) == ("well", "fine")


def test_no_line_tells_a_secret_the_home_folder_or_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/homes/ada")
    monkeypatch.setenv("USERPROFILE", "/homes/ada")
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(name, "ada")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    assert getpass.getuser() == "ada"
    for told, shown in {
        "postgresql://ada:p@ss/w@db.example/mlflow?sslkey=1": "postgresql://db.example/mlflow",
        "sqlite:////homes/ada/x y/mlflow.db": "sqlite:///~/x y/mlflow.db",
        "/homes/adam/x": "/homes/adam/x",
        "/media/ada/disk and /media/ada": "/media/<user>/disk and /media/<user>",
        "401 for hf_abcdefgh": "401 for ***",
    }.items():
        assert discreet(told) == shown
    monkeypatch.setenv("HTTPS_PROXY", "ada:hunter22@proxy.example:3128")
    ((verdict, what, _),) = found(checks.proxies)
    assert (verdict, "https=proxy.example:3128" in what, "hunter22" in what) == ("ok", True, False)


def test_packages_are_compared_with_the_pins_of_the_checkout(tmp_path, monkeypatch):
    ((verdict, what, _),) = found(checks.packages)
    assert (verdict, "mlflow 3." in what) == ("ok", True)
    monkeypatch.setattr(tracking, "ROOT", tmp_path)
    ((verdict, what, _),) = found(checks.packages)
    assert (verdict, "no checkout here" in what) == ("note", True)
    pins = "# made by\nnumpy==1.0 \\\n    --hash=sha256:00\nabsent-thing==2.0\nrich>=1\n"
    (tmp_path / "requirements.txt").write_text(f"{pins}elsewhere==1 ; sys_platform == 'x'\n")
    ((verdict, what, remedy),) = found(checks.packages)
    assert verdict == "fix"
    assert "numpy 2." in what and "instead of ==1.0, absent-thing missing instead of ==2.0" in what
    assert "rich" not in what and "elsewhere" not in what
    assert remedy.endswith(
        "in the repository's folder: with this environment active, python -m pip install -r requirements.txt"
    )
    monkeypatch.setattr(checks.sys, "prefix", str(tmp_path / ".venv"))
    ((_, _, remedy),) = found(checks.packages)
    assert remedy.endswith(": python install.py" if os.name == "nt" else ": python3 install.py")


def test_a_disk_that_is_nearly_full_or_closed_says_which_variable_names_another(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "not" / "yet"))
    assert {verdict for verdict, _, _ in found(checks.disk)} == {"ok"}
    monkeypatch.setattr(checks, "ROOM", 1e18)
    for (verdict, _, remedy), name in zip(found(checks.disk), ("PHI3KIT_CACHE", "HF_HOME", "repository"), strict=True):
        assert (verdict, name in remedy, "phi3kit clean" in remedy) == ("fix", True, True)
    monkeypatch.setattr(checks.os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    assert found(checks.disk)[0][1] == f"{tmp_path} may not be written"


@pytest.mark.parametrize(
    ("uri", "verdict", "told"),
    [
        ("http://127.0.0.1:{closed}", "fix", "does not answer (ConnectError)"),
        ("file:///tmp/mlruns", "fix", "is a folder"),
        ("./mlruns", "fix", "is a folder"),
        ("postgresql://me:secret@db.example/x", "note", "postgresql://db.example/x, not looked into"),
        ("sqlite:///{folder}/none.db", "ok", "made at the first run"),
        ("sqlite:///{folder}/empty.db", "fix", "empty.db holds no records"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_with_a_remedy(tmp_path, monkeypatch, closed, uri, verdict, told):
    (tmp_path / "empty.db").write_text("not a database, by far")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(closed=closed, folder=tmp_path.as_posix()))
    ((is_, what, remedy),) = found(checks.store_of_records)
    assert (is_, told in what, bool(remedy)) == (verdict, True, verdict == "fix")
    assert "secret" not in what


def test_a_server_of_records_and_the_hub_are_asked_once_each(server, monkeypatch, closed):
    from huggingface_hub import constants

    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert found(checks.store_of_records) == [("ok", f"{url} answers", "")]
    assert found(checks.hub) == [("ok", f"{url} answers (200)", "")]
    server.status = 500
    assert found(checks.store_of_records)[0][:2] == ("fix", f"{url} answers 500")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed}")
    assert found(checks.hub)[0][0] == "note"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not asked" in found(checks.hub)[0][1]


def test_a_store_that_another_keeps_locked_is_told_to_wait_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("BEGIN EXCLUSIVE")
        ((verdict, what, remedy),) = found(checks.store_of_records)
    assert (verdict, what.endswith("mlflow.db cannot be read now (database is locked)")) == ("fix", True)
    assert remedy == "End what uses it or check its permissions, then try again."


def test_a_port_in_use_is_a_note_with_another(server, tmp_path, monkeypatch, closed):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(tracking, "ROOT", tmp_path / "my repo")
    monkeypatch.setattr(checks, "MLFLOW", server.server_port)
    monkeypatch.setattr(checks, "JUPYTER", closed)
    taken, free = found(checks.ports)
    assert taken[:2] == ("note", f"{server.server_port} is taken")
    command = f"mlflow ui --port {server.server_port + 1} --backend-store-uri"
    assert taken[2] == f"In the repository's folder: {command} sqlite:///mlflow.db"
    assert free == ("ok", f"{closed} is free", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'a b' / 'mine.db').as_posix()}")
    assert found(checks.ports)[0][2] == f"{command} with the address in MLFLOW_TRACKING_URI after it"


def test_telemetry_that_somebody_turned_on_is_a_note(monkeypatch):
    assert found(checks.telemetry) == [("ok", "off", "")]
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    ((verdict, what, remedy),) = found(checks.telemetry)
    assert (verdict, what) == ("note", "on for ONNX Runtime")
    assert "ORT_DISABLE_TELEMETRY" in remedy


def test_the_rest_describes_this_machine():
    for check in (checks.python, checks.cpu, checks.memory):
        assert [verdict for verdict, _, _ in found(check)] != ["fix"]


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("note", 0), ("fix", 1)])
def test_the_command_ends_with_1_if_anything_needs_fixing_and_fits_80_columns(monkeypatch, verdict, code):
    what, remedy = "some words about it " * 9, "type this and that, then try again " * 5
    monkeypatch.setattr(
        checks, "ALL", {"First": lambda: [("ok", "fine", "")], "Two": lambda: [(verdict, what, remedy)]}
    )
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "80"})
    assert done.exit_code == code
    lines = done.stdout.splitlines()
    assert lines[:2] == ["ok    First: fine", lines[1]]
    assert lines[1].startswith(f"{verdict:<6}Two: some words")
    assert all(line.startswith("      ") for line in lines[2:]) and any(line[6:8] == "> " for line in lines[2:])
    assert max(map(len, lines)) <= 80

    told = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert set(told) == {"phi3kit", "healthy", "findings"}
    assert told["healthy"] is (code == 0)
    assert told["findings"][1] == {"name": "Two", "verdict": verdict, "what": what, "remedy": remedy}
