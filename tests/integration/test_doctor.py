"""The doctor and the estimates, with `tiny` and real stores."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import Hub

from phi3kit import weights
from phi3kit.doctor import checks, examine, fit
from phi3kit.weights import Form, cached

pytestmark = pytest.mark.tiny
FORMS = pytest.mark.parametrize("form", Form)


@pytest.fixture(scope="module")
def folders(tiny_onnx) -> dict[Form, Path]:
    return {Form.CHECKPOINT: weights.checkpoint("tiny"), Form.ONNX: tiny_onnx}


@pytest.fixture(scope="module")
def report(folders, tmp_path_factory) -> dict:
    """The report of the command, with the process's `returncode`, `stdout`, `stderr` and the hub's `requests`."""
    folder = tmp_path_factory.mktemp("report")
    secrets = {"HF_TOKEN": "hf_thisisasecret", "https_proxy": "http://ada:hunter22@127.0.0.1:1"}
    store = f"sqlite:///{(folder / 'none.db').as_posix()}"
    with Hub(folder) as hub:
        others = {"NO_PROXY": "127.0.0.1", "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "MLFLOW_TRACKING_URI": store}
        command = [sys.executable, "-m", "phi3kit.cli", "doctor", "--json"]
        streams = {"capture_output": True, "text": True, "encoding": "utf-8"}
        result = subprocess.run(command, env=os.environ | secrets | others, check=False, **streams)
        return json.loads(result.stdout) | vars(result) | {"requests": [path for _, path in hub.requests]}


def test_a_report_has_a_finding_of_every_check(report):
    assert {finding["name"] for finding in report["findings"]} == set(checks.ALL)


def test_everything_to_fix_has_a_remedy(report):
    assert [one for one in report["findings"] if one["verdict"] == "fix" and not one["remedy"]] == []


def test_the_exit_code_tells_whether_all_is_well(report):
    assert (report["returncode"], report["stderr"]) == (0 if report["healthy"] else 1, "")


def test_the_hub_is_asked_once(report):
    assert report["requests"] == ["/"]


@pytest.mark.parametrize("model", ["tiny, checkpoint, 0.27 GB", "tiny, onnx, 0.12 GB"])
def test_both_forms_of_tiny_are_reported(report, model):
    models = [one["what"] for one in report["findings"] if (one["name"], one["verdict"]) == ("Models", "ok")]
    assert model in [what.rpartition(",")[0] for what in models]


@pytest.mark.parametrize("secret", ["hunter22", "thisisasecret", rf"{re.escape(str(Path.home()))}\b"])
def test_a_report_shows_no_secret(report, secret):
    assert not re.search(secret, report["stdout"])


def test_a_database_of_an_older_mlflow_is_to_be_upgraded(tmp_path, monkeypatch):
    older = (Path(__file__).parent / "mlflow_2_16.sql").read_text(encoding="utf-8")
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.executescript(older)
    database.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    (finding,) = examine({"Tracking": checks.tracking_store})
    assert (finding.verdict, "older MLflow" in finding.what) == ("fix", True)
    assert finding.remedy.startswith("Copy it to mlflow-before.db, then type `mlflow db upgrade ")


@FORMS
def test_tiny_is_listed_as_current_and_whole(folders, form):
    (item,) = [item for item in cached.list_cached() if item.folder == folders[form]]
    assert (item.name, item.form, item.obsolete, item.lacks, cached.damage(item)) == ("tiny", form, False, None, None)


@FORMS
def test_the_catalog_agrees_with_the_folder(folders, form):
    (listed,) = [needs for needs in fit.list_needs(weights.CATALOG["tiny"]) if needs.form is form]
    read = fit.list_needs(weights.resolve(folders[form]))[0]
    assert (read.form, read.layers, read.read) == (form, listed.layers, pytest.approx(listed.read, rel=0.01))


@FORMS
def test_the_speed_of_tiny_is_measured(folders, form):
    assert fit.measure(form, folders[form], tokens=8) > 0
