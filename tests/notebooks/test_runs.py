"""Both notebooks run for real, each in the three ways: under papermill, as in JupyterLab, and under `mlflow run`.

Every test has a store of its own.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phi3kit.workbook import kernel
from phi3kit.workbook.parameters import defaults
from phi3kit.workbook.places import NOTEBOOKS, ROOT, RUNS
from phi3kit.workbook.results import read
from phi3kit.workbook.runner import run

pytestmark = [pytest.mark.notebooks, pytest.mark.tiny]

ENTRY_POINTS = {"TransformerPipeline": "transformer_pipeline", "CustomPythonWrapper": "custom_python_wrapper"}
QUESTION = """What's the "capital" of France?"""


@pytest.fixture(params=ENTRY_POINTS)
def name(request):
    return request.param


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store with the experiments that a test will use; their artifacts lie beside it."""
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    client = mlflow.MlflowClient(uri)
    names = {"elsewhere", "projects", *(defaults(path)["experiment"] for path in NOTEBOOKS.glob("*.ipynb"))}
    for experiment in names:
        client.create_experiment(experiment, artifact_location=(tmp_path / "artifacts").as_uri())
    return client


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """A run leaves its outputs under runs/ and in the store, and nowhere else in the repository."""
    before = {path for folder in (ROOT, NOTEBOOKS) for path in folder.iterdir()}
    committed = {path: path.read_bytes() for path in NOTEBOOKS.glob("*.ipynb")}
    yield
    passing = {ROOT / "runs", ROOT / ".pytest_cache", ROOT / ".ruff_cache"}
    assert {path for folder in (ROOT, NOTEBOOKS) for path in folder.iterdir()} - before <= passing
    assert {path: path.read_bytes() for path in NOTEBOOKS.glob("*.ipynb")} == committed


def test_under_papermill_with_other_parameters(name, store, tmp_path, executed):
    parameters = {"question": QUESTION, "max_tokens": 12, "temperature": 0.5, "experiment": "elsewhere"}
    outcome = run(NOTEBOOKS / f"{name}.ipynb", parameters | {"should_cleanup": True}, runs=tmp_path / "runs").require()

    for made in (outcome.notebook, outcome.html):
        shutil.copy(made, executed)
    results = outcome.results
    assert outcome.html.stat().st_size > 100_000
    assert results["model_uri"].startswith("models:/m-")
    assert results["served"] == 200
    assert results["answer"].strip()
    assert 1 <= results["completion_tokens"] <= 12
    assert results["total_tokens"] == results["prompt_tokens"] + results["completion_tokens"]
    if name == "CustomPythonWrapper":
        assert results["rows"] == 2
        assert results["refused"] == 400
        assert len(results["first_tokens_agree"]) == 5
    assert store.search_runs([store.get_experiment_by_name("elsewhere").experiment_id])
    assert store.search_registered_models() == []  # it cleaned up


def test_as_in_jupyterlab_its_stable_outputs_are_the_committed_ones(name, store, tmp_path):
    """nbval compares the tagged cells; given a session's name, the kernel shows its forms, as in Lab."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"notebooks/{name}.ipynb"],
        cwd=ROOT,
        env=kernel.environment(os.environ, ROOT) | {"JPY_SESSION_NAME": f"{name}.ipynb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_under_mlflow_run_it_attaches_to_the_projects_run(name, store, tmp_path):
    entry_point = ENTRY_POINTS[name]
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", entry_point, "--env-manager", "local"]
    parameters = {"question": QUESTION, "max_tokens": "9", "experiment": "elsewhere"}
    given = [part for key, value in parameters.items() for part in ("-P", f"{key}={value}")]
    here = str(Path(sys.executable).parent)  # as after `source .venv/bin/activate`
    done = subprocess.run(
        [*command, "--experiment-name", "projects", *given],
        cwd=tmp_path,
        env={**os.environ, "PATH": os.pathsep.join([here, os.environ.get("PATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    runs = store.search_runs([store.get_experiment_by_name("projects").experiment_id])
    (project,) = (each for each in runs if "mlflow.parentRunId" not in each.data.tags)
    nested = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == project.info.run_id]
    assert project.info.status == "FINISHED"
    recorded = {key: shlex.split(project.data.params[key]) for key in parameters}  # MLflow records them quoted
    assert recorded == {key: [value] for key, value in parameters.items()}
    assert nested and {each.info.status for each in nested} == {"FINISHED"}
    results = read(max(RUNS.glob(f"*-{name}*/{name}.ipynb")))
    assert results["served"] == 200
    assert 1 <= results["completion_tokens"] <= 9
