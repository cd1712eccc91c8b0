"""A notebook's parameters, the results that it records, and its kernel's environment: before any kernel starts."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from phi3kit.errors import InvalidRequest, NotebookFailed, WeightsError
from phi3kit.workbook.running import kernel, results
from phi3kit.workbook.running.parameters import check, defaults
from phi3kit.workbook.running.runner import run

PARAMETERS = """\
question = "Why?"  # what to ask
max_tokens = 64  # how much
temperature = 0.0  # how wild
should_cleanup = False  # remove what was made
experiment: str | None = None  # where
seeds = [1, 2]  # a list"""


@pytest.fixture
def notebook(tmp_path):
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell("raise SystemExit")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "n.ipynb")
    return tmp_path / "n.ipynb"


def test_defaults_are_read_without_running_anything(notebook):
    assert defaults(notebook) == {
        "question": "Why?",
        "max_tokens": 64,
        "temperature": 0.0,
        "should_cleanup": False,
        "experiment": None,
        "seeds": [1, 2],
    }


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("question", "12", "12"),
        ("max_tokens", "7", 7),
        ("temperature", "1", 1.0),
        ("temperature", 1, 1.0),
        ("should_cleanup", "Yes", True),
        ("should_cleanup", False, False),
        ("experiment", "mine", "mine"),
        ("experiment", "None", None),
        ("seeds", "[3]", [3]),
    ],
)
def test_values_take_the_type_of_the_default(notebook, name, value, expected):
    result = check(notebook, {name: value})[name]
    assert (result, type(result)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_token": 1}, "parameter='max_token' .*question, max_tokens, temperature"),
        ({"max_tokens": "many"}, "max_tokens='many' .*a whole number"),
        ({"max_tokens": 1.5}, r"max_tokens=1\.5 .*a whole number"),
        ({"max_tokens": True}, "max_tokens=True .*a whole number"),
        ({"temperature": "hot"}, "temperature='hot' .*a number"),
        ({"should_cleanup": "perhaps"}, "should_cleanup='perhaps' .*true or false"),
        ({"question": 3}, "question=3 .*text"),
        ({"seeds": "3"}, "seeds=3 .*list"),
    ],
)
def test_wrong_parameters_are_refused_before_a_run(notebook, tmp_path, parameters, message):
    with pytest.raises(InvalidRequest, match=message):
        run(notebook, parameters, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_unknown_model_is_refused_before_a_run(tmp_path):
    cell = new_code_cell("model = 'tiny'", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    with pytest.raises(WeightsError, match="did you mean 'tiny'"):
        run(tmp_path / "n.ipynb", {"model": "tinny"}, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_notebook_without_parameters_takes_none(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "n.ipynb")
    with pytest.raises(InvalidRequest, match="none, it has none"):
        run(tmp_path / "n.ipynb", {"model": "tiny"})


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(NotebookFailed, match=r"no notebook .*absent\.ipynb"):
        run(tmp_path / "absent.ipynb")


def test_outside_a_notebook_record_does_nothing(capsys):
    results.record(value=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [object(), float("nan")], ids=["object", "nan"])
def test_record_refuses_what_json_cannot_hold(value):
    with pytest.raises(InvalidRequest, match="value="):
        results.record(value=value)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///here.db", "sqlite:///{folder}/here.db"),
        ("sqlite+pysqlite:///here.db?timeout=5", "sqlite+pysqlite:///{folder}/here.db?timeout=5"),
        ("sqlite:////abs/here.db", "sqlite:////abs/here.db"),
        ("http://localhost:5000", "http://localhost:5000"),
        ("", ""),
        ("sqlite://", "sqlite://"),
    ],
)
def test_a_kernel_finds_the_same_store(uri, expected, tmp_path):
    variables = kernel.environment({"MLFLOW_TRACKING_URI": uri}, tmp_path)
    assert variables["MLFLOW_TRACKING_URI"] == expected.format(folder=tmp_path.as_posix())


def test_a_kernel_gets_no_store_where_none_is_set(tmp_path):
    assert "MLFLOW_TRACKING_URI" not in kernel.environment({}, tmp_path)
