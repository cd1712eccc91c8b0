"""What lies in a logged model's folder, and where such a folder still answers."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import mlflow
import pytest

from phi3kit.chat import completion

pytestmark = pytest.mark.tiny

NAMES = ["Phi3Model", "Phi3Chat", "pipeline"]
ONNX = NAMES[:2]
QUESTION, ANSWER = "What is the capital of Spain?", "The capital of Spain is Madrid."
# Folders that version 0.1 of the kit stored, before it had rooms; the weights are put back in by the test.
OLD = Path(__file__).with_name("stored_by_0_1.tar.xz")


def request_of(name: str) -> dict:
    if name == "Phi3Model":
        return {"prompt": f"<|user|>{QUESTION}<|end|><|assistant|>"}
    return {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12}


def text_of(name: str, result: object) -> str:
    return result[0] if name == "Phi3Model" else completion(result)["choices"][0]["message"]["content"]


def pins(folder: Path) -> list[str]:
    return (folder / "requirements.txt").read_text().split()


@pytest.mark.parametrize("name", NAMES)
def test_no_pickle_is_stored(logged, name):
    files = [path for path in logged[name].rglob("*") if path.is_file()]
    suffixes = {".pkl", ".pickle", ".bin", ".pt", ".pth", ".joblib"}
    headers = {b"\x80" + bytes([protocol]) for protocol in range(2, 6)}
    assert [path for path in files if path.suffix in suffixes or path.open("rb").read(2) in headers] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_where_pickles_are_forbidden(logged, name, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    assert mlflow.pyfunc.load_model(str(logged[name])).metadata.signature is not None


def test_that_switch_does_forbid_pickles(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.pyfunc.save_model(tmp_path / "pickled", python_model=mlflow.pyfunc.PythonModel())
    with pytest.raises(mlflow.exceptions.MlflowException, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION"):
        mlflow.pyfunc.load_model(str(tmp_path / "pickled"))


@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_exact(logged, name):
    packages = [pin.split("==")[0] for pin in pins(logged[name])]
    assert packages == list(dict.fromkeys(packages)) != []
    assert [pin for pin in pins(logged[name]) if pin.count("==") != 1 or "+" in pin] == []


@pytest.mark.parametrize("name", ONNX)
def test_the_code_stored_is_only_what_it_runs(logged, name):
    code = logged[name] / "code"
    assert [path.name for path in code.iterdir()] == ["phi3kit"]
    rooms = {path.name for path in (code / "phi3kit").iterdir()} - {"__pycache__"}
    assert rooms == {"__init__.py", "errors.py", "system", "chat", "generation", "wrappers"}
    assert {path.suffix for path in code.rglob("*") if path.is_file()} <= {".py", ".pyc"}


def test_both_onnx_wrappers_store_the_same_code_and_pins(logged):
    sources = [
        {path.relative_to(logged[name]): path.read_bytes() for path in (logged[name] / "code").rglob("*.py")}
        for name in ONNX
    ]
    assert sources[0] == sources[1]
    assert pins(logged["Phi3Model"]) == pins(logged["Phi3Chat"])


PREDICT = """
import json, sys
import mlflow
folder, request, out = sys.argv[1:]
mlflow.models.predict(folder, input_data=json.loads(request), env_manager="uv", output_path=out)
"""


# Of the two ONNX wrappers one is enough: they store the same code and pins.
@pytest.mark.online
@pytest.mark.parametrize("name", NAMES[1:])
def test_it_runs_where_only_its_requirements_are(logged, name, tmp_path):
    assert [pin for pin in pins(logged[name]) if "phi3kit" in pin] == []
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "MLFLOW"))}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path / 'none.db'}"
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    if name == "pipeline":
        environment["UV_FIND_LINKS"] = folder_with_torch()
    out = tmp_path / "answer.json"
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, str(logged[name]), json.dumps(request_of(name)), str(out)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert text_of(name, json.loads(out.read_text())) == ANSWER


def folder_with_torch() -> str:
    """Where pip finds a CPU build of torch without a network; PyPI's would be several GB."""
    pip = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    configured = subprocess.run(pip, capture_output=True, text=True, check=False).stdout.strip()
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or configured
    if not any(Path(link).is_dir() and list(Path(link).glob("torch-*")) for link in links.split()):
        pytest.skip("no folder with a CPU build of torch is configured")
    return links


@pytest.fixture(scope="module")
def old(tmp_path_factory, tiny_onnx) -> Path:
    """The folders that version 0.1 stored, complete."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD) as archive:
        archive.extractall(folder, filter="data")
    for artifacts in folder.glob("*/artifacts/*"):
        shutil.copytree(tiny_onnx, artifacts, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("name", ONNX)
def test_a_model_of_version_0_1_loads_beside_the_kit(old, name):
    # This process has imported the kit, so the stored model runs today's code.
    model = mlflow.pyfunc.load_model(str(old / name))
    assert text_of(name, model.predict(request_of(name))) == ANSWER


OWN_CODE = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
result = model.predict(json.loads(sys.argv[2]))
import phi3kit
print(json.dumps([phi3kit.__file__, result]))
"""


@pytest.mark.parametrize("name", ONNX)
def test_a_model_of_version_0_1_loads_with_its_own_code(old, name):
    command = [sys.executable, "-c", OWN_CODE, str(old / name), json.dumps(request_of(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    file, result = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(old / name)
    assert text_of(name, result) == ANSWER
