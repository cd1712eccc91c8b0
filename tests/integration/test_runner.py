"""The one function that runs a notebook, on notebooks of two or three cells."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from phi3kit.errors import NotebookFailed
from phi3kit.workbook.running import history, paths
from phi3kit.workbook.running.refresh import tidy
from phi3kit.workbook.running.runner import Outcome, run

QUESTION = 'a "b" = c\'s {d}'
GREEN = """\
import os, sys
from pathlib import Path
from phi3kit.workbook.running.paths import ROOT
from phi3kit.workbook.running.results import record
record(parameters=[question, max_tokens, model], literals=repr((sizes, kinds, raw)))
record(python=sys.executable, folder=os.getcwd())
record(environment=[os.environ.get(name) for name in ("JPY_SESSION_NAME", "TQDM_DISABLE", "MLFLOW_TRACKING_URI")])
print(f"{ROOT}/runs", os.environ["PHI3KIT_CACHE"] + "/tiny", f"{Path.home()}/x")
record(hidden="un" "seen")"""


def write(path: Path, *sources: str, parameters: str = "") -> Path:
    cells = [new_code_cell(source) for source in sources]
    if parameters:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nbformat.write(new_notebook(cells=cells), path)
    return path


def html(outcome: Outcome) -> str:
    return outcome.html.read_text(encoding="utf-8")


# A notebook that ends well, run from a folder that is not its own, by a user with a broken kernelspec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("green")


@pytest.fixture(scope="module")
def green(folder):
    kernelspec = folder / "jupyter" / "kernels" / "python3"
    for path in (kernelspec, folder / "books", folder / "mine"):
        path.mkdir(parents=True)
    (kernelspec / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}), encoding="utf-8"
    )
    parameters = "question = ''\nmax_tokens = 1\nmodel = 'tiny'\nsizes = ()\nkinds = set()\nraw = b''"
    notebook = write(folder / "books" / "Green {one}.ipynb", GREEN, parameters=parameters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("JPY_SESSION_NAME", "a person")
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")
        patch.setenv("PHI3KIT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        values = {"question": QUESTION, "max_tokens": "7", "model": "mine"}
        values |= {"sizes": "(1, {2: (3,)})", "kinds": "{4}", "raw": r"b'\xe9'"}
        return run(notebook, values, runs=folder / "runs").require()


def test_a_green_notebook_has_the_verdict_ok(green):
    assert (green.name, green.verdict, green.error) == ("Green {one}", "ok", "")


def test_an_executed_notebook_is_kept_under_runs(green, folder):
    executed = green.notebook
    assert executed.parent.parent == folder / "runs"
    assert executed.parent.name.endswith("-Green {one}")


def test_a_run_does_not_change_the_notebook(green, folder):
    cells = nbformat.read(folder / "books" / "Green {one}.ipynb", as_version=4).cells
    assert [cell.outputs for cell in cells] == [[], []]


def test_parameters_reach_the_notebook(green):
    assert green.results["parameters"][:2] == [QUESTION, 7]


def test_parameters_of_every_type_reach_the_notebook(green):
    assert green.results["literals"] == repr(((1, {2: (3,)}), {4}, b"\xe9"))


def test_the_time_of_a_run_is_kept_with_its_model(green, folder, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", folder / "runs")
    assert history.last_seconds("Green {one}.ipynb", str(folder / "mine")) == green.seconds


def test_a_folder_as_model_is_relative_to_the_shell(green, folder):
    assert green.results["parameters"][2] == str(folder / "mine")


def test_the_kernel_is_this_python_in_the_notebooks_folder(green, folder):
    assert (green.results["python"], green.results["folder"]) == (sys.executable, str(folder / "books"))


def test_the_kernel_has_a_quiet_environment_and_the_store(green, folder):
    assert green.results["environment"] == [None, "1", f"sqlite:///{folder.as_posix()}/here.db"]


def test_the_page_shows_outputs(green):
    assert f"{Path.home()}/x" in html(green)


def test_recorded_results_are_invisible_on_the_page(green):
    assert "unseen" not in html(green)
    assert html(green).count('<div class="jp-RenderedText') == 1  # the output of `print`
    assert "not able to be represented" not in html(green)


@pytest.fixture
def refreshed(green, monkeypatch, folder):
    monkeypatch.setenv("PHI3KIT_CACHE", str(folder / "cache"))
    return tidy(nbformat.read(green.notebook, as_version=4))


def test_a_refreshed_notebook_has_no_cell_of_papermills(refreshed):
    assert [cell.execution_count for cell in refreshed.cells] == [1, 3]


def test_a_refreshed_notebook_has_only_its_own_metadata(refreshed):
    assert [dict(cell.metadata) for cell in refreshed.cells] == [{"tags": ["parameters"]}, {}]
    assert set(refreshed.metadata) == {"kernelspec", "language_info"}
    assert "version" not in refreshed.metadata.language_info


def test_a_refreshed_notebook_has_no_path_of_this_machine(refreshed):
    (printed,) = [output.text for output in refreshed.cells[1].outputs if output.output_type == "stream"]
    assert printed == "./runs ~/.cache/phi3kit/tiny ~/x\n"


# A notebook that fails, run under nohup, in the second in which another run of it began


@pytest.fixture(scope="module")
def handlers():
    """The signal handlers that were installed during `failed`."""
    return []


@pytest.fixture(scope="module")
def failed(tmp_path_factory, handlers):
    folder = tmp_path_factory.mktemp("failed")
    (folder / "runs" / "20240423-120000-red").mkdir(parents=True)
    record = "from phi3kit.workbook.running.results import record\nrecord(value=1)"
    notebook = write(folder / "red.ipynb", record, "a = 1\nb = 2\nc = 3\nraise ValueError('too\\nmuch')", "x = 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "strftime", lambda _: "20240423-120000")
        patch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
        patch.setattr(signal, "signal", lambda *arguments: handlers.append(arguments))
        return run(notebook, runs=folder / "runs")


def test_a_failing_notebook_has_the_verdict_failed(failed):
    assert failed.verdict == "failed"


def test_the_error_names_the_cell_its_code_and_its_error(failed):
    assert failed.error.splitlines() == [
        "Cell [2] failed:", "    a = 1", "    b = 2", "    c = 3", "    ...", "ValueError: too", "much"
    ]  # fmt: skip


def test_a_failing_notebook_has_the_results_of_its_first_cells(failed):
    assert failed.results == {"value": 1}


def test_a_failing_notebook_has_a_page(failed):
    assert "too" in html(failed)


def test_require_raises_for_a_failed_notebook(failed):
    with pytest.raises(NotebookFailed, match=r"Cell \[2\] failed"):
        failed.require()


def test_two_runs_within_a_second_have_their_own_folders(failed):
    assert failed.notebook.parent.name == "20240423-120000-red-2"


@pytest.mark.skipif(os.name == "nt", reason="there is no nohup")
def test_a_signal_that_nohup_ignores_stays_ignored(failed, handlers):
    assert handlers == []


def test_a_syntax_error_is_a_failure_with_its_cell(tmp_path):
    outcome = run(write(tmp_path / "red.ipynb", "x = 1", "x = "), runs=tmp_path / "runs")
    assert (outcome.verdict, outcome.error.startswith("Cell [2] failed:\n    x =\nSyntaxError: ")) == ("failed", True)


def test_a_folder_of_runs_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(NotebookFailed, match=r"runs cannot keep a run: "):
        run(write(tmp_path / "n.ipynb", "x = 1"), runs=tmp_path / "runs")


def test_a_kernel_that_dies_is_a_failure_with_its_cell(tmp_path):
    notebook = write(tmp_path / "dead.ipynb", "x = 1", "import os\nos._exit(9)")
    outcome = run(notebook, runs=tmp_path / "runs")
    assert outcome.verdict == "failed"
    assert outcome.error.startswith("Cell [2] did not end:\n    import os")
    assert "The kernel died" in outcome.error


# Interrupted runs

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
from phi3kit.workbook.running import paths
paths.RUNS = Path("runs")
app(sys.argv[1:])
"""
LOGIN = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"


@dataclass
class Interrupted:
    folder: Path
    before: bytes
    returncode: int
    output: str
    processes: list[psutil.Process]


def interrupt(folder: Path, command: str, end, prelude: str = "", **options) -> Interrupted:
    """Run a command on a notebook that does not end, and end it as soon as the kernel has started a process."""
    notebook = write(folder / "long.ipynb", "x = 1", LONG)
    before = notebook.read_bytes()
    code = f"{prelude}\n{COMMAND}"
    process = subprocess.Popen([sys.executable, "-c", code, command, notebook.name], cwd=folder, **options)
    deadline = time.monotonic() + 600
    while not (folder / "pids").exists():
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("The kernel started no process within 600 s.")
        time.sleep(0.1)
    processes = [psutil.Process(int(pid)) for pid in (folder / "pids").read_text(encoding="utf-8").split()]
    end(process)
    output = process.communicate(timeout=600)[0] or ""
    return Interrupted(folder, before, process.returncode, output, processes)


def by_signals(folder, command, name):
    def end(process):
        process.send_signal(getattr(signal, name))
        process.send_signal(getattr(signal, name))  # from make and from the terminal, or from an impatient person

    return interrupt(folder, command, end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def by_closing_the_terminal(folder):
    primary, secondary = os.openpty()

    def end(process):
        os.close(secondary)
        os.close(primary)

    terminal = dict.fromkeys(("stdin", "stdout", "stderr"), secondary)
    return interrupt(folder, "run", end, LOGIN, start_new_session=True, **terminal)


@pytest.fixture(scope="module", params=["refresh, SIGINT", "run, SIGTERM", "closed terminal"])
def interrupted(request, tmp_path_factory):
    if os.name == "nt":
        pytest.skip("there, no process can send these signals, and there are no pseudo-terminals")
    folder = tmp_path_factory.mktemp("interrupted")
    if request.param == "closed terminal":
        return by_closing_the_terminal(folder)
    return by_signals(folder, *request.param.split(", "))


def test_an_interrupted_command_exits_with_130(interrupted):
    if interrupted.output:  # a closed terminal breaks the last print
        assert interrupted.returncode == 130, interrupted.output


def test_an_interrupted_command_names_the_cell(interrupted):
    if interrupted.output:  # a closed terminal shows none
        assert "Ctrl-C ends it" in interrupted.output.splitlines()[0]
        assert "long  interrupted" in interrupted.output
        assert "Cell [2] did not end" in interrupted.output


def test_an_interrupted_command_prints_no_stack_trace(interrupted):
    assert "Traceback" not in interrupted.output


def test_an_interrupted_notebook_is_kept_as_far_as_it_ran(interrupted):
    (executed,) = (interrupted.folder / "runs").glob("*/long.ipynb")
    assert nbformat.read(executed, as_version=4).cells[0].execution_count == 1


def test_the_time_of_an_interrupted_run_does_not_count(interrupted, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", interrupted.folder / "runs")
    (record,) = paths.RUNS.glob(f"*/{history.FILE}")
    assert (json.loads(record.read_text())["verdict"], history.last_seconds("long.ipynb", None)) == (
        "interrupted",
        None,
    )


def test_an_interrupted_notebook_has_a_page(interrupted):
    (page,) = (interrupted.folder / "runs").glob("*/long.html")
    assert "time.sleep" in page.read_text(encoding="utf-8")


def test_an_interrupted_kernel_and_its_processes_end(interrupted):
    assert psutil.wait_procs(interrupted.processes, timeout=60)[1] == []


def test_an_interrupted_command_does_not_change_the_notebook(interrupted):
    assert (interrupted.folder / "long.ipynb").read_bytes() == interrupted.before
