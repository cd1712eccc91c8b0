"""`phi3kit run` and `refresh` with a real kernel, on notebooks of two cells; `tests/unit/test_cli.py` has the rest."""

import re
import shlex

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from phi3kit.cli import app
from phi3kit.errors import NotebookFailed
from phi3kit.workbook.running import paths, results, runner

PARAMETERS = "model = 'tiny'\nquestion = ''\nmax_tokens = 1\ntemperature = 0.0\nexperiment = ''\nshould_cleanup = False"
RECORD = """\
import os
from phi3kit.workbook.running.results import record
record(answer=os.environ.get("PHI3KIT_FORCE"), parameters=[question, max_tokens])"""
QUESTION = """Who said "it's $HOME; {not} `so`"?\nAnd = why?"""
RED, GREEN = "TransformerPipeline", "CustomPythonWrapper"


def write(name, source):
    first = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    path = paths.NOTEBOOKS / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=[first, new_code_cell(source)]), path)
    return path


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    """A workbook of two small notebooks with the real ones' names and parameters; the first fails."""
    folder = tmp_path_factory.mktemp("workbook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "NOTEBOOKS", folder / "notebooks")
        patch.setattr(paths, "RUNS", folder / "runs")
        patch.setenv("PHI3KIT_FORCE", "")
        patch.chdir(folder)
        paths.NOTEBOOKS.mkdir()
        write(RED, "print('seen')\nraise RuntimeError")
        write(GREEN, RECORD)
        yield folder


@pytest.fixture(scope="module")
def done(workbook):
    """The result of the command that `mlflow run` makes of MLproject, with `--force`."""
    from mlflow.projects._project_spec import load_project

    entry = load_project(str(paths.ROOT)).get_entry_point("custom_python_wrapper")
    command = shlex.split(entry.compute_command({"question": QUESTION, "max_tokens": "5"}, None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_FORCE", "")  # `--force` sets it
        return call(*command[3:], "--force")


def test_a_green_notebook_gives_exit_code_0(done):
    assert done.exit_code == 0, done.output


def test_values_reach_the_notebook_with_their_types(done, workbook):
    (executed,) = (workbook / "runs").glob(f"*/{GREEN}.ipynb")
    assert results.read(executed)["parameters"] == [QUESTION, 5]


def test_force_reaches_the_kernel(done):
    assert "  answer    1\n" in done.stdout


def test_the_next_run_says_how_long_this_one_took(done, monkeypatch):
    def stop(path, parameters):
        raise NotebookFailed("not now")

    monkeypatch.setattr(runner, "run", stop)
    assert re.search(r"the last run took \d+ s\. Ctrl-C ends it", call("run", GREEN).stderr)


@pytest.fixture(scope="module")
def refreshed(workbook):
    """The exit code of `phi3kit refresh`, and the bytes of the notebook that fails, as they were before."""
    before = (paths.NOTEBOOKS / f"{RED}.ipynb").read_bytes()
    return call("refresh").exit_code, before


def test_refresh_gives_exit_code_1_when_a_notebook_fails(refreshed):
    assert refreshed[0] == 1


def test_refresh_does_not_change_a_notebook_that_fails(refreshed):
    assert (paths.NOTEBOOKS / f"{RED}.ipynb").read_bytes() == refreshed[1]


def test_refresh_keeps_new_outputs(refreshed):
    (output,) = nbformat.read(paths.NOTEBOOKS / f"{GREEN}.ipynb", as_version=4).cells[1].outputs
    assert output.data[results.MEDIA_TYPE]["parameters"] == ["", 1]


def test_a_second_refresh_changes_no_byte(refreshed):
    notebook = paths.NOTEBOOKS / f"{GREEN}.ipynb"
    before = notebook.read_bytes()
    assert call("refresh", GREEN).exit_code == 0
    assert notebook.read_bytes() == before


def test_refresh_leaves_no_other_file(refreshed):
    assert {path.name for path in paths.NOTEBOOKS.iterdir()} == {f"{RED}.ipynb", f"{GREEN}.ipynb"}
