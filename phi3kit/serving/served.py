"""The registered model that a server serves: which version an address names, and what lies in its folder."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from phi3kit.errors import WeightsError
from phi3kit.wrappers import ARTIFACT


@dataclass(frozen=True)
class Served:
    """A model as it was found when the server started.

    Attributes:
        id: its name in `/v1/models` and in answers: `name/version` of a registered model.
        names: every name by which a request may ask for it.
        uri: the exact address: a version where an alias was given.
        version: of a registered model.
        aliases: that the version had.
        run_id: of the run that logged it.
        folder: with its `MLmodel`.
        meta: the `mlflow.models.Model`.
    """

    id: str
    names: frozenset[str]
    uri: str
    version: str | None
    aliases: tuple[str, ...]
    run_id: str | None
    folder: Path
    meta: Any

    @classmethod
    def find(cls, uri: str) -> "Served":
        """Look an address up: `models:/name@alias`, `models:/name/3`, `models:/m-…`, `runs:/…`, or a folder.

        Raises:
            WeightsError: there is no such model.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            name, version, aliases = _registered(uri)
            exact = f"models:/{name}/{version}" if name else uri
            folder = Path(mlflow.artifacts.download_artifacts(exact))
            meta = mlflow.models.Model.load(str(folder))
        except (MlflowException, OSError) as error:
            raise WeightsError(f"{uri} is no model that can be served: {str(error).splitlines()[0]:.300}") from None
        id = f"{name}/{version}" if name else PurePath(uri).name
        names = {id, uri, exact} | ({name} | {f"{name}@{alias}" for alias in aliases} if name else set())
        return cls(id, frozenset(names), exact, version, aliases, meta.run_id, folder, meta)

    @property
    def created(self) -> float:
        """When the model was logged, in seconds since 1970."""
        return datetime.fromisoformat(self.meta.utc_time_created).replace(tzinfo=UTC).timestamp()

    @property
    def is_pipeline(self) -> bool:
        """Whether it is a logged transformers pipeline."""
        return "transformers" in self.meta.flavors

    def onnx_folder(self) -> Path:
        """Return the ONNX folder inside the model.

        Raises:
            WeightsError: it has none.
        """
        artifacts = self.meta.flavors.get("python_function", {}).get("artifacts") or {}
        if ARTIFACT not in artifacts:
            raise WeightsError(
                f"{self.uri} has no artifact {ARTIFACT}, whose model the slots run: "
                "`mlflow models serve` serves wrappers of any form."
            )
        return self.folder / str(artifacts[ARTIFACT]["path"])


def _registered(uri: str) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return name, version and aliases of the version that an address names; none of them for any other model."""
    import mlflow

    rest = uri.removeprefix("models:/")
    if rest == uri or rest.startswith("m-"):
        return None, None, ()
    client = mlflow.MlflowClient()
    name, _, alias = rest.rpartition("@")
    if name:
        version = client.get_model_version_by_alias(name, alias)
    else:
        name, _, number = rest.rpartition("/")
        version = client.get_model_version(name, number)
    aliases = client.get_registered_model(name).aliases
    return name, str(version.version), tuple(a for a, of in sorted(aliases.items()) if str(of) == str(version.version))
