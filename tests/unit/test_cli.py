"""The command `phi3kit`, the entry points of `MLproject` that call it, and what they leave."""

import shlex

import pytest
import yaml
from typer.testing import CliRunner

from phi3kit import errors
from phi3kit.cli import app
from phi3kit.workbook import places
from phi3kit.workbook.clean import clean

ENTRY_POINTS = {"transformer_pipeline": "TransformerPipeline", "custom_python_wrapper": "CustomPythonWrapper"}
PROJECT = yaml.safe_load((places.ROOT / "MLproject").read_text(encoding="utf-8"))


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Absent"], "There is no notebook Absent. The workbook's are TransformerPipeline, CustomPythonWrapper. Type"),
        (["Wrapper"], "Type for example: phi3kit run CustomPythonWrapper"),
        (["-p", "max_tokens"], "-p max_tokens gives no value. Type for example: phi3kit run -p max_tokens=32"),
        (["--parameter", "x"], "There is no option --parameter"),
        (["-p", "max_token=3"], "question, max_tokens, temperature"),
        (["-p", "max_tokens=many"], "a whole number"),
    ],
)
def test_a_wrong_argument_gives_exit_code_2_and_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RUNS", tmp_path)
    done = call("run", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.output


def test_ctrl_c_in_any_command_is_one_sentence(monkeypatch):
    from phi3kit import weights

    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "checkpoint", interrupt)
    done = call("weights", "fetch", "tiny")
    assert done.exit_code == 130
    assert done.stderr == "Interrupted, and nothing is half-made: the same command goes on or starts over.\n"


def test_fetch_obtains_both_forms_and_tells_an_error_in_its_own_words(tmp_path, monkeypatch):
    from phi3kit import weights

    (tmp_path / "file").write_bytes(b"x" * 2_000_000)
    monkeypatch.setattr(weights, "checkpoint", lambda name: tmp_path)
    monkeypatch.setattr(weights, "onnx", lambda name: tmp_path)
    done = call("weights", "fetch", "tiny")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["tiny, checkpoint", "tiny, ONNX"]
    assert call("weights", "fetch", "tiny", "--form", "onnx").stdout.startswith("tiny, ONNX: ")
    assert "(2 MB, " in done.stdout

    def fail(name):
        raise errors.WeightsError("Do this next.")

    monkeypatch.setattr(weights, "onnx", fail)
    done = call("weights", "fetch", "tiny")
    assert (done.exit_code, done.stderr) == (1, "Do this next.\n")


def test_clean_removes_what_runs_left_and_nothing_else(tmp_path):
    for name in (
        "runs/a/x.ipynb",
        "mlartifacts/1/model",
        "mlflow.db",
        "mlflow.db-wal",
        ".venv/python",
        "notebooks/n.ipynb",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 1000)
    assert clean(tmp_path) == (["mlartifacts", "mlflow.db", "mlflow.db-wal", "runs"], 4000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".venv", "notebooks"]
    assert clean(tmp_path) == ([], 0)


def test_a_parameter_that_mlproject_does_not_name_is_told_in_a_sentence():
    from mlflow.projects._project_spec import load_project

    entry = load_project(str(places.ROOT)).get_entry_point("transformer_pipeline")
    command = shlex.split(entry.compute_command({"max_token": "5"}, None))
    assert command[-2:] == ["--max_token", "5"]  # what MLflow makes of it
    done = call(*command[3:])
    assert done.exit_code == 2
    assert done.stderr.startswith("There is no option --max_token: a notebook's parameter is given as -p NAME=VALUE")


def test_mlproject_has_one_entry_point_per_notebook():
    assert set(PROJECT["entry_points"]) == set(ENTRY_POINTS)
