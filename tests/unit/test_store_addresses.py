"""Addresses of tracking stores, in the forms that MLflow takes them."""

from pathlib import Path

import pytest

from phi3kit.tracking import sqlite_address, sqlite_file, uri
from phi3kit.tracking.store import ROOT, absolute

HERE = Path("/data/here")


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:///stores/mine.db", "stores/mine.db"),
        ("sqlite:////data/a b/mlflow.db", "/data/a b/mlflow.db"),
        ("sqlite:////data/50%252Foff/mlflow.db", "/data/50%2Foff/mlflow.db"),
        ("sqlite+pysqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:///mlflow.db?timeout=30", "mlflow.db"),
        ("SQLITE:///mlflow.db", None),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://me:secret@host/mlflow", None),
        ("http://127.0.0.1:5000", None),
        ("databricks", None),
        ("./mlruns", None),
        ("", None),
    ],
)
def test_the_file_of_an_address(address, file):
    assert sqlite_file(address) == (file and Path(file))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:////data/here/mlflow.db"),
        ("sqlite:////data/50%252Foff/mlflow.db", "sqlite:////data/50%252Foff/mlflow.db"),
        ("sqlite+pysqlite:///a/b.db?timeout=30", "sqlite+pysqlite:////data/here/a/b.db?timeout=30"),
        ("postgresql://me:secret@host/mlflow", "postgresql://me:secret@host/mlflow"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_only_a_relative_file_is_made_absolute(address, expected):
    assert absolute(address, HERE) == expected


def test_the_default_is_one_file_at_the_root(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert sqlite_file(uri()) == ROOT / "mlflow.db"


@pytest.mark.parametrize("path", ["/a b/mlflow.db", "/50%2Foff/mlflow.db", "/what?/mlflow.db", "/Übung/mlflow.db"])
def test_any_path_has_an_address(path):
    assert sqlite_file(sqlite_address(Path(path))) == Path(path)


def test_the_variable_wins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    assert sqlite_file(uri()) == tmp_path / "mine.db"
