"""Where experiments live: one store, found from a notebook, papermill, `mlflow run` and the shell alike."""

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# The folder of the workbook: the kit is installed from there in editable mode. Elsewhere, the working directory.
_BESIDE = Path(__file__).parents[1]
ROOT = _BESIDE if (_BESIDE / "MLproject").exists() else Path.cwd()


def use(experiment: str) -> str:
    """Point MLflow to the workbook's store and experiment, and return the store's URI.

    `MLFLOW_TRACKING_URI` wins over the default, one SQLite file at `ROOT`. The artifacts of an experiment made in a
    SQLite store lie beside its file. Under `mlflow run`, which sets `MLFLOW_RUN_ID`, that run and its experiment are
    taken up: open your own as nested runs.

    Args:
        experiment: its name; made when it does not exist.
    """
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)  # thirty lines when it makes a new database
    own = f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}"
    # Setting it also sets the variable, so that the processes this one starts find the same store.
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or own)
    uri = mlflow.get_tracking_uri()
    scheme, _, file = uri.partition(":///")
    with _alone_beside(Path(file).resolve()) if scheme == "sqlite" else contextlib.nullcontext():
        if os.environ.get("MLFLOW_RUN_ID") and not mlflow.active_run():
            mlflow.set_experiment(experiment_id=mlflow.start_run().info.experiment_id)
        elif not mlflow.active_run():
            if scheme == "sqlite" and mlflow.get_experiment_by_name(experiment) is None:
                mlflow.create_experiment(experiment, artifact_location=Path("mlartifacts").resolve().as_uri())
            mlflow.set_experiment(experiment)
    return uri


@contextlib.contextmanager
def _alone_beside(database: Path) -> Iterator[None]:
    """One process at a time, in the database's folder."""
    from filelock import FileLock

    # Two that make the same new database at once break each other's tables, and MLflow puts the artifacts of its
    # default experiment into the working directory of whoever makes it.
    with FileLock(f"{database}.lock"), contextlib.chdir(database.parent):
        yield


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
