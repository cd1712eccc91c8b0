"""The doctor and the estimates, with `tiny` and real stores."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from phi3kit import weights
from phi3kit.doctor import cached, checks, examine, fit

pytestmark = pytest.mark.tiny


def test_a_report_for_a_stranger_names_everything_and_no_secret(tiny_onnx, tmp_path):
    from hub_server import Hub

    weights.checkpoint("tiny")
    with Hub(tmp_path) as hub:
        secret = {
            "HF_TOKEN": "hf_thisisasecret",
            "https_proxy": "http://ada:hunter22@127.0.0.1:1",
            "NO_PROXY": "127.0.0.1",
        }
        environment = os.environ | secret | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{(tmp_path / 'none.db').as_posix()}"
        command = [sys.executable, "-m", "phi3kit.cli", "doctor", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, encoding="utf-8", check=False)
        assert [path for _, path in hub.requests] == ["/"]
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert {one["name"] for one in report["findings"]} == set(checks.ALL)
    assert all(set(one) == {"name", "verdict", "what", "remedy"} for one in report["findings"])
    assert all(one["remedy"] for one in report["findings"] if one["verdict"] == "fix")
    assert done.returncode == (0 if report["healthy"] else 1)
    told = [one["what"] for one in report["findings"] if one["name"] == "Models" and one["verdict"] == "ok"]
    assert {"tiny, checkpoint, 0.27 GB", "tiny, ONNX, 0.12 GB"} <= {what.rpartition(",")[0] for what in told}
    assert not re.search(rf"hunter22|thisisasecret|{re.escape(str(Path.home()))}\b", done.stdout)


def test_a_database_of_an_older_mlflow_is_told_with_the_command_that_keeps_a_copy(tmp_path, monkeypatch):
    older = (Path(__file__).parent / "mlflow_2_16.sql").read_text(encoding="utf-8")
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.executescript(older)
    database.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    (finding,) = examine({"Tracking": checks.store_of_records})
    assert (finding.verdict, "older MLflow" in finding.what) == ("fix", True)
    assert finding.remedy.startswith("Copy it to mlflow-before.db, then type `mlflow db upgrade ")


def test_tiny_is_known_as_it_was_built_today(tiny_onnx):
    folders = {weights.checkpoint("tiny"): "checkpoint", tiny_onnx: "ONNX"}
    mine = [item for item in cached.found() if item.folder in folders]
    assert {item.folder: item.form for item in mine} == folders
    assert not any(item.old or item.lacks or cached.damage(item) for item in mine)


def test_the_folder_of_tiny_tells_what_the_catalog_says_of_it_and_can_be_tried(tiny_onnx):
    said = fit.forms(weights.CATALOG["tiny"])
    read = [fit.forms(weights.resolve(folder))[0] for folder in (weights.checkpoint("tiny"), tiny_onnx)]
    for by_name, by_folder in zip(said, read, strict=True):
        assert (by_name.form, by_name.layers) == (by_folder.form, by_folder.layers)
        assert by_name.read == pytest.approx(by_folder.read, rel=0.01)
        assert fit.measured(by_folder.form, by_folder.place, tokens=8) > 0
