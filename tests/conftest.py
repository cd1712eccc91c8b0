"""What several test files share. Helpers beside this file are imported by their own names."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_onnx() -> Path:
    """The ONNX folder of `tiny`, built on first use."""
    from phi3kit import weights

    return weights.onnx("tiny")


@pytest.fixture(scope="session")
def engine(tiny_onnx):
    """`tiny`, opened once for all tests; nothing in it changes with use."""
    from phi3kit.generation import Engine

    return Engine.open(tiny_onnx)


@pytest.fixture(scope="session")
def template(tiny_onnx):
    """The chat template of `tiny`."""
    from phi3kit.chat import ChatTemplate

    return ChatTemplate(tiny_onnx)


@contextmanager
def own_store(folder: Path) -> Iterator[None]:
    """Let MLflow keep its records in `folder` inside the block, and where it did before afterwards."""
    import mlflow

    from phi3kit import tracking

    before = mlflow.get_tracking_uri()
    tracking.create(folder / "mlflow.db")  # MLflow itself takes several seconds to make one
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # so that what `set_tracking_uri` writes there is undone at the end
        mlflow.set_tracking_uri(tracking.sqlite_address(folder / "mlflow.db"))
        yield
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def logged(tmp_path_factory) -> dict[str, Path]:
    """The three wrapped models, logged in a store of the tests' own: each one's name and folder."""
    import mlflow

    from phi3kit import weights, wrappers

    store = tmp_path_factory.mktemp("store")
    with own_store(store):
        experiment = mlflow.create_experiment("wrappers", artifact_location=(store / "artifacts").as_uri())
        pipeline = wrappers.packaged_pipeline("tiny")
        with mlflow.start_run(experiment_id=experiment), weights.offline():
            infos = [
                mlflow.pyfunc.log_model(name="Phi3Model", **wrappers.packaged(wrappers.Phi3Model, "tiny")),
                mlflow.pyfunc.log_model(name="Phi3Chat", **wrappers.packaged(wrappers.Phi3Chat, "tiny")),
                mlflow.transformers.log_model(name="pipeline", **pipeline),
            ]
        return {info.name: Path(mlflow.artifacts.download_artifacts(info.model_uri)) for info in infos}


@pytest.fixture(scope="session")
def models(logged):
    """The three, loaded."""
    import mlflow

    return {name: mlflow.pyfunc.load_model(str(folder)) for name, folder in logged.items()}


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> Path:
    """A folder for notebooks that one test executed and another looks at, each with its page."""
    return tmp_path_factory.mktemp("executed")
