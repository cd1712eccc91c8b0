"""The tracking store: found from a notebook, papermill, `mlflow run` and the shell alike."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi3kit.tracking.address import VARIABLE, UnusableStore, absolute, check, escape, sqlite_address, sqlite_file

# The folder of the workbook, from which the kit is installed in editable mode. Elsewhere, the working directory at the
# time of import.
_REPOSITORY = Path(__file__).parents[2]
ROOT = _REPOSITORY if (_REPOSITORY / "MLproject").exists() else Path.cwd()


def uri() -> str:
    """The address of the store: `MLFLOW_TRACKING_URI`, else one SQLite file at `ROOT`; a file's path is absolute."""
    return absolute(os.environ.get(VARIABLE) or sqlite_address(ROOT / "mlflow.db"), Path.cwd())


def verify(address: str) -> None:
    """Refuse an address, or an SQLite file, that MLflow cannot use. Nothing is changed, and no server is asked.

    Raises:
        UnusableStore: MLflow cannot read the address, must not open the file, or cannot write it.
    """
    check(address)
    if (database := sqlite_file(address)) and (why := mismatch(database)):
        raise UnusableStore(why)


def use(experiment: str) -> str:
    """Point MLflow to the workbook's store and experiment, and return the store's URI.

    `MLFLOW_TRACKING_URI` wins over the default, one SQLite file at `ROOT`. The artifacts of an experiment made in a
    SQLite store lie beside its file. `mlflow run` sets `MLFLOW_RUN_ID`: then that run and its experiment are resumed,
    and a notebook opens its own runs nested in it.

    Args:
        experiment: its name; made when it does not exist.

    Raises:
        UnusableStore: MLflow cannot use the address in `MLFLOW_TRACKING_URI`; or the SQLite file was made by another
            version of MLflow, is incomplete, is no store at all, or cannot be written. It is not changed.
    """
    verify(address := uri())
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)  # Alembic logs thirty lines for a new database.
    # This also sets MLFLOW_TRACKING_URI, so that the processes this one starts find the same store.
    mlflow.set_tracking_uri(address)
    database = sqlite_file(address)
    with _locked(database) if database else contextlib.nullcontext():
        if database and not (database.exists() and database.stat().st_size):
            create(database)
        if os.environ.get("MLFLOW_RUN_ID") and not mlflow.active_run():
            mlflow.set_experiment(experiment_id=mlflow.start_run().info.experiment_id)
        elif not mlflow.active_run():
            if database and mlflow.get_experiment_by_name(experiment) is None:
                mlflow.create_experiment(experiment, artifact_location=Path("mlartifacts").resolve().as_uri())
            mlflow.set_experiment(experiment)
    return address


@contextlib.contextmanager
def _locked(database: Path) -> Iterator[None]:
    """One process at a time, in the database's folder."""
    from filelock import FileLock

    # Two processes that make the same new database at once break each other's tables, and MLflow puts the artifacts of
    # its default experiment into the working directory of the process that makes it.
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"), contextlib.chdir(database.parent):
        yield


def create(database: Path) -> None:
    """Make a new, empty SQLite store aside and move it into place, so that an interruption leaves no incomplete one.

    Args:
        database: its file; an existing one is replaced.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine, event

    aside = database.with_name(f"{database.name}.aside")
    aside.unlink(missing_ok=True)
    artifacts = database.with_name("mlartifacts").resolve().as_uri()
    # The tables take some hundred transactions. Waiting for the disk after each took 7 of 9 s here.
    event.listen(Engine, "connect", _no_sync)
    try:
        SqlAlchemyStore(sqlite_address(aside), artifacts).engine.dispose()
    finally:
        event.remove(Engine, "connect", _no_sync)
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(database)


def _no_sync(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def mismatch(database: Path) -> str | None:
    """Why this MLflow should not open an SQLite database, and what to do then; None if it may.

    MLflow itself upgrades some older databases without asking and without a copy, and an older MLflow can then read
    them no longer.

    Args:
        database: a file that exists, or one that is yet to be made.
    """
    import sqlite3

    if why := _unusable(database):
        return f"{database} {why}; or name another file in {VARIABLE}."
    if not database.exists() or not database.stat().st_size:
        return None
    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store import db_migrations

    try:
        with contextlib.closing(sqlite3.connect(database, timeout=2)) as connection:
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):  # table or column
            return (
                f"{database} cannot be read now ({error}): end what uses it or check its permissions, then try again."
            )
        revision = None
    known = ScriptDirectory(str(Path(db_migrations.__file__).parent))
    if revision == (known.get_current_head(),):
        return None
    copy = f"{database.stem}-before{database.suffix}"
    next_step = f"move it away, say to {copy}, and a new one is made"
    if not revision:
        why = "is no complete MLflow store"
    elif revision[0] not in {each.revision for each in known.walk_revisions()}:
        why = f"was made by a newer MLflow than {mlflow.__version__}, which is used here"
    else:
        why = f"was made by an older MLflow than {mlflow.__version__}, which is used here, or its making was cut off"
        upgrade = f'`mlflow db upgrade "{sqlite_address(Path(database.name))}"` in its folder'
        upgrade = f"{upgrade}, in the environment of the workbook"
        next_step = f"copy it to {copy}, then type {upgrade}, to take its records along; or {next_step}"
    return f"{database} {why}: {next_step}."


def _unusable(database: Path) -> str | None:
    """Why MLflow cannot keep records and models beside a file, and what to do then."""
    if part := escape(str(database.with_name("mlartifacts").resolve())):
        return f"is in a folder with {part} in its path, from which MLflow loads no models: rename that folder"
    try:
        folder = next(folder for folder in database.parents if folder.exists())
        if database.exists() and not database.is_file():
            return "is no file: move it away"
        with tempfile.TemporaryFile(dir=folder):  # SQLite writes other files beside its own
            pass
        if database.exists() and not os.access(database, os.W_OK):
            return "is write-protected: make it writable"
    except OSError as error:
        return f"cannot be written ({error.strerror}): make its folder writable"
    return None
