"""`phi3kit run` and `refresh`, and the entry points of `MLproject` that call them, on notebooks of two cells."""

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from phi3kit.cli import app
from phi3kit.workbook import places, results

ENTRY_POINTS = {"transformer_pipeline": "TransformerPipeline", "custom_python_wrapper": "CustomPythonWrapper"}
RECORD = "from phi3kit.workbook.results import record"


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    """A workbook of two small notebooks with the real ones' names and parameters."""
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(places, "RUNS", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    places.NOTEBOOKS.mkdir()
    for name in ("CustomPythonWrapper", "TransformerPipeline"):
        write(name, f"{RECORD}\nrecord(model_uri='models:/m-1', asked=[question, max_tokens])")
    return tmp_path


def write(name: str, source: str) -> Path:
    parameters = (
        "model = 'tiny'\nquestion = ''\nmax_tokens = 1\ntemperature = 0.0\nexperiment = ''\nshould_cleanup = False"
    )
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    path = places.NOTEBOOKS / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell(source)]), path)
    return path


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_without_a_name_all_notebooks_run_in_the_order_of_the_story(workbook):
    done = call("run", "-p", "question=What is 1=1?", "-p", "max_tokens=3")
    assert done.exit_code == 0, done.output
    told = done.stdout.splitlines()
    assert [line.split()[0:2] for line in told[::4]] == [["TransformerPipeline", "ok"], ["CustomPythonWrapper", "ok"]]
    assert told[1].startswith("  notebook  runs/") and told[1].endswith("/TransformerPipeline.ipynb")
    assert told[2].startswith("  page      runs/") and told[2].endswith("/TransformerPipeline.html")
    assert told[3] == "  model     models:/m-1"
    executed = workbook / told[1].split()[1]
    assert results.read(executed)["asked"] == ["What is 1=1?", 3]


def test_a_failed_notebook_gives_exit_code_1_and_the_next_one_still_runs(workbook):
    write("TransformerPipeline", "raise RuntimeError('[bold] no')")
    done = call("run")
    assert done.exit_code == 1
    assert "Cell [2] failed:" in done.stdout and "RuntimeError: [bold] no" in done.stdout
    assert "CustomPythonWrapper  ok" in done.stdout


def test_a_run_says_how_long_the_last_one_took(workbook):
    first, second = call("run", "CustomPythonWrapper"), call("run", "CustomPythonWrapper")
    assert first.stderr == (
        "CustomPythonWrapper: with `tiny` about a minute on two free cores. Ctrl-C ends it and keeps what has run.\n"
    )
    assert re.search(r"CustomPythonWrapper: the last run took \d+ s\. Ctrl-C ends it", second.stderr)


def test_force_reaches_the_kernel(workbook, monkeypatch):
    monkeypatch.setenv("PHI3KIT_FORCE", "")
    write("CustomPythonWrapper", f"{RECORD}\nimport os\nrecord(answer=os.environ['PHI3KIT_FORCE'])")
    assert "  answer    1\n" in call("run", "CustomPythonWrapper", "--force").stdout


def test_refresh_keeps_new_outputs_only_of_a_notebook_that_ended_well(workbook):
    green, red = places.notebooks()
    write(red.stem, "print('seen')\nraise RuntimeError")
    before = red.read_bytes()
    assert call("refresh").exit_code == 1
    assert nbformat.read(green, as_version=4).cells[1].outputs[0].data == {
        results.MEDIA_TYPE: {"model_uri": "models:/m-1", "asked": ["", 1]}
    }
    assert red.read_bytes() == before
    once = green.read_bytes()
    assert call("refresh", "TransformerPipeline").exit_code == 0
    assert green.read_bytes() == once
    assert sorted(path.name for path in places.NOTEBOOKS.iterdir()) == [red.name, green.name]


@pytest.mark.parametrize(("entry_point", "notebook"), ENTRY_POINTS.items())
def test_mlproject_hands_every_value_through_the_shell_unharmed(workbook, entry_point, notebook):
    from mlflow.projects._project_spec import load_project

    question = """Who said "it's $HOME; {not} `so`"?\nAnd = why?"""
    entry = load_project(str(places.ROOT)).get_entry_point(entry_point)
    python, dash_m, module, *arguments = shlex.split(
        entry.compute_command({"question": question, "max_tokens": "5"}, None)
    )
    assert (python, dash_m, module) == ("python", "-m", "phi3kit.cli")
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    (executed,) = (workbook / "runs").glob(f"*/{notebook}.ipynb")
    assert results.read(executed)["asked"] == [question, 5]
