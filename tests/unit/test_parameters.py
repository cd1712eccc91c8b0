"""A notebook's parameters, the results that it records, and its kernel's environment: before any kernel starts."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from phi3kit.errors import InvalidRequest, NotebookFailed, WeightsError
from phi3kit.generation.options import declared
from phi3kit.workbook.running import kernel, notebook, results
from phi3kit.workbook.running.parameters import check, defaults
from phi3kit.workbook.running.runner import run

PARAMETERS = """\
question = "Why?"  # what to ask
max_tokens = 64  # how much
temperature = 0.0  # how wild
should_cleanup = False  # remove what was made
experiment: str | None = None  # where
seeds = [1, 2]  # a list
sizes = (1, 2)  # a tuple
names = {1: "one"}  # a dict
kinds = {1, 2}  # a set
raw = b"ab"  # bytes
seed = None  # an option's name, and no default"""


@pytest.fixture
def path(tmp_path):
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell("raise SystemExit")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "n.ipynb")
    return tmp_path / "n.ipynb"


def test_defaults_are_read_without_running_anything(path):
    assert defaults(path) == {
        "question": "Why?",
        "max_tokens": 64,
        "temperature": 0.0,
        "should_cleanup": False,
        "experiment": None,
        "seeds": [1, 2],
        "sizes": (1, 2),
        "names": {1: "one"},
        "kinds": {1, 2},
        "raw": b"ab",
        "seed": None,
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
        ("sizes", "(3,)", (3,)),
        ("names", "{2: None}", {2: None}),
        ("kinds", "set()", set()),
        ("raw", r"b'\xe9'", b"\xe9"),
        ("seed", "7", 7),
        ("seed", "None", None),
        ("question", "café 😀", "café 😀"),
    ],
)
def test_values_take_the_type_of_the_default(path, name, value, expected):
    result = check(path, {name: value})[name]
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
        ({"sizes": "[1, 2]"}, r"sizes=\[1, 2\] .*a tuple as Python writes it, such as \(1, 2\)"),
        ({"kinds": "{}"}, r"kinds=\{\} .*a set"),
        ({"raw": "ab"}, "raw='ab' .*bytes"),
        ({"names": "["}, r"names='\[' .*a dict"),
        ({"names": "{[]: 1}"}, "names='.*a dict"),
        ({"seeds": "[" * 100_000}, "seeds='.*a list"),
        ({"seeds": [1e999]}, r"seeds=\[inf\] .*a finite number"),
        ({"experiment": object()}, "experiment=<object.*text, a finite number"),
        ({"question": "caf\udce9"}, r"question='caf\\udce9' .*a text in UTF-8"),
        ({"experiment": "\udce9"}, r"experiment='\\udce9' .*a text in UTF-8"),
        ({"question": " "}, "question=' ' .*a text that is not empty"),
        ({"max_tokens": "0"}, "max_tokens=0 .*a whole number from 1"),
        ({"max_tokens": 10**400}, "max_tokens=1000.* .*a whole number"),
        ({"temperature": "5"}, r"temperature=5\.0 .*a number from 0 \(greedy\) to 2"),
        ({"temperature": "nan"}, "temperature='nan' .*a number"),
        ({"temperature": 10**400}, "temperature=1000.* .*a number"),
        ({"seed": "-1"}, "seed=-1 .*a whole number from 0 to 2147483647"),
        ({"seed": "many"}, "seed='many' .*a whole number"),
    ],
)
def test_wrong_parameters_are_refused_before_a_run(path, tmp_path, parameters, message):
    with pytest.raises(InvalidRequest, match=message):
        run(path, parameters, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def write(tmp_path):
    """Write a notebook with one cell of parameters."""

    def write(*sources):
        cells = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in sources]
        nbformat.write(new_notebook(cells=cells), tmp_path / "one.ipynb")
        return tmp_path / "one.ipynb"

    return write


@pytest.mark.parametrize("option", declared(), ids=lambda option: option.name)
def test_every_option_is_checked_where_a_notebook_has_it(write, option):
    with pytest.raises(InvalidRequest) as refused:
        check(write(f"{option.name} = {option.default!r}"), {option.name: "(None,)" if option.many else "-1"})
    assert str(refused.value).endswith(f"{option.allowed}.")


def test_a_name_of_an_option_may_mean_something_else(write):
    path = write("temperature = 21.5  # of the air")
    assert check(path, {"temperature": "-40"}) == {"temperature": -40.0}


@pytest.mark.parametrize(
    ("source", "values", "most"),
    [
        ("model = 'tiny'\nmax_tokens = 1", {"max_tokens": "8192"}, 8191),
        ("model = 'tiny'\nmax_tokens = 1", {"max_tokens": "4096", "model": "phi-3-mini-4k-instruct"}, 4095),
        ("model = 'microsoft/Phi-3-mini-4k-instruct'\nmax_tokens = 5000", {"model": "tiny", "max_tokens": 9000}, 8191),
    ],
)
def test_an_answer_is_shorter_than_the_context_window(write, source, values, most):
    with pytest.raises(InvalidRequest, match=f"give at most {most}: the model's context window holds {most + 1} tok"):
        check(write(source), values)


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("model = 'tiny'\nmax_tokens = 1", {"max_tokens": 8191}),
        ("model = 'some/other'\nmax_tokens = 1", {"max_tokens": 10**6}),
        ("max_tokens = 1", {"max_tokens": 10**6}),
        ("model = ['tiny']\nmax_tokens = '1'", {"max_tokens": "many"}),
    ],
)
def test_an_unknown_context_window_limits_nothing(write, source, values):
    assert check(write(source), values) == values


def test_a_magic_beside_the_parameters_is_no_error(write):
    assert defaults(write("%matplotlib inline\nx = 1")) == {"x": 1}


@pytest.mark.parametrize("source", ["x = ", "x = 1\n  y = 2", "x = '\0'", "if:"])
def test_a_syntax_error_beside_the_parameters_is_named(write, source):
    with pytest.raises(InvalidRequest, match=r"one\.ipynb has a syntax error in its cell tagged `parameters`"):
        check(write(source), {})


def injected(path, values):
    """The source and tags of the notebook's cells, with these parameters."""
    cells = notebook.insert(notebook.read(path), values).cells
    return [(cell.source, cell.metadata["tags"]) for cell in cells]


def test_parameters_stand_behind_the_last_cell_of_defaults(write):
    values = {"a": (1, {2: {b"3"}}), "b": 'a "b" = c\'s {d}\n'}
    cells = injected(write("a = ()", "b = ''"), values)
    scope = {}
    exec(cells[2][0], scope)
    assert ({name: scope[name] for name in values}, cells[2][1]) == (values, [notebook.INJECTED])


def test_parameters_of_an_earlier_run_are_replaced(write, tmp_path):
    once = notebook.insert(notebook.read(write("a = 1")), {"a": 2})
    nbformat.write(once, tmp_path / "again.ipynb")
    assert [source for source, _ in injected(tmp_path / "again.ipynb", {"a": 3})] == ["a = 1", "# Parameters\na = 3"]


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
