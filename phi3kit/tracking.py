"""Where experiments live: one store, found from a notebook, papermill, `mlflow run` and the shell alike."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3kit.errors import Phi3KitError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# The folder of the workbook: the kit is installed from there in editable mode. Elsewhere, the working directory.
_BESIDE = Path(__file__).parents[1]
ROOT = _BESIDE if (_BESIDE / "MLproject").exists() else Path.cwd()


def uri() -> str:
    """The address of the store: `MLFLOW_TRACKING_URI`, else one SQLite file at `ROOT`; a file's path is absolute."""
    found = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{ROOT / 'mlflow.db'}"
    scheme, _, file = found.partition(":///")
    return f"sqlite:///{Path(file).absolute().as_posix()}" if scheme == "sqlite" else found


class StoreNotOurs(Phi3KitError):
    """The file with the records cannot be read by this MLflow; the message says how to keep it and go on."""


def use(experiment: str) -> str:
    """Point MLflow to the workbook's store and experiment, and return the store's URI.

    `MLFLOW_TRACKING_URI` wins over the default, one SQLite file at `ROOT`. The artifacts of an experiment made in a
    SQLite store lie beside its file. Under `mlflow run`, which sets `MLFLOW_RUN_ID`, that run and its experiment are
    taken up: open your own as nested runs.

    Args:
        experiment: its name; made when it does not exist.

    Raises:
        StoreNotOurs: the SQLite file is another version's, half made, or no store at all; it stays as it was.
    """
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)  # thirty lines when it makes a new database
    # Setting it also sets the variable, so that the processes this one starts find the same store.
    mlflow.set_tracking_uri(uri())
    scheme, _, file = uri().partition(":///")
    with _alone_beside(database := Path(file)) if scheme == "sqlite" else contextlib.nullcontext():
        if scheme == "sqlite":
            _make_if_missing(database)
            if why := mismatch(database):
                raise StoreNotOurs(why)
        if os.environ.get("MLFLOW_RUN_ID") and not mlflow.active_run():
            mlflow.set_experiment(experiment_id=mlflow.start_run().info.experiment_id)
        elif not mlflow.active_run():
            if scheme == "sqlite" and mlflow.get_experiment_by_name(experiment) is None:
                mlflow.create_experiment(experiment, artifact_location=Path("mlartifacts").resolve().as_uri())
            mlflow.set_experiment(experiment)
    return uri()


@contextlib.contextmanager
def _alone_beside(database: Path) -> Iterator[None]:
    """One process at a time, in the database's folder."""
    from filelock import FileLock

    # Two that make the same new database at once break each other's tables, and MLflow puts the artifacts of its
    # default experiment into the working directory of whoever makes it.
    with FileLock(f"{database}.lock"), contextlib.chdir(database.parent):
        yield


def _make_if_missing(database: Path) -> None:
    """Make a new database aside and move it into place, so that an interruption leaves none that is half made."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if not database.exists() or not database.stat().st_size:
        aside = database.with_name(f"{database.name}.aside")
        aside.unlink(missing_ok=True)
        SqlAlchemyStore(f"sqlite:///{aside.as_posix()}", Path("mlartifacts").resolve().as_uri()).engine.dispose()
        aside.replace(database)


def mismatch(database: Path) -> str | None:
    """Why this MLflow should not open an SQLite database, and what to do then; None if it may.

    MLflow itself upgrades some older ones unasked and without a copy, and its older self can read them no more.

    Args:
        database: a file that exists.
    """
    import sqlite3

    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store import db_migrations

    try:
        with contextlib.closing(sqlite3.connect(database, timeout=2)) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):  # table or column
            return (
                f"{database} cannot be read now ({error}): end what uses it or check its permissions, then try again."
            )
        found = None
    known = ScriptDirectory(str(Path(db_migrations.__file__).parent))
    if found == (known.get_current_head(),):
        return None
    kept = f"{database.stem}-before{database.suffix}"
    next_step = f"move it away, say to {kept}, and a new one is made"
    if not found:
        why = "holds no records of MLflow, or half of them"
    elif found[0] not in {each.revision for each in known.walk_revisions()}:
        why = f"was made by a newer MLflow than {mlflow.__version__}, which is used here"
    else:
        why = f"was made by an older MLflow than {mlflow.__version__}, which is used here, or its making was cut off"
        upgrade = f'`mlflow db upgrade "sqlite:///{database.name}"` in its folder, in the environment of the workbook'
        next_step = f"copy it to {kept}, then type {upgrade}, to take its records along; or {next_step}"
    return f"{database} {why}: {next_step}."


def register(model_uri: str, name: str, *, alias: str, description: str, tags: dict[str, Any]) -> "ModelVersion":
    """Register a logged model, annotate the new version, and give it an alias.

    Args:
        model_uri: as `log_model` returned it.
        name: of the registered model; made when it does not exist.
        alias: a moving name for a version, for example `challenger`; taken from the version that had it.
        description: what a colleague should know of this version.
        tags: short facts to search by.
    """
    import mlflow

    with contextlib.redirect_stderr(io.StringIO()):  # MLflow announces it there; the caller gets the version
        version = mlflow.register_model(model_uri, name, tags=tags)
    client = mlflow.MlflowClient()
    client.update_model_version(name, version.version, description=description)
    client.set_registered_model_alias(name, alias, version.version)
    return client.get_model_version(name, version.version)
