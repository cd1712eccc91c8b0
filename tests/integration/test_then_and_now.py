"""What the second notebook says of the code of 2024, row by row, against the installed libraries."""

import logging
import os
import warnings

import mlflow
import onnxruntime_genai as og
import pytest
from conftest import own_store

from phi3kit import weights, wrappers


class Collect(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


class Answer(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]) -> list[str]:
        return model_input


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The id of an experiment in a store of its own."""
    folder = tmp_path_factory.mktemp("then")
    with own_store(folder):
        yield mlflow.create_experiment("then", (folder / "artifacts").as_uri())


@pytest.fixture
def run(experiment, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    with mlflow.start_run(experiment_id=experiment) as run:
        yield run


@pytest.fixture(scope="module")
def model(engine):
    return engine.model.og_model


def test_a_model_has_no_generate(model):
    assert not hasattr(model, "generate")


def test_parameters_take_no_input_ids(model):
    with pytest.raises(AttributeError):
        og.GeneratorParams(model).input_ids = [1]


def test_temperature_alone_changes_nothing(model):
    ids = og.Tokenizer(model).encode("<|user|>Tell me a joke about atom<|end|><|assistant|>")
    answers = set()
    for temperature in (0.2, 2.0):
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + 8, temperature=temperature)
        generator = og.Generator(model, params)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        answers.add(tuple(int(token) for token in generator.get_sequence(0)))
    assert len(answers) == 1


def test_a_pipeline_without_requirements_asks_for_torchvision(tmp_path):
    arguments = wrappers.packaged_pipeline("tiny") | {"pip_requirements": None}
    with weights.offline(), pytest.raises(ModuleNotFoundError, match="torchvision"):
        mlflow.transformers.save_model(path=tmp_path / "model", **arguments)


def test_artifact_path_still_works_with_a_warning(run):
    logging.getLogger("mlflow").addHandler(handler := Collect())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mlflow.pyfunc.log_model(artifact_path="old", python_model=Answer(), pip_requirements=[])
    logging.getLogger("mlflow").removeHandler(handler)
    assert any("artifact_path" in text for text in [*handler.texts, *(str(warning.message) for warning in caught)])


def test_a_pickled_model_is_refused_without_permission(run, monkeypatch):
    pickled = mlflow.pyfunc.log_model(name="pickled", python_model=Answer(), pip_requirements=[])
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"(?i)pickle"):
        mlflow.pyfunc.load_model(pickled.model_uri)


def test_a_folder_of_files_is_no_store_any_more(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    with pytest.raises(mlflow.exceptions.MlflowException, match="sqlite"):
        mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
