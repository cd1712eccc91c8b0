"""The one function that runs a notebook, on notebooks of two or three cells."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from phi3kit.errors import InvalidRequest, NotebookFailed, WeightsError
from phi3kit.workbook import kernel, results
from phi3kit.workbook.parameters import checked, defaults
from phi3kit.workbook.refresh import tidied
from phi3kit.workbook.runner import run

PARAMETERS = """\
question = "Why?"  # what to ask
max_tokens = 64  # how much
temperature = 0.0  # how wild
should_cleanup = False  # remove what was made
experiment: str | None = None  # where
seeds = [1, 2]  # a list"""


def write(path: Path, *sources: str, parameters: str = "") -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if parameters:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def record(expression: str) -> str:
    return f"from phi3kit.workbook.results import record\nrecord(value={expression})"


def test_a_green_notebook_is_kept_with_its_page_and_its_results(tmp_path):
    notebook = write(
        tmp_path / "Green {one}.ipynb", "print('seen')", record("[question, max_tokens]"), parameters=PARAMETERS
    )
    before = notebook.read_bytes()

    outcome = run(notebook, {"question": 'a "b" = c\'s {d}', "max_tokens": "7"}, runs=tmp_path / "runs").require()

    assert (outcome.name, outcome.verdict, outcome.error) == ("Green {one}", "ok", "")
    assert outcome.results == {"value": ['a "b" = c\'s {d}', 7]}
    assert outcome.notebook.parent.parent == tmp_path / "runs"
    assert outcome.notebook.parent.name.endswith("-Green {one}")
    assert "seen" in outcome.html.read_text(encoding="utf-8")
    assert "not able to be represented" not in outcome.html.read_text(encoding="utf-8")
    assert notebook.read_bytes() == before


def test_a_failing_notebook_names_the_cell_and_its_error_and_is_kept(tmp_path):
    notebook = write(
        tmp_path / "red.ipynb", record("1"), "a = 1\nb = 2\nc = 3\nraise ValueError('too\\nmuch')", "x = 1"
    )

    outcome = run(notebook, runs=tmp_path / "runs")

    assert outcome.verdict == "failed"
    assert outcome.error.splitlines() == [
        "Cell [2] failed:", "    a = 1", "    b = 2", "    c = 3", "    ...", "ValueError: too", "much"
    ]  # fmt: skip
    assert outcome.results == {"value": 1}
    assert "too" in outcome.html.read_text(encoding="utf-8")
    with pytest.raises(NotebookFailed, match=r"Cell \[2\] failed"):
        outcome.require()


def test_a_kernel_that_dies_is_a_failure_with_its_cell(tmp_path):
    notebook = write(tmp_path / "dead.ipynb", "x = 1", "import os\nos._exit(9)")
    outcome = run(notebook, runs=tmp_path / "runs")
    assert outcome.verdict == "failed"
    assert outcome.error.startswith("Cell [2] did not end:\n    import os")
    assert "The kernel died" in outcome.error


def test_two_runs_within_a_second_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "20240423-120000")
    notebook = write(tmp_path / "twice.ipynb", "1")
    folders = {run(notebook, runs=tmp_path / "runs").notebook.parent.name for _ in range(2)}
    assert folders == {"20240423-120000-twice", "20240423-120000-twice-2"}


def test_the_kernel_is_this_python_in_the_notebooks_folder_whatever_kernelspec_a_user_has(tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JPY_SESSION_NAME", "a person")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    names = ["JPY_SESSION_NAME", "TQDM_DISABLE", "MLFLOW_TRACKING_URI"]
    code = f"import os, sys\n{record(f'[sys.executable, os.getcwd(), *map(os.environ.get, {names})]')}"

    outcome = run(write(tmp_path / "books" / "who.ipynb", code), runs=tmp_path / "runs").require()

    here = str(tmp_path / "books")
    assert outcome.results["value"] == [sys.executable, here, None, "1", f"sqlite:///{tmp_path / 'here.db'}"]
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("uri", ["sqlite:////abs/here.db", "http://localhost:5000", "", "sqlite://"])
def test_other_tracking_uris_stay(uri, tmp_path):
    assert kernel.environment({"MLFLOW_TRACKING_URI": uri}, tmp_path)["MLFLOW_TRACKING_URI"] == uri


LONG = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids.new", "w").write(f"{os.getpid()} {child.pid}")
os.replace("pids.new", "pids")
time.sleep(600)
"""
COMMAND = """
import sys
from pathlib import Path
from phi3kit.cli import app
from phi3kit.workbook import places
places.RUNS = Path("runs")
app(sys.argv[1:])
"""


def started(folder: Path, *command: str, **options: Any) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """The command on a notebook that goes on and on, its kernel, and a process that the kernel has started."""
    write(folder / "long.ipynb", "x = 1", LONG)
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *command, "long.ipynb"], cwd=folder, **options)
    pids = folder / "pids"
    while not pids.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return process, [psutil.Process(int(pid)) for pid in pids.read_text().split()]


def nothing_lives(family: list[psutil.Process]) -> bool:
    return psutil.wait_procs(family, timeout=60)[1] == []


def kept(folder: Path) -> bool:
    (executed,) = (folder / "runs").glob("*/long.ipynb")
    page = executed.with_suffix(".html").read_text(encoding="utf-8")
    return nbformat.read(executed, as_version=4).cells[0].execution_count == 1 and "time.sleep" in page


@pytest.mark.skipif(os.name == "nt", reason="there, no process can send these signals")
@pytest.mark.parametrize(
    ("command", "how"), [("run", "SIGINT"), ("refresh", "SIGINT"), ("run", "SIGTERM"), ("run", "SIGHUP")]
)
def test_what_ends_a_run_ends_its_kernel_and_keeps_the_notebook(tmp_path, command, how):
    process, family = started(tmp_path, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    before = (tmp_path / "long.ipynb").read_bytes()
    process.send_signal(getattr(signal, how))
    process.send_signal(getattr(signal, how))  # from make and from the terminal, or from an impatient person
    output = process.communicate(timeout=600)[0]

    assert process.returncode == 130, output
    assert "Ctrl-C ends it" in output.splitlines()[0]
    assert "long  interrupted" in output and "Cell [2] did not end" in output
    assert "Traceback" not in output
    assert kept(tmp_path)
    assert nothing_lives(family)
    assert (tmp_path / "long.ipynb").read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_a_terminal_that_closes_ends_a_run_in_the_same_way(tmp_path):
    ours, theirs = os.openpty()
    login = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "COMMAND", login + COMMAND)
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        process, family = started(tmp_path, "run", start_new_session=True, **ends)
    os.close(theirs)
    os.close(ours)
    process.wait(timeout=600)
    assert kept(tmp_path)
    assert nothing_lives(family)


@pytest.mark.skipif(os.name == "nt", reason="there is no nohup")
def test_nohup_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    taken = []
    monkeypatch.setattr(signal, "signal", lambda *given: taken.append(given))
    assert run(write(tmp_path / "n.ipynb", "1"), runs=tmp_path / "runs").verdict == "ok"
    assert taken == []


def test_a_model_that_is_none_is_told_before_a_kernel_starts(tmp_path):
    with pytest.raises(WeightsError, match="did you mean 'tiny'"):
        run(write(tmp_path / "n.ipynb", parameters="model = 'tiny'"), {"model": "tinny"}, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_given_as_a_model_is_the_one_seen_from_the_shell(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "books").mkdir()
    monkeypatch.chdir(tmp_path)
    notebook = write(tmp_path / "books" / "n.ipynb", record("model"), parameters="model = 'tiny'")
    outcome = run(notebook, {"model": "mine"}, runs=tmp_path / "runs")
    assert outcome.results == {"value": str(tmp_path / "mine")}


def test_defaults_are_read_without_running_anything(tmp_path):
    notebook = write(tmp_path / "n.ipynb", "raise SystemExit", parameters=PARAMETERS)
    expected = {"question": "Why?", "max_tokens": 64, "temperature": 0.0, "should_cleanup": False, "experiment": None}
    assert defaults(notebook) == {**expected, "seeds": [1, 2]}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
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
def test_values_take_the_type_of_the_default(tmp_path, name, given, expected):
    value = checked(write(tmp_path / "n.ipynb", parameters=PARAMETERS), {name: given})[name]
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("given", "message"),
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
def test_wrong_parameters_are_refused_before_anything_runs(tmp_path, given, message):
    notebook = write(tmp_path / "n.ipynb", "open('ran', 'w')", parameters=PARAMETERS)
    with pytest.raises(InvalidRequest, match=message):
        run(notebook, given, runs=tmp_path / "runs")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "runs").exists()


def test_a_notebook_without_parameters_says_so(tmp_path):
    with pytest.raises(InvalidRequest, match="none, it has none"):
        run(write(tmp_path / "n.ipynb", "1"), {"model": "tiny"})


def test_a_missing_notebook_says_so(tmp_path):
    with pytest.raises(NotebookFailed, match="There is no notebook"):
        run(tmp_path / "absent.ipynb")


def test_results_outside_a_notebook_and_results_that_no_json_holds(capsys):
    results.record(value=1)
    assert capsys.readouterr().out == ""
    with pytest.raises(InvalidRequest, match="value="):
        results.record(value=object())
    with pytest.raises(InvalidRequest, match="value=nan"):
        results.record(value=float("nan"))


def test_results_are_invisible_on_the_page(tmp_path):
    plain = run(write(tmp_path / "plain.ipynb", "pass"), runs=tmp_path / "runs")
    recorded = run(write(tmp_path / "recorded.ipynb", record("'unseen'") + "\npass"), runs=tmp_path / "runs")
    page = recorded.html.read_text(encoding="utf-8")
    assert page.count("jp-RenderedText") == plain.html.read_text(encoding="utf-8").count("jp-RenderedText")
    assert page.count("unseen") == 1  # in the cell's source


def test_a_refreshed_notebook_carries_nothing_of_its_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path))
    from phi3kit.workbook.places import ROOT

    code = f"print('{ROOT}/runs', '{tmp_path}/tiny', '{Path.home()}/x')"
    outcome = run(write(tmp_path / "n.ipynb", code, parameters=PARAMETERS), {"max_tokens": 1}, runs=tmp_path / "runs")
    tidy = tidied(nbformat.read(outcome.notebook, as_version=4))

    assert [cell.execution_count for cell in tidy.cells] == [1, 3]  # cell 2 was papermill's
    assert [dict(cell.metadata) for cell in tidy.cells] == [{"tags": ["parameters"]}, {}]
    assert tidy.cells[1].outputs[0].text == "./runs ~/.cache/phi3kit/tiny ~/x\n"
    assert set(tidy.metadata) == {"kernelspec", "language_info"}
    assert "version" not in tidy.metadata.language_info
