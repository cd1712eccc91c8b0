"""Registered models: names, versions and aliases."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def register(model_uri: str, name: str, *, alias: str, description: str, tags: dict[str, Any]) -> ModelVersion:
    """Register a logged model, annotate the new version, and give it an alias.

    Args:
        model_uri: as `log_model` returned it.
        name: of the registered model; made when it does not exist.
        alias: a moving name for a version, for example `challenger`; taken from the version that had it.
        description: what a colleague should know of this version.
        tags: short facts to search by.

    Returns:
        the new version.
    """
    import mlflow

    with contextlib.redirect_stderr(io.StringIO()):  # MLflow announces the version there
        version = mlflow.register_model(model_uri, name, tags=tags)
    client = mlflow.MlflowClient()
    client.update_model_version(name, version.version, description=description)
    client.set_registered_model_alias(name, alias, version.version)
    return client.get_model_version(name, version.version)
