"""Where experiments live: one store, found from a notebook, papermill, `mlflow run` and the shell alike."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# The folder of the workbook: the kit is installed from there in editable mode. Elsewhere, the working directory.
_BESIDE = Path(__file__).parents[1]
ROOT = _BESIDE if (_BESIDE / "MLproject").exists() else Path.cwd()


def use(experiment: str) -> str:
    """Point MLflow to the workbook's store and experiment, and return the store's URI.

    `MLFLOW_TRACKING_URI` wins over the default, one SQLite file and one artifact folder at `ROOT`. Under `mlflow run`,
    which sets `MLFLOW_RUN_ID`, that run and its experiment are taken up: open your own as nested runs.

    Args:
        experiment: its name; made when it does not exist.
    """
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)  # thirty lines when it makes a new database
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}")
    if os.environ.get("MLFLOW_RUN_ID") and not mlflow.active_run():
        mlflow.start_run()
    elif not mlflow.active_run():
        if not os.environ.get("MLFLOW_TRACKING_URI") and mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, artifact_location=(ROOT / "mlartifacts").as_uri())
        mlflow.set_experiment(experiment)
    return mlflow.get_tracking_uri()


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

    version = mlflow.register_model(model_uri, name, tags=tags)
    client = mlflow.MlflowClient()
    client.update_model_version(name, version.version, description=description)
    client.set_registered_model_alias(name, alias, version.version)
    return client.get_model_version(name, version.version)
