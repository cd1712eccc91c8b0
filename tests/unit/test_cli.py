"""The command `phi3kit` and the entry points of `MLproject` that call it; notebooks run in `tests/integration`."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from typer.testing import CliRunner

import phi3kit
from phi3kit import errors
from phi3kit.cli import app
from phi3kit.system import requirements
from phi3kit.workbook.running import history, paths, runner
from phi3kit.workbook.running.clean import clean

ENTRY_POINTS = {"transformer_pipeline": "TransformerPipeline", "custom_python_wrapper": "CustomPythonWrapper"}
PROJECT = yaml.safe_load((paths.ROOT / "MLproject").read_text(encoding="utf-8"))


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """An empty folder of runs, below the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def verdicts(runs, monkeypatch):
    """A verdict for each notebook, by its name: nothing runs. `parameters` lists what each run got, in order."""
    verdicts = {"parameters": []}

    def run(notebook, parameters=None):
        verdicts["parameters"].append((notebook.stem, parameters))
        verdict = verdicts.get(notebook.stem, "ok")
        executed = runs / f"now-{notebook.stem}" / notebook.name
        error = "" if verdict == "ok" else "Cell [2] failed:\nRuntimeError: [bold] no"
        results = {"model_uri": "models:/m-1"}
        return runner.Outcome(notebook.stem, verdict, 2.0, executed, executed.with_suffix(".html"), results, error)

    monkeypatch.setattr(runner, "run", run)
    return verdicts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Absent"], "There is no notebook Absent. The workbook's are TransformerPipeline, CustomPythonWrapper. Type"),
        (["Wrapper"], "Type for example: phi3kit run CustomPythonWrapper"),
        (["-p", "max_tokens"], "-p max_tokens gives no value. Type for example: phi3kit run -p max_tokens=32"),
        (["--parameter", "x"], "There is no option --parameter"),
        (["-p", "max_token=3"], "question, max_tokens, temperature"),
        (["-p", "max_tokens=many"], "a whole number"),
        (["-p", "max_tokens=0"], "max_tokens=0 is not allowed: give a whole number from 1"),
        (["-p", "max_tokens=100000"], "max_tokens=100000 is not allowed: give at most 8191"),
        (["-p", "temperature=5"], "temperature=5.0 is not allowed: give a number from 0 (greedy) to 2"),
        (["-p", "temperature=nan"], "temperature='nan' is not allowed: give a number"),
        (["-p", "should_cleanup=perhaps"], "true or false"),
        (["-p", "experiment="], "experiment='' is not allowed: give a text that is not empty"),
        (["-p", "question=caf\udce9"], "question='caf\\udce9' is not allowed: give a text in UTF-8"),
        (["-p", "model=tinny"], "did you mean 'tiny'?"),
        (["."], ". is a folder: give the path of a notebook in it."),
    ],
)
def test_a_wrong_argument_gives_one_sentence_alone(verdicts, arguments, message):
    result = call("run", *arguments)
    assert (message in result.stderr, len(result.stderr.splitlines()), result.stdout) == (True, 1, "")


@pytest.mark.parametrize(("argument", "code"), [("max_tokens=0", 2), ("max_token=1", 2), ("model=tinny", 1)])
def test_a_wrong_parameter_has_an_exit_code(argument, code):
    assert call("run", "-p", argument).exit_code == code


@pytest.fixture
def second_is_broken(tmp_path, monkeypatch):
    """A workbook of two notebooks, of which the second is empty."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    paths.NOTEBOOKS.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), paths.NOTEBOOKS / "A.ipynb")
    (paths.NOTEBOOKS / "B.ipynb").touch()


@pytest.mark.usefixtures("second_is_broken")
@pytest.mark.parametrize("command", ["run", "refresh"])
def test_all_notebooks_are_checked_before_the_first_runs(command, verdicts):
    result = call(command)
    assert (result.exit_code, verdicts["parameters"]) == (2, [])


@pytest.mark.usefixtures("second_is_broken")
def test_a_broken_notebook_is_named_in_one_sentence(verdicts):
    assert re.fullmatch(
        r"NOTEBOOK='.* is not allowed: give a Jupyter notebook \(B\.ipynb is empty\)\.\n", call("run").stderr
    )


@pytest.mark.skipif(os.name == "nt", reason="there, every argument is text")
def test_an_argument_without_utf_8_is_no_stack_trace(tmp_path):
    command = [sys.executable, "-m", "phi3kit.cli", "run", b"caf\xe9", "-p", b"\xe9"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_the_version_is_told_at_once(verdicts):
    result = call("--version", "run", "absent")
    assert (result.exit_code, result.stdout) == (0, f"phi3kit {phi3kit.__version__}\n")


@pytest.mark.parametrize("command", ["run", "refresh"])
def test_a_missing_extra_is_one_sentence(command, verdicts, monkeypatch):
    monkeypatch.setitem(requirements.EXTRAS, "notebooks", ("absent",))
    result = call(command)
    assert (result.exit_code, verdicts["parameters"]) == (1, [])
    assert "pip install 'phi3kit[notebooks]'" in result.stderr


def test_without_a_name_all_notebooks_run_in_order(verdicts):
    assert call("run", "-p", "question=What is 1=1?").exit_code == 0
    parameters = {"question": "What is 1=1?"}
    assert verdicts["parameters"] == [("TransformerPipeline", parameters), ("CustomPythonWrapper", parameters)]


def test_a_run_prints_where_its_results_are(verdicts):
    assert call("run", "TransformerPipeline").stdout.splitlines() == [
        "TransformerPipeline  ok  2 s",
        "  notebook  runs/now-TransformerPipeline/TransformerPipeline.ipynb",
        "  page      runs/now-TransformerPipeline/TransformerPipeline.html",
        "  model     models:/m-1",
    ]


@pytest.fixture
def failed(verdicts):
    verdicts["TransformerPipeline"] = "failed"
    return call("run")


def test_a_failed_notebook_gives_exit_code_1(failed):
    assert failed.exit_code == 1


def test_the_error_of_a_failed_notebook_is_printed_as_it_is(failed):
    assert "Cell [2] failed:\nRuntimeError: [bold] no\n" in failed.stdout


def test_after_a_failed_notebook_the_next_one_runs(failed):
    assert "CustomPythonWrapper  ok" in failed.stdout


def test_after_an_interrupted_notebook_no_other_runs(verdicts):
    verdicts["TransformerPipeline"] = "interrupted"
    assert call("run").exit_code == 130
    assert len(verdicts["parameters"]) == 1


@pytest.fixture
def nothing_cached(monkeypatch):
    from phi3kit.weights import cached

    monkeypatch.setattr(cached, "list_cached", list)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("tiny", "CustomPythonWrapper: with `tiny` one to three minutes on two free cores"),
        (
            "phi-4-mini-instruct",
            "CustomPythonWrapper: its first run with phi-4-mini-instruct, up to 12.6 GB to download; ",
        ),
        ("some/one", "CustomPythonWrapper: its first run with some/one; with `tiny` one to three minutes"),
    ],
)
@pytest.mark.usefixtures("verdicts", "nothing_cached")
def test_before_its_first_run_a_notebook_has_an_estimate(model, sentence):
    assert call("run", "CustomPythonWrapper", "-p", f"model={model}").stderr.startswith(sentence)


@pytest.fixture
def earlier(runs):
    """Two runs: a good one of 72 s, and a later one whose verdict and model a test chooses."""

    def keep(verdict, model="tiny"):
        for folder, *outcome in (("1", "ok", 71.6, "tiny"), ("2", verdict, 3.0, model)):
            executed = runs / folder / "CustomPythonWrapper.ipynb"
            executed.parent.mkdir(parents=True)
            executed.touch()
            history.note(executed, *outcome)

    return keep


@pytest.mark.parametrize(
    ("verdict", "model", "seconds"),
    [("ok", "tiny", 3), ("failed", "tiny", 72), ("interrupted", "tiny", 72), ("ok", "phi-4-mini-instruct", 72)],
)
def test_a_run_says_how_long_the_last_good_one_took(verdicts, earlier, verdict, model, seconds):
    earlier(verdict, model)
    assert f"the last run took {seconds} s." in call("run", "CustomPythonWrapper").stderr


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"verdict": "ok", "seconds": null, "model": "tiny"}'])
def test_a_damaged_record_of_a_run_does_not_count(verdicts, runs, earlier, content):
    earlier("ok")
    (runs / "2" / history.FILE).write_text(content, encoding="utf-8")
    assert "the last run took 72 s." in call("run", "CustomPythonWrapper").stderr


@pytest.mark.parametrize("argument", ["max_tokens=0", "max_token=1"])
def test_no_time_is_told_of_a_run_that_is_refused(verdicts, argument):
    assert "Ctrl-C ends it" not in call("run", "-p", argument).stderr


@pytest.mark.parametrize(("entry_point", "notebook"), ENTRY_POINTS.items())
def test_mlproject_passes_every_value_through_the_shell(verdicts, entry_point, notebook):
    from mlflow.projects._project_spec import load_project

    question = """Who said "it's $HOME; {not} `so`"?\nAnd = why?"""
    entry = load_project(str(paths.ROOT)).get_entry_point(entry_point)
    command = shlex.split(entry.compute_command({"question": question, "max_tokens": "5"}, None))
    assert command[:3] == ["python", "-m", "phi3kit.cli"]
    call(*command[3:])
    ((name, parameters),) = verdicts["parameters"]
    assert (name, parameters["question"], parameters["max_tokens"]) == (notebook, question, "5")


def test_a_parameter_that_mlproject_lacks_is_refused():
    from mlflow.projects._project_spec import load_project

    entry = load_project(str(paths.ROOT)).get_entry_point("transformer_pipeline")
    command = shlex.split(entry.compute_command({"max_token": "5"}, None))
    assert command[-2:] == ["--max_token", "5"]  # MLflow appends it as an option
    result = call(*command[3:])
    assert result.exit_code == 2
    assert result.stderr.startswith("There is no option --max_token: a notebook's parameter is given as -p NAME=VALUE")


def test_mlproject_has_one_entry_point_per_notebook():
    assert set(PROJECT["entry_points"]) == set(ENTRY_POINTS)


def test_ctrl_c_in_any_command_is_one_sentence(monkeypatch):
    from phi3kit import weights

    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "checkpoint", interrupt)
    result = call("weights", "fetch", "tiny")
    assert (result.exit_code, len(result.stderr.splitlines())) == (130, 1)


@pytest.fixture
def fetchable(tmp_path, monkeypatch):
    """A model of 2 MB in both forms."""
    from phi3kit import weights

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_bytes(b"x" * 2_000_000)
    monkeypatch.setattr(weights, "checkpoint", lambda name: tmp_path / "model")
    monkeypatch.setattr(weights, "onnx", lambda name, target: tmp_path / "model")


@pytest.mark.parametrize(
    ("arguments", "forms"),
    [((), ["tiny, checkpoint", "tiny, onnx"]), (("--form", "onnx"), ["tiny, onnx"])],
    ids=["both", "one"],
)
def test_fetch_obtains_both_forms_or_one(fetchable, arguments, forms):
    lines = call("weights", "fetch", "tiny", *arguments).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == forms


def test_fetch_tells_the_size(fetchable):
    assert "(2 MB, " in call("weights", "fetch", "tiny").stdout


@pytest.mark.usefixtures("fetchable", "nothing_cached")
@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["phi-3-mini-4k-instruct"], "up to 10.4 GB to download, checkpoint and onnx."),
        (["phi-4-mini-instruct", "--form", "onnx"], "up to 4.93 GB to download, onnx."),
    ],
)
def test_fetch_tells_the_size_before_it_begins(arguments, size):
    assert call("weights", "fetch", *arguments).stderr == f"{arguments[0]}: {size}\n"


def test_fetch_tells_no_size_of_files_that_are_here(fetchable, monkeypatch):
    from phi3kit.weights import CATALOG, Form, cached

    source = CATALOG["phi-4-mini-instruct"].onnx
    here = cached.Cached("phi-4-mini-instruct", Form.ONNX, Path(source.repo), source.disk - 1)
    monkeypatch.setattr(cached, "list_cached", lambda: [here])
    assert call("weights", "fetch", "phi-4-mini-instruct", "--form", "onnx").stderr == ""


def test_an_error_of_the_kit_is_printed_without_a_stack_trace(fetchable, monkeypatch):
    from phi3kit import weights

    def fail(name, target):
        raise errors.WeightsError("Do this next.")

    monkeypatch.setattr(weights, "onnx", fail)
    result = call("weights", "fetch", "tiny")
    assert (result.exit_code, result.stderr) == (1, "Do this next.\n")


@pytest.fixture
def used(tmp_path):
    """A repository with the output of runs, and files that are none."""
    removable = ("runs/a/x.ipynb", "mlartifacts/1/model", "mlflow.db", "mlflow.db-wal")
    for name in (*removable, ".venv/python", "notebooks/n.ipynb"):
        path = tmp_path / "used" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    return tmp_path / "used"


def test_clean_lists_what_it_removes(used):
    assert clean(used) == (["mlartifacts", "mlflow.db", "mlflow.db-wal", "runs"], 4000)


def test_clean_keeps_everything_else(used):
    clean(used)
    assert sorted(path.name for path in used.iterdir()) == [".venv", "notebooks"]


def test_clean_removes_nothing_the_second_time(used):
    clean(used)
    assert clean(used) == ([], 0)


def test_clean_needs_nothing_but_python():
    code = "import phi3kit.workbook.running.clean"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=paths.ROOT, check=True, capture_output=True)
