"""Returned notebooks that misbehave, in real kernels."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from returned import CHECKS, SOLUTIONS, returned, workbook

from phi3kit.workbook.exercises import network, sandbox
from phi3kit.workbook.exercises.grading import grade
from phi3kit.workbook.exercises.supervisor import Limits
from phi3kit.workbook.running import paths

ISOLATED = not network.refusal()
QUICK = {"cell": 10, "grace": 2}  # for cells without an end; the other cells take less on a busy machine too
CONNECT = "import socket\nsocket.create_connection(('192.0.2.1', 80))"  # an address reserved for documentation
# A learner's cell after the first exercise, the limits, and a part of the message.
STOPPED = {
    "it is stuck in C": ("sum(iter(int, 1))", QUICK, "did not end within 10 s, nor at Ctrl-C"),
    "it eats memory": (
        "import numpy\narrays = []\nwhile True:\n    arrays.append(numpy.ones(10**7))",
        {"memory": 6e8},
        "took more than 0.6 GB of memory",
    ),
    "its child eats memory": (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'blocks = []\\nwhile True: blocks.append(bytes([1]) * 10**8)'])",
        {"memory": 6e8},
        "took more than 0.6 GB of memory",
    ),
    "it prints without end": ("while True:\n    print('x' * 999)", {"output": 10**6}, "printed more than 1,000,000"),
    "it ends its kernel": ("import os\nos._exit(3)", {}, "ended the kernel"),
}
# Cells of one notebook, which goes on after each of them, and a part of the message; None for no message.
GOES_ON = {
    "a loop without an end": ("while True:\n    pass", "did not end within 10 s: it got Ctrl-C."),
    "an error": ("1 / 0", "was the first to fail: ZeroDivisionError: division by zero"),
    "another error": ("2 / 0", None),
    "a connection": (CONNECT, "which is cut: socket.getaddrinfo('192.0.2.1', 80)"),
    "a swallowed refusal": (
        "import urllib.request\ntry:\n    urllib.request.urlopen('http://example.org')\nexcept OSError:\n    print()",
        "tried the network, which is cut: socket.getaddrinfo('example.org', 80)",
    ),
    "a datagram of a child": (
        "import subprocess, sys\n"
        "send = \"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))\"\n"
        "print(subprocess.run([sys.executable, '-c', send], stderr=-3))",
        "which is cut: socket.sendto('192.0.2.1', 53)",
    ),
    "another program": (
        "!bash -c ': >/dev/tcp/192.0.2.1/80'" if ISOLATED else "print()",
        "tried the network, which is cut, by a program that is not Python." if ISOLATED else None,
    ),
    "loopback": (
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "with socket.create_connection(server.getsockname()):\n    server.accept()",
        None,
    ),
}
FIRST = 5  # the number of the first of these cells


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """A workbook of one small notebook."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "NOTEBOOKS", tmp_path_factory.mktemp("workbook"))
        nbformat.write(workbook(), paths.NOTEBOOKS / "Small.ipynb")
        yield


def graded(folder, *cells, **limits):
    """The report on a notebook with all solutions, and with cells between its two exercises."""
    path = returned(folder / "returned.ipynb", SOLUTIONS, {"check-double": list(cells)})
    return grade(path, Limits(**limits))


def points(report):
    return [(mark.right, mark.steps) for mark in report.marks]


@pytest.mark.parametrize(("code", "limits", "message"), STOPPED.values(), ids=STOPPED)
def test_a_stopped_notebook_keeps_the_points_before(tmp_path, code, limits, message):
    report = graded(tmp_path, code, **limits)
    (problem,) = report.problems
    assert problem.startswith(f"Cell [{FIRST}] `{code.splitlines()[0]}")
    assert problem.endswith(": everything was stopped there.") and message in problem
    assert points(report) == [(2, 2), (0, 1)]


def test_a_notebook_that_takes_too_long_as_a_whole_is_stopped(tmp_path):
    (problem,) = graded(tmp_path, "while True:\n    pass", whole=5.0).problems
    assert problem.endswith("was running when the notebook had taken 5 s in all: everything was stopped there.")


def test_a_supervisor_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "SPARE", 5 - Limits().whole - Limits().grace)
    report = graded(tmp_path, "while True:\n    pass")
    assert report.problems == ["It did not end within its limits, and was ended from outside."]
    assert points(report) == [(0, 2), (0, 1)]


@pytest.mark.skipif(os.name == "nt", reason="a kernel's parent is another process there, in a virtual environment")
def test_a_killed_supervisor_is_reported_after_earlier_errors(tmp_path):
    report = graded(tmp_path, "1 / 0", "import psutil\npsutil.Process().parent().kill()")
    failed, ended = report.problems
    assert "was the first to fail: ZeroDivisionError" in failed
    assert ended.startswith("It was ended from outside, most often because memory ran out.")
    assert points(report) == [(2, 2), (0, 1)]


def detach(folder: Path, then: str = "") -> str:
    """A cell that leaves a process without its parent, in a session of its own, then goes on with `then`."""
    (folder / "detach.py").write_text(
        "import subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import threading; threading.Event().wait()']\n"
        "print(subprocess.Popen(sleep, start_new_session=True, stdout=subprocess.DEVNULL).pid)\n"
    )
    return (
        "import os, subprocess, sys\nfrom pathlib import Path\n"
        f"pid = subprocess.check_output([sys.executable, {str(folder / 'detach.py')!r}], text=True)\n"
        f"Path({str(folder / 'pids')!r}).write_text(f'{{os.getpid()}} {{pid}}')\n{then}"
    )


@pytest.fixture(scope="module")
def going_on(tmp_path_factory):
    """The report on a notebook with every cell of `GOES_ON`, and the processes that it started."""
    folder = tmp_path_factory.mktemp("going on")
    own = (
        "import os\nfrom pathlib import Path\n"
        f"values = Path.home() == Path({str(Path.home())!r}), os.environ.get('HF_TOKEN')\n"
        f"Path({str(folder / 'environment')!r}).write_text(repr(values))"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "secret")
        report = graded(folder, *(code for code, _ in GOES_ON.values()), detach(folder), own, **QUICK)
    return report, folder


@pytest.mark.parametrize("case", GOES_ON)
def test_a_cell_that_can_be_stopped_gets_its_message(going_on, case):
    code, message = GOES_ON[case]
    name = f"Cell [{FIRST + list(GOES_ON).index(case)}] `{code.splitlines()[0]}"
    problems = [problem for problem in going_on[0].problems if problem.startswith(name)]
    assert len(problems) == (message is not None)
    assert all(message in problem for problem in problems)


def test_the_exercises_around_stopped_cells_count(going_on):
    assert points(going_on[0]) == [(2, 2), (1, 1)]


def test_a_notebook_has_no_home_and_no_secrets_of_the_teacher(going_on):
    _, folder = going_on
    assert (folder / "environment").read_text() == "(False, None)"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process without its parent is not found")
def test_no_process_of_the_notebook_is_left(going_on):
    pids = (going_on[1] / "pids").read_text().split()
    assert [psutil.pid_exists(int(pid)) for pid in pids] == [False, False]


def test_the_hook_refuses_calls_where_there_is_no_isolation(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "refusal", lambda: "not allowed")
    (problem, _) = graded(tmp_path, CONNECT).problems
    assert "ConnectionRefusedError: The network is cut here, and only loopback is left: socket.getaddr" in problem


@pytest.fixture(scope="module")
def unsolved(tmp_path_factory):
    """The report on a notebook with a stub that fails and one that is untouched."""
    path = tmp_path_factory.mktemp("unsolved") / "a.ipynb"
    return grade(returned(path, {"setup": f"{CHECKS}\ndel double", "stub-double": "1 / 0"}))


def test_a_failing_stub_earns_nothing_and_gets_its_error(unsolved):
    mark = unsolved.marks[0]
    assert (mark.right, mark.feedback) == (0, {"not checked": "ZeroDivisionError: division by zero"})


def test_a_failing_stub_is_named_as_a_problem(unsolved):
    assert unsolved.problems[0].startswith("Cell [3] `1 / 0` was the first to fail: ZeroDivisionError")


def test_an_untouched_stub_earns_nothing_and_gets_feedback(unsolved):
    mark = unsolved.marks[1]
    feedback = {"got": "a and a", "expected": "A and A!", "hint": "Look for a method of text."}
    assert (mark.right, mark.feedback) == (0, feedback)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process without its parent is not found")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "a kill"])
def test_no_process_or_file_outlives_a_grader(tmp_path, number):
    pids, temporary = tmp_path / "pids", tmp_path / "temporary"
    temporary.mkdir()
    path = returned(tmp_path / "a.ipynb", insert={"setup": [detach(tmp_path, "sum(iter(int, 1))")]})
    code = (
        "from pathlib import Path; from phi3kit.workbook.exercises import grading; "
        "from phi3kit.workbook.running import paths; "
        f"paths.NOTEBOOKS = Path({str(paths.NOTEBOOKS)!r}); grading.grade({str(path)!r})"
    )
    variables = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code], env=variables, stderr=subprocess.DEVNULL) as grader:
        while not pids.exists() or len(pids.read_text().split()) < 2:
            assert grader.poll() is None
            time.sleep(0.1)
        family = psutil.Process(grader.pid).children(recursive=True)
        family += [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        grader.send_signal(number)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="there is no pseudo-terminal")
def test_a_terminal_shows_which_cell_runs(tmp_path):
    path = returned(tmp_path / "a.ipynb", insert={"setup": ["import time\ntime.sleep(2)"]})
    code = (
        "from pathlib import Path; from phi3kit import weights; from phi3kit.cli import app; "
        "from phi3kit.workbook.running import paths; "
        f"paths.NOTEBOOKS = Path({str(paths.NOTEBOOKS)!r}); weights.checkpoint = weights.onnx = str; "
        f"app(['grade', {str(path)!r}])"
    )
    ours, theirs = os.openpty()
    variables = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], env=variables, stdout=subprocess.DEVNULL, stderr=theirs):
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # raised at the end on Linux
            shown = b""
            while part := terminal.read(4096):
                shown += part
    assert b"cell 3 of 8" in shown
