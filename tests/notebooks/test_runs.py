"""The notebooks run for real: by the runner, under `mlflow run`, and under nbval, with a store of the tests' own."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import chromium
import pytest

from phi3kit import tracking
from phi3kit.workbook.running import kernel
from phi3kit.workbook.running.parameters import defaults
from phi3kit.workbook.running.paths import NOTEBOOKS, ROOT, RUNS, notebooks
from phi3kit.workbook.running.results import read
from phi3kit.workbook.running.runner import run

pytestmark = [pytest.mark.notebooks, pytest.mark.tiny]

NAMES = [path.stem for path in notebooks()]
QUESTION = """What's the "capital" of France?"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with the experiments that the tests use; their artifacts lie beside it."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    tracking.create(folder / "mlflow.db")
    client = mlflow.MlflowClient(uri := tracking.sqlite_address(folder / "mlflow.db"))
    names = {"elsewhere", "projects", *(defaults(path)["experiment"] for path in NOTEBOOKS.glob("*.ipynb"))}
    for experiment in names:
        client.create_experiment(experiment, artifact_location=(folder / "artifacts").as_uri())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(variable, raising=False)
        yield client


@pytest.fixture(autouse=True, scope="module")
def clean_repository():
    """A run leaves its outputs under runs/ and in the store, and nowhere else in the repository."""
    before = {path for folder in (ROOT, NOTEBOOKS) for path in folder.iterdir()}
    committed = {path: path.read_bytes() for path in NOTEBOOKS.glob("*.ipynb")}
    yield
    ignored = {ROOT / "runs", ROOT / ".pytest_cache", ROOT / ".ruff_cache"}
    assert {path for folder in (ROOT, NOTEBOOKS) for path in folder.iterdir()} - before <= ignored
    assert {path: path.read_bytes() for path in NOTEBOOKS.glob("*.ipynb")} == committed


PARAMETERS = {"question": QUESTION, "max_tokens": 12, "temperature": 0.5, "experiment": "elsewhere"}


@pytest.fixture(scope="module")
def project(store, tmp_path_factory):
    """`mlflow run` of one notebook; both entry points end in the same command, and a unit test compares them."""
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-e", "transformer_pipeline", "--env-manager", "local"]
    values = PARAMETERS | {"should_cleanup": True}
    parameters = [part for name, value in values.items() for part in ("-P", f"{name}={value}")]
    programs = str(Path(sys.executable).parent)  # as after `source .venv/bin/activate`
    done = subprocess.run(
        [*command, "--experiment-name", "projects", *parameters],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    runs = store.search_runs([store.get_experiment_by_name("projects").experiment_id])
    (project,) = (each for each in runs if "mlflow.parentRunId" not in each.data.tags)
    return project, [each for each in runs if each.data.tags.get("mlflow.parentRunId") == project.info.run_id]


@pytest.fixture(scope="module", params=NAMES)
def executed_notebook(request, store, tmp_path_factory, executed):
    """A notebook that ran with other parameters than its own, one by itself and one under `mlflow run`."""
    if request.param == "TransformerPipeline":
        request.getfixturevalue("project")
        notebook = max(RUNS.glob("*-TransformerPipeline*/TransformerPipeline.ipynb"))
    else:
        runs = tmp_path_factory.mktemp("runs")
        parameters = PARAMETERS | {"should_cleanup": True}
        notebook = run(NOTEBOOKS / f"{request.param}.ipynb", parameters, runs=runs).require().notebook
    for file in (notebook, notebook.with_suffix(".html")):
        shutil.copy(file, executed)
    return notebook


@pytest.fixture(scope="module")
def results(executed_notebook):
    """What its cells recorded."""
    return read(executed_notebook)


def test_a_run_makes_a_page(executed_notebook):
    assert executed_notebook.with_suffix(".html").stat().st_size > 100_000


def test_a_run_logs_and_serves_a_model(results):
    assert results["model_uri"].startswith("models:/m-")
    assert results["served"] == 200


def test_parameters_reach_the_cells(results):
    assert results["answer"].strip()
    assert 1 <= results["completion_tokens"] <= 12
    assert results["total_tokens"] == results["prompt_tokens"] + results["completion_tokens"]


def test_the_second_notebook_compares_both_wrappers(executed_notebook, results):
    if executed_notebook.stem != "CustomPythonWrapper":
        pytest.skip("the other notebook has one wrapper")
    assert (results["rows"], results["refused"], len(results["first_tokens_agree"])) == (2, 400, 5)


def test_runs_are_recorded_in_the_experiment_asked_for(executed_notebook, store):
    if executed_notebook.stem == "TransformerPipeline":
        pytest.skip("under `mlflow run`, the runs are in the project's experiment")
    assert store.search_runs([store.get_experiment_by_name("elsewhere").experiment_id])


def test_should_cleanup_removes_the_registered_models(executed_notebook, store):
    assert store.search_registered_models() == []


@pytest.mark.skipif(
    bool(chromium.executable()), reason="the browser's tests compare the outputs of a run in JupyterLab"
)
@pytest.mark.parametrize("name", NAMES)
def test_stable_outputs_are_the_committed_ones(name, store):
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"notebooks/{name}.ipynb"],
        cwd=ROOT,
        # The name of a session makes the kernel show its forms, as in JupyterLab.
        env=kernel.environment(os.environ, ROOT) | {"JPY_SESSION_NAME": f"{name}.ipynb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_mlflow_run_records_the_parameters(project):
    recorded = {name: shlex.split(project[0].data.params[name]) for name in PARAMETERS}  # MLflow records them quoted
    assert recorded == {name: [str(value)] for name, value in PARAMETERS.items()}


def test_under_mlflow_run_the_notebooks_runs_are_nested(project):
    outer, nested = project
    assert nested
    assert {each.info.status for each in [outer, *nested]} == {"FINISHED"}
