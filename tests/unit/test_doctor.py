"""The doctor: each check on a machine with the fault that it looks for, what no finding may show, and the command."""

import contextlib
import getpass
import json
import os
import socket
import sqlite3
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from phi3kit import tracking
from phi3kit.cli import app
from phi3kit.doctor import checks, examine, redact
from phi3kit.system import machine


def findings(check) -> list[tuple[str, str, str]]:
    """The findings of one check, as a person would see them: verdict, what, remedy."""
    return [(one.verdict, one.what, one.remedy) for one in examine({"it": check})]


@pytest.fixture
def closed() -> int:
    """A port on which nothing listens."""
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
        threading.Thread(target=serving.serve_forever, args=[0.01], daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def url(server, monkeypatch) -> str:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return f"http://127.0.0.1:{server.server_port}"


# The frame of the checks.


def fail():
    raise RuntimeError("two\nlines")
    yield


def test_a_check_that_raises_is_a_finding():
    ((verdict, what, remedy),) = findings(fail)
    assert (verdict, what, bool(remedy)) == ("fix", "could not be checked: RuntimeError: two lines", True)


def test_a_check_that_hangs_is_a_finding():
    forever = threading.Event()
    (finding,) = examine({"hang": forever.wait}, timeout=0.1)
    forever.set()
    assert (finding.verdict, finding.what, bool(finding.remedy)) == ("fix", "gave no answer in 0.1 s", True)


def test_the_checks_after_a_failed_one_run():
    assert [one.name for one in examine({"fail": fail, "well": lambda: [("ok", "fine", "")]})] == ["fail", "well"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://ada:p@ss/w@db.example/mlflow?sslkey=1", "postgresql://db.example/mlflow"),
        ("sqlite:////homes/ada/x y/mlflow.db", "sqlite:///~/x y/mlflow.db"),
        ("sqlite:////srv/a@b/mlflow.db", "sqlite:////srv/a@b/mlflow.db"),
        ("'postgresql://db.example/mlflow?sslkey=1' is", "'postgresql://db.example/mlflow' is"),
        ("/homes/adam/x", "/homes/adam/x"),
        ("/media/ada/disk and /media/ada", "/media/<user>/disk and /media/<user>"),
        ("401 for hf_abcdefgh", "401 for ***"),
    ],
)
def test_passwords_tokens_home_and_user_are_redacted(monkeypatch, text, expected):
    for name, value in {"HOME": "/homes/ada", "USERPROFILE": "/homes/ada", "HF_TOKEN": "hf_abcdefgh"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert redact(text) == expected


def test_a_proxy_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "ada:hunter22@proxy.example:3128")
    ((_, what, _),) = findings(checks.proxies)
    assert ("https=proxy.example:3128" in what, "hunter22" in what) == (True, False)


# Packages.


def test_the_installed_packages_are_the_tested_ones():
    ((verdict, what, _),) = findings(checks.packages)
    assert (verdict, "mlflow 3." in what) == ("ok", True), what


def test_without_a_checkout_there_are_no_pins(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "ROOT", tmp_path)
    ((verdict, what, _),) = findings(checks.packages)
    assert (verdict, "no checkout here" in what) == ("note", True)


class TestPins:
    """A checkout whose pins differ from what is installed."""

    @pytest.fixture(autouse=True)
    def pins(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tracking, "ROOT", tmp_path)
        pins = "# made by\nnumpy==1.0 \\\n    --hash=sha256:00\nabsent-thing==2.0\nrich>=1\n"
        (tmp_path / "requirements.txt").write_text(f"{pins}elsewhere==1 ; sys_platform == 'x'\n")

    def test_other_and_missing_versions_are_named(self):
        ((verdict, what, _),) = findings(checks.packages)
        assert verdict == "fix"
        assert "instead of ==1.0, absent-thing missing instead of ==2.0" in what

    @pytest.mark.parametrize("name", ["rich", "elsewhere"])
    def test_versions_that_are_right_are_not_named(self, name):
        assert name not in findings(checks.packages)[0][1]

    def test_the_remedy_is_pip_in_an_environment_of_ones_own(self):
        assert findings(checks.packages)[0][2].endswith("python -m pip install -r requirements.txt")

    def test_the_remedy_is_the_installer_in_its_environment(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
        python = "python" if os.name == "nt" else "python3"
        assert findings(checks.packages)[0][2].endswith(f"in the repository's folder: {python} install.py")

    def test_without_an_extra_missing_packages_are_no_fault(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        (extra, pins) = findings(checks.packages)
        assert extra == ("note", "without the extras checkpoint", "If wanted: pip install 'phi3kit[checkpoint]'")
        assert "absent-thing" not in pins[1]


# The machine.


@pytest.mark.parametrize("check", [checks.python, checks.cpu, checks.memory], ids=lambda check: check.__name__)
def test_this_machine_needs_no_fix(check):
    assert [verdict for verdict, _, _ in findings(check)] != ["fix"]


def test_without_torch_the_processor_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    ((verdict, what, _),) = findings(checks.cpu)
    assert (verdict, what.endswith("unknown without torch")) == ("ok", True)


# What computes besides the processor.


@pytest.fixture
def gpu(monkeypatch):
    """Let torch see this GPU."""
    return lambda name: monkeypatch.setattr(machine, "gpu", lambda: name)


@pytest.fixture
def cuda_packages(tmp_path, monkeypatch) -> None:
    """The packages for CUDA, beside ours."""
    for name in ("onnxruntime_genai_cuda", "onnxruntime_gpu"):
        info = tmp_path / "site" / f"{name}-9.9.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_the_execution_providers_are_listed():
    assert findings(checks.accelerators)[0][:2] == ("ok", "onnxruntime-genai and onnxruntime have Azure, CPU")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, ("ok", "no torch to look for a GPU")),
        ("", ("ok", "torch sees no GPU")),
        ("mps", ("ok", "torch sees mps")),
        ("cuda, H1", ("note", "torch sees cuda, H1, and onnxruntime-genai and onnxruntime do not")),
    ],
)
def test_torchs_gpu_is_told(gpu, seen, expected):
    gpu(seen)
    assert findings(checks.accelerators)[1][:2] == expected


def test_a_gpu_that_onnx_models_do_not_use_has_a_remedy(gpu):
    gpu("cuda, H1")
    assert "pip install onnxruntime-genai-cuda==" in findings(checks.accelerators)[1][2]


@pytest.mark.usefixtures("cuda_packages")
def test_packages_for_two_targets_are_to_be_fixed():
    verdict, what, remedy = findings(checks.accelerators)[0]
    assert (verdict, "onnxruntime-genai-cuda" in what) == ("fix", True)
    assert "pip uninstall -y onnxruntime-genai onnxruntime onnxruntime-genai-cuda onnxruntime-gpu" in remedy


@pytest.mark.usefixtures("cuda_packages")
def test_packages_for_a_gpu_are_not_compared_with_the_pins():
    ((verdict, what, _),) = findings(checks.packages)
    assert (verdict, "onnxruntime-genai 9.9 (onnxruntime-genai-cuda)" in what) == ("ok", True), what


def test_threads_that_are_no_number_are_to_be_fixed(monkeypatch):
    monkeypatch.setenv("PHI3KIT_THREADS", "many")
    verdict, what, remedy = findings(checks.cpu)[0]
    assert (verdict, "PHI3KIT_THREADS=many" in what, "a whole number" in remedy) == ("fix", True, True)


def test_threads_that_are_a_number_are_shown(monkeypatch):
    monkeypatch.setenv("PHI3KIT_THREADS", "1")
    ((_, what, _),) = findings(checks.cpu)
    assert "PHI3KIT_THREADS=1" in what


@pytest.fixture
def absent_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "not" / "yet"))


@pytest.mark.usefixtures("absent_cache")
def test_enough_disk_is_ok():
    assert {verdict for verdict, _, _ in findings(checks.disk)} == {"ok"}


@pytest.mark.usefixtures("absent_cache")
def test_a_nearly_full_disk_names_what_frees_some(monkeypatch):
    monkeypatch.setattr(checks, "RUN_DISK", 1e18)
    assert {(verdict, "phi3kit clean" in remedy) for verdict, _, remedy in findings(checks.disk)} == {("fix", True)}


@pytest.mark.usefixtures("absent_cache")
def test_a_nearly_full_disk_names_the_variable(monkeypatch):
    monkeypatch.setattr(checks, "RUN_DISK", 1e18)
    remedies = [remedy.rpartition(" ")[2] for _, _, remedy in findings(checks.disk)]
    assert remedies == ["PHI3KIT_CACHE.", "HF_HOME.", "repository."]


@pytest.mark.usefixtures("absent_cache")
def test_a_closed_disk_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    assert findings(checks.disk)[0][:2] == ("fix", f"{tmp_path} may not be written")


# Where runs are recorded, the ports, the hub.


@pytest.mark.parametrize(
    ("uri", "verdict", "part"),
    [
        ("http://127.0.0.1:{closed}", "fix", "does not answer (ConnectError)"),
        ("file:///tmp/mlruns", "fix", "no longer keeps a store in a folder"),
        ("./mlruns", "fix", "no longer keeps a store in a folder"),
        ("sqlite://", "fix", "a store in memory ends with its process"),
        ("databricks", "note", "databricks, not examined"),
        ("sqlite:///{folder}/none.db", "ok", "made at the first run"),
        ("sqlite:///{folder}/empty.db", "fix", "empty.db is no complete MLflow store"),
        ("sqlite+pysqlite:///{folder}/empty.db?timeout=5", "fix", "empty.db is no complete MLflow store"),
    ],
)
def test_a_tracking_store_that_does_not_work_has_a_remedy(tmp_path, monkeypatch, closed, uri, verdict, part):
    (tmp_path / "empty.db").write_text("not a database, by far")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(closed=closed, folder=tmp_path.as_posix()))
    ((actual, what, remedy),) = findings(checks.tracking_store)
    assert (actual, part in what, bool(remedy)) == (verdict, True, verdict == "fix"), what


def test_a_database_elsewhere_is_not_examined(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", types.ModuleType("psycopg"))  # its driver
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@db.example/x")
    assert findings(checks.tracking_store) == [("note", "postgresql://db.example/x, not examined", "")]


def test_a_tracking_server_that_answers_is_ok(url, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    assert findings(checks.tracking_store) == [("ok", f"{url} answers", "")]


def test_a_tracking_server_that_fails_is_to_be_fixed(server, url, monkeypatch):
    server.status = 500
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    assert findings(checks.tracking_store)[0][:2] == ("fix", f"{url} answers 500")


def test_a_locked_store_is_to_be_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("BEGIN EXCLUSIVE")
        ((verdict, what, remedy),) = findings(checks.tracking_store)
    assert (verdict, "database is locked" in what, remedy[:20]) == ("fix", True, "End what uses it or ")


@pytest.fixture
def used_port(server, tmp_path, monkeypatch, closed) -> int:
    """The port that MLflow's pages want, in use; JupyterLab's is `closed`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tracking, "ROOT", tmp_path / "my repo")
    monkeypatch.setattr(checks, "MLFLOW_PORT", server.server_port)
    monkeypatch.setattr(checks, "JUPYTER_PORT", closed)
    return server.server_port


def test_a_free_port_is_ok(used_port, closed):
    assert findings(checks.ports)[1] == ("ok", f"{closed} is free", "")


def test_a_port_in_use_is_a_note(used_port):
    assert findings(checks.ports)[0][:2] == ("note", f"{used_port} is in use")


def test_for_the_default_store_the_command_is_complete(used_port, monkeypatch):
    monkeypatch.setattr("phi3kit.tracking.store.ROOT", tracking.ROOT)
    command = f"mlflow ui --port {used_port + 1} --backend-store-uri sqlite:///mlflow.db"
    assert findings(checks.ports)[0][2] == f"In the repository's folder: {command}"


def test_for_another_store_the_command_names_the_variable(used_port, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'a b' / 'mine.db').as_posix()}")
    assert "with the address in MLFLOW_TRACKING_URI" in findings(checks.ports)[0][2]


@pytest.fixture
def hub(monkeypatch):
    """Set the hub's address."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return lambda address: monkeypatch.setattr(constants, "ENDPOINT", address)


def test_a_hub_that_answers_is_ok(hub, url):
    hub(url)
    assert findings(checks.hub) == [("ok", f"{url} answers (200)", "")]


def test_a_hub_out_of_reach_is_a_note(hub, url, closed):
    hub(f"http://127.0.0.1:{closed}")
    assert findings(checks.hub)[0][0] == "note"


def test_offline_the_hub_is_not_asked(hub, closed, monkeypatch):
    from huggingface_hub import constants

    hub(f"http://127.0.0.1:{closed}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not asked" in findings(checks.hub)[0][1]


def test_the_kit_turns_telemetry_off():
    assert findings(checks.telemetry) == [("ok", "off", "")]


def test_telemetry_that_is_on_is_a_note_with_its_variable(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    ((verdict, what, remedy),) = findings(checks.telemetry)
    assert (verdict, what, "ORT_DISABLE_TELEMETRY" in remedy) == ("note", "on for ONNX Runtime", True)


# The command.

WHAT, REMEDY = "some words about it " * 9, "type this and that, then try again " * 5


@pytest.fixture(params=[("ok", 0), ("note", 0), ("fix", 1)], ids=lambda param: param[0])
def report(request, monkeypatch) -> tuple[str, int]:
    """The second verdict of a report whose first verdict is ok, and the command's exit code."""
    verdict, _ = request.param
    two = {"First": lambda: [("ok", "fine", "")], "Two": lambda: [(verdict, WHAT, REMEDY)]}
    monkeypatch.setattr(checks, "ALL", two)
    return request.param


def call(*arguments: str):
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "80"})


def test_the_exit_code_is_1_if_anything_needs_fixing(report):
    assert call().exit_code == report[1]


def test_each_finding_begins_with_its_verdict(report):
    first, second, *_ = call().stdout.splitlines()
    assert (first, second[:21]) == ("ok    First: fine", f"{report[0]:<6}Two: some words")


@pytest.mark.usefixtures("report")
def test_the_remedy_follows_indented():
    lines = call().stdout.splitlines()[2:]
    assert {line[:6] for line in lines} == {" " * 6}
    assert sum(line[6:8] == "> " for line in lines) == 1


@pytest.mark.usefixtures("report")
def test_the_report_fits_80_columns():
    assert max(map(len, call().stdout.splitlines())) <= 80


def test_the_report_as_json(report):
    content = json.loads(call("--json").stdout)
    assert (set(content), content["healthy"]) == ({"phi3kit", "healthy", "findings"}, report[1] == 0)
    assert content["findings"][1] == {"name": "Two", "verdict": report[0], "what": WHAT, "remedy": REMEDY}


@pytest.mark.usefixtures("absent_cache")
def test_no_check_needs_an_extra(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for module in ("torch", "transformers", "onnx", "onnx_ir"):
        monkeypatch.setitem(sys.modules, module, None)
    assert [one.what for one in examine() if "could not be checked" in one.what] == []
