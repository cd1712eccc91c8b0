"""Addresses of tracking stores, in the forms that MLflow takes them, and in forms that look like them."""

import os
import sys
from pathlib import Path, PureWindowsPath

import pytest

from phi3kit.doctor import checks
from phi3kit.tracking import UnusableStore, sqlite_address, sqlite_file, uri, verify
from phi3kit.tracking.store import ROOT, absolute

HERE = Path("/data/here")
FILES = {
    "sqlite:///mlflow.db": "mlflow.db",
    "sqlite:///stores/mine.db": "stores/mine.db",
    "sqlite:////data/a b/mlflow.db": "/data/a b/mlflow.db",
    "sqlite:////data/a#b;c'd\"e/Übung/mlflow.db": "/data/a#b;c'd\"e/Übung/mlflow.db",
    "sqlite:////data/50%/mlflow.db": "/data/50%/mlflow.db",
    "sqlite:////data/50%25/mlflow.db": "/data/50%/mlflow.db",
    "sqlite:////data/50%252Foff/mlflow.db": "/data/50%2Foff/mlflow.db",
    "sqlite:////data/what%3F/mlflow.db": "/data/what?/mlflow.db",
    "sqlite+pysqlite:///mlflow.db": "mlflow.db",
    "sqlite:///mlflow.db?timeout=30": "mlflow.db",
    "sqlite:///mlflow.db?timeout=0.5": "mlflow.db",
}
OTHERS = ["http://127.0.0.1:5000", "HTTPS://example.org/mlflow", "databricks", "databricks://profile"]
# Addresses that MLflow cannot use, and what their refusals say.
REFUSED = {
    "sqlite://": "in memory",
    "sqlite:///": "in memory",
    "sqlite:///:memory:": "in memory",
    "sqlite+pysqlite://": "in memory",
    "sqlite:///?timeout=5": "in memory",
    "sqlite:mlflow.db": "for example sqlite:///mlflow.db",
    "sqlite://mlflow.db": "for example sqlite:///mlflow.db",
    "sqlite:/data/mlflow.db": "for example sqlite:////data/mlflow.db",
    "sqlite:///file:mlflow.db?uri=true": "URI of SQLite's own",
    "sqlite:///mlflow.db?mode=ro": "timeout=SECONDS",
    "sqlite:///mlflow.db?timeout=soon": "timeout=SECONDS",
    "sqlite:///mlflow.db?timeout=1&timeout=2": "timeout=SECONDS",
    "sqlite:////data/what?/mlflow.db": "? is written %3F",
    "sqlite+other:///mlflow.db": "sqlite.other",
    "sqlite+aiosqlite:///mlflow.db": "another driver than aiosqlite",
    "SQLite:///mlflow.db": "for example sqlite:///mlflow.db",
    "sqlite3:///mlflow.db": "not sqlite3",
    "'sqlite:///mlflow.db'": "for example sqlite:///mlflow.db",
    " sqlite:///mlflow.db": "for example sqlite:///mlflow.db",
    "sqlite:////data/\udcff/mlflow.db": "no text in UTF-8",
    "postgres://host/mlflow": "not postgres",
    "postgresql://host:port/mlflow": "'port'",
    "http:127.0.0.1:5000": "for example http://127.0.0.1:5000",
    "http://": "for example http://127.0.0.1:5000",
    "http://[::1": "for example http://127.0.0.1:5000",
    "http://host:port": "for example http://127.0.0.1:5000",
    "./mlruns": "no longer keeps a store in a folder",
    "file:///data/mlruns": "no longer keeps a store in a folder",
    "C:\\mlruns": "no longer keeps a store in a folder",
}
WINDOWS = ["sqlite:///C:\\data\\mlflow.db", "sqlite:///C:/data/mlflow.db", "sqlite:///\\\\server\\data\\mlflow.db"]
if os.name != "nt":
    REFUSED |= dict.fromkeys(WINDOWS, "one of Windows")


@pytest.mark.parametrize("address", FILES)
def test_the_file_of_an_address(address):
    assert sqlite_file(address) == Path(FILES[address])


@pytest.mark.parametrize("address", [*OTHERS, *REFUSED])
def test_any_other_address_has_no_file(address):
    assert sqlite_file(address) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sqlite:///mlflow.db", "sqlite:////data/here/mlflow.db"),
        ("sqlite:///Übung/mlflow.db", "sqlite:////data/here/Übung/mlflow.db"),
        ("sqlite:////data/50%25/mlflow.db", "sqlite+pysqlite:////data/50%25/mlflow.db"),
        ("sqlite:///what%3F.db", "sqlite+pysqlite:////data/here/what%3F.db"),
        ("sqlite+pysqlite:///a/b.db?timeout=30", "sqlite+pysqlite:////data/here/a/b.db?timeout=30"),
        *((address, address) for address in (*OTHERS, *REFUSED)),
    ],
)
def test_only_a_relative_file_is_made_absolute(address, expected):
    assert absolute(address, HERE) == expected


@pytest.mark.parametrize(
    "path",
    ["/a b/m.db", "/50%2Foff/m.db", "/100%/m.db", "/what?/m.db", "/a#b;c&d=e/m.db", '/it\'s "x"/m.db', "/Ü/m.db"],
)
def test_any_path_has_an_address(path):
    assert sqlite_file(sqlite_address(Path(path))) == Path(path)


def test_a_path_of_windows_keeps_its_drive():
    assert sqlite_address(PureWindowsPath("C:\\a b\\m.db")) == "sqlite:///C:/a b/m.db"


def test_the_default_is_one_file_at_the_root(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert sqlite_file(uri()) == ROOT / "mlflow.db"


def test_the_variable_wins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    assert sqlite_file(uri()) == tmp_path / "mine.db"


# What is refused. The doctor finds the same, in the same words.


def refusal(address: str) -> str | None:
    try:
        verify(address)
    except UnusableStore as error:
        return str(error)
    return None


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_cannot_be_used_is_refused(address):
    assert REFUSED[address] in refusal(address)


@pytest.mark.parametrize("address", REFUSED)
def test_a_refusal_names_the_address(address):
    assert refusal(address).startswith(f"MLFLOW_TRACKING_URI={address!r} cannot be used")


@pytest.mark.parametrize("address", OTHERS)
def test_a_server_is_not_refused(address):
    assert refusal(address) is None


def test_a_refusal_holds_no_password():
    assert "hunter22" not in refusal("postgresql://me:hunter22@host:port/mlflow")


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "the driver psycopg is not installed" in refusal("postgresql://host/mlflow")


def test_the_store_of_a_plugin_is_not_refused(tmp_path, monkeypatch):
    (tmp_path / "other-1.dist-info").mkdir()
    (tmp_path / "other-1.dist-info" / "entry_points.txt").write_text("[mlflow.tracking_store]\nother = package:store\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("other://store") is None


def test_a_folder_is_taken_where_mlflow_may_take_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert refusal("./mlruns") is None


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with things that are no store, and with names that read as escapes."""
    for name in ("a%41b", "sub"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("not a database")
    (tmp_path / "a%41b.db").write_text("")
    if os.name != "nt":
        (tmp_path / "link").symlink_to("a%41b")
        os.mkfifo(tmp_path / "pipe")
    return tmp_path


# Relative to `folder`, and what the refusal says of it; None for an address that can be used.
PLACES = {
    "sub": "is no file: move it away",
    "file/mlflow.db": "cannot be written (",
    "file/sub/mlflow.db": "cannot be written (",
    f"{'x' * 300}.db": "cannot be written (",
    f"{'x' * 300}/mlflow.db": "cannot be written (",
    "a%2541b/mlflow.db": "is in a folder with %41 in its path, from which MLflow loads no models: rename that folder",
    "new%252Ffolder/mlflow.db": "is in a folder with %2F in its path",
    "a%41b/mlflow.db": "in an address, %41 stands for another character",
    "a%41b.db": "in an address, %41 stands for another character",
    "a%2541b.db": None,
    "new/folder/mlflow.db": None,
    "sub/mlflow.db": None,
    "100%25/mlflow.db": None,
    "what%3F/mlflow.db": None,
}
if os.name != "nt":
    PLACES |= {"pipe": "is no file: move it away", "link/mlflow.db": "is in a folder with %41 in its path"}


@pytest.fixture(params=PLACES)
def place(request, folder) -> tuple[str, str | None]:
    return f"sqlite:///{folder.as_posix()}/{request.param}", PLACES[request.param]


def test_a_file_that_cannot_be_a_store_is_refused(place):
    address, expected = place
    assert (refusal(address) or "").count(expected or "") == 1


def test_a_refusal_changes_nothing(place, folder):
    before = sorted(folder.rglob("*"))
    refusal(place[0])
    assert sorted(folder.rglob("*")) == before


def test_the_doctor_says_what_a_notebook_does(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place[0])
    ((verdict, _, _),) = checks.tracking_store()
    assert verdict == ("ok" if place[1] is None else "fix")


@pytest.mark.parametrize("address", REFUSED)
def test_the_doctor_says_it_of_an_address(address, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    ((verdict, what, remedy),) = checks.tracking_store()
    assert (verdict, f"{what}: {remedy[0].lower()}{remedy[1:]}") == ("fix", refusal(uri()))


def test_a_write_protected_file_is_refused(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert "file is write-protected: make it writable" in refusal(f"sqlite:///{folder.as_posix()}/file")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="another system has no folder that root cannot write")
def test_a_write_protected_folder_is_refused():
    assert "cannot be written" in refusal("sqlite:////proc/phi3kit/mlflow.db")
