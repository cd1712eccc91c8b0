"""Where a stored model computes: a pipeline on a GPU that torch sees, an ONNX model with the packages that made it.

No GPU is here. The libraries are told that there is one, and the device to which they move the model is recorded.
"""

from pathlib import Path

import pytest
import random_checkpoint

from phi3kit import weights
from phi3kit.wrappers import onnx_requirements, packaged_pipeline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "random"
    random_checkpoint.write(folder)
    return folder


@pytest.fixture(scope="module")
def stored(checkpoint, tmp_path_factory) -> Path:
    """The pipeline as MLflow stores it."""
    import mlflow

    folder = tmp_path_factory.mktemp("stored") / "pipeline"
    packaged = packaged_pipeline(str(checkpoint))
    with weights.offline():
        mlflow.transformers.save_model(path=folder, **packaged)
    return folder


@pytest.fixture
def gpu(monkeypatch) -> None:
    """Let torch see a GPU, and leave the model where it is."""
    import mlflow.transformers
    import transformers

    monkeypatch.setattr("transformers.pipelines.base.is_torch_cuda_available", lambda: True)
    monkeypatch.setattr(mlflow.transformers, "is_gpu_available", lambda: True)
    monkeypatch.setattr(transformers.PreTrainedModel, "to", lambda model, *_, **__: model)


def loaded(folder: Path, **options: object) -> str:
    """The device of the loaded pipeline."""
    import mlflow

    return str(mlflow.transformers.load_model(str(folder), **options).device)


def test_without_a_gpu_the_pipeline_is_on_the_cpu(checkpoint):
    assert str(packaged_pipeline(str(checkpoint))["transformers_model"].device) == "cpu"


@pytest.mark.usefixtures("gpu")
def test_the_packaged_pipeline_is_on_the_gpu(checkpoint):
    assert str(packaged_pipeline(str(checkpoint))["transformers_model"].device) == "cuda:0"


def test_without_a_gpu_it_is_loaded_on_the_cpu(stored):
    assert loaded(stored) == "cpu"


@pytest.mark.usefixtures("gpu")
def test_it_is_loaded_on_the_gpu(stored):
    assert loaded(stored) == "cuda:0"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("number", "device"), [("-1", "cpu"), ("1", "cuda:1")])
def test_a_variable_chooses_the_device(stored, monkeypatch, number, device):
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", number)
    assert loaded(stored) == device


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("device", "expected"), [(-1, "cpu"), (1, "cuda:1")])
def test_an_argument_chooses_the_device(stored, device, expected):
    assert loaded(stored, device=device) == expected


def test_requirements_name_the_packages_for_a_cpu():
    names = {line.partition("==")[0] for line in onnx_requirements()}
    assert {name for name in names if name.startswith("onnxruntime")} == {"onnxruntime-genai", "onnxruntime"}


def test_requirements_name_the_packages_for_a_gpu(tmp_path, monkeypatch):
    for name in ("onnxruntime_genai_cuda", "onnxruntime_gpu"):
        info = tmp_path / f"{name}-9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    lines = [line for line in onnx_requirements() if line.startswith("onnxruntime")]
    assert lines == ["onnxruntime-genai-cuda==9.9", "onnxruntime-gpu[cuda,cudnn]==9.9"]
