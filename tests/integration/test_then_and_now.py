"""What the second notebook says of the code of 2024, row by row, against what is installed."""

import logging
import os
import subprocess
import sys
import warnings

import mlflow
import onnxruntime_genai as og
import pytest

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


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("then", (tmp_path / "artifacts").as_uri()))
    yield tmp_path
    mlflow.set_tracking_uri(before)


def test_the_old_way_to_generate_is_gone():
    model = og.Model(str(weights.onnx("tiny")))
    assert not hasattr(model, "generate")
    assert not hasattr(og.GeneratorParams(model), "input_ids")
    with pytest.raises(AttributeError):
        og.GeneratorParams(model).input_ids = [1]


def test_temperature_alone_changes_nothing():
    model = og.Model(str(weights.onnx("tiny")))
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
    kept = wrappers.packaged_pipeline("tiny") | {"pip_requirements": None}
    with weights.offline(), pytest.raises(ModuleNotFoundError, match="torchvision"):
        mlflow.transformers.save_model(path=tmp_path / "model", **kept)


def test_artifact_path_still_runs_with_a_warning(store):
    with mlflow.start_run(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        logging.getLogger("mlflow").addHandler(logged := Collect())
        mlflow.pyfunc.log_model(artifact_path="old", python_model=Answer(), pip_requirements=[])
        logging.getLogger("mlflow").removeHandler(logged)
    assert any("artifact_path" in text for text in [*logged.texts, *(str(one.message) for one in said)])


def test_a_pickled_model_is_refused_where_pickles_are_not_allowed(store, monkeypatch):
    with mlflow.start_run():
        pickled = mlflow.pyfunc.log_model(name="pickled", python_model=Answer(), pip_requirements=[])
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"(?i)pickle"):
        mlflow.pyfunc.load_model(pickled.model_uri)


def test_a_folder_of_files_is_no_store_any_more(tmp_path):
    code = f"import mlflow; mlflow.set_tracking_uri({(tmp_path / 'mlruns').as_uri()!r}); mlflow.start_run()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0
    assert "sqlite" in done.stderr
