"""Returned notebooks that misbehave, in real kernels; and the solutions of the committed ones, graded."""

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

from phi3kit.workbook import network, places, sandbox
from phi3kit.workbook.exercises import exercises, solved
from phi3kit.workbook.grade import grade
from phi3kit.workbook.keeper import Limits

CUT = not network.refused()
QUICK = {"cell": 10, "grace": 2}  # for what never ends by itself; the other cells end in time on a busy machine
DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
# Between the two exercises: what a learner's cell does, within which limits, what is said of it.
STOPPED = {
    "it swallows Ctrl-C": (DEAF + "while True:\n    pass", QUICK, "did not end within 10 s, nor at Ctrl-C"),
    "it is stuck in C": ("sum(iter(int, 1))", QUICK, "did not end within 10 s, nor at Ctrl-C"),
    "it eats memory": (
        "import numpy\nkept = []\nwhile True:\n    kept.append(numpy.ones(10**7))",
        {"memory": 6e8},
        "took more than 0.6 GB of memory",
    ),
    "its child eats memory": (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'kept = []\\nwhile True: kept.append(bytes([1]) * 10**8)'])",
        {"memory": 6e8},
        "took more than 0.6 GB of memory",
    ),
    "it prints without end": ("while True:\n    print('x' * 999)", {"output": 10**6}, "printed more than 1,000,000"),
    "it ends its kernel": ("import os\nos._exit(3)", {}, "ended the kernel"),
}
# The same, where the notebook can go on.
GOES_ON = {
    "while True:\n    pass": "did not end within 10 s: it got Ctrl-C.",
    "1 / 0": "was the first to fail: ZeroDivisionError: division by zero",
    "import socket\nsocket.create_connection(('192.0.2.1', 80))": "which is cut: socket.getaddrinfo('192.0.2.1', 80)",
    "import urllib.request\ntry:\n    urllib.request.urlopen('http://example.org')\nexcept OSError:\n    print()": (
        "tried the network, which is cut: socket.getaddrinfo('example.org', 80)"
    ),
    "import subprocess, sys\n"
    "send = \"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))\"\n"
    "print(subprocess.run([sys.executable, '-c', send], stderr=-3))": "which is cut: socket.sendto('192.0.2.1', 53)",
}


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch, request):
    if "source" not in request.fixturenames:
        monkeypatch.setattr(places, "NOTEBOOKS", tmp_path / "notebooks")
        places.NOTEBOOKS.mkdir()
        nbformat.write(workbook(), places.NOTEBOOKS / "Small.ipynb")


def graded(folder, *cells, **limits):
    """The report on a notebook with all solutions, and cells between its two exercises."""
    path = returned(folder / "returned.ipynb", SOLUTIONS, {"check-double": list(cells)})
    return grade(path, Limits(**limits))


@pytest.mark.parametrize(("code", "limits", "said"), STOPPED.values(), ids=STOPPED)
def test_what_cannot_go_on_is_stopped_and_what_was_earned_before_counts(tmp_path, code, limits, said):
    report = graded(tmp_path, code, **limits)
    (trouble,) = report.troubles
    assert trouble.startswith(f"Cell [5] `{code.splitlines()[0]}") and said in trouble
    assert trouble.endswith(": everything was stopped there.")
    assert [(mark.right, mark.of) for mark in report.marks] == [(2, 2), (0, 1)]
    assert report.marks[1].told == {"not checked": "the notebook did not come so far"}


def test_a_notebook_that_takes_too_long_as_a_whole_is_stopped(tmp_path):
    report = graded(tmp_path, "while True:\n    pass", whole=5.0)
    assert "was running when the notebook had taken 5 s in all: everything was stopped there." in report.troubles[-1]
    assert report.marks[1].right == 0


def test_a_keeper_that_does_not_end_is_ended_and_nothing_of_the_run_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "_SPARE", 5 - Limits().whole - Limits().grace)
    report = graded(tmp_path, "while True:\n    pass")
    assert report.troubles == ["It did not end within its limits, and was ended from outside."]
    assert [(mark.right, mark.of) for mark in report.marks] == [(0, 2), (0, 1)]


@pytest.mark.skipif(os.name == "nt", reason="a kernel's parent is another process there, in a virtual environment")
def test_an_end_from_outside_is_told_although_a_cell_failed_before(tmp_path):
    report = graded(tmp_path, "1 / 0", "import psutil\npsutil.Process().parent().kill()")
    failed, ended = report.troubles
    assert "was the first to fail: ZeroDivisionError" in failed
    assert ended.startswith("It was ended from outside, most often because memory ran out.")
    assert [mark.right for mark in report.marks] == [2, 0]


def test_where_one_cell_can_be_stopped_the_other_exercises_still_count(tmp_path):
    report = graded(tmp_path, *GOES_ON, **QUICK)
    for number, (code, said) in enumerate(GOES_ON.items(), start=5):
        beginning = f"Cell [{number}] `{code.splitlines()[0]}"
        assert [trouble for trouble in report.troubles if trouble.startswith(beginning) and said in trouble], code
    assert len(report.troubles) == len(GOES_ON)
    assert (report.right, report.of) == (3, 3)


def test_where_the_network_cannot_be_cut_python_refuses_it_in_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "refused", lambda: "not allowed")
    report = graded(tmp_path, "import socket\nsocket.create_connection(('192.0.2.1', 80))")
    said = "ConnectionRefusedError: The network is cut here, and only loopback is left: socket.getaddrinfo("
    assert said in report.troubles[0]
    assert report.right == 3


@pytest.mark.skipif(not CUT, reason="the network cannot be cut here")
def test_a_program_that_is_not_python_has_no_network_either(tmp_path):
    report = graded(tmp_path, "!bash -c ': >/dev/tcp/192.0.2.1/80'")
    (trouble,) = report.troubles
    assert trouble.endswith("tried the network, which is cut, by a program that is not Python.")
    assert report.right == 3


def test_loopback_is_there_and_the_teachers_home_and_secrets_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    server = "import os, socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
    client = "with socket.create_connection(server.getsockname()) as one:\n    server.accept()\n"
    own = f"from pathlib import Path\nassert Path.home() != Path({str(Path.home())!r}) and 'HF_TOKEN' not in os.environ"
    assert graded(tmp_path, server + client + own).troubles == []


def test_an_untouched_copy_earns_nothing_and_is_told_what_to_do(tmp_path):
    report = grade(returned(tmp_path / "a.ipynb"))
    assert (report.right, report.of, report.troubles) == (0, 3, [])
    assert report.marks[0].told == {"came": "2", "expected": "4", "hint": "Multiply."}


def test_a_check_whose_stub_failed_earns_nothing_and_the_next_one_counts(tmp_path):
    report = grade(
        returned(tmp_path / "a.ipynb", {**SOLUTIONS, "setup": CHECKS + "\ndel double", "stub-double": "1 / 0"})
    )
    assert [mark.right for mark in report.marks] == [0, 1]
    assert report.marks[0].told == {"not checked": "ZeroDivisionError: division by zero"}  # the stub's own error
    assert report.troubles[0].startswith("Cell [3] `1 / 0` was the first to fail: ZeroDivisionError")


def leaving(folder: Path, then: str) -> str:
    """A cell that leaves a process without its parent and in a session of its own, then goes on with `then`."""
    (folder / "leave.py").write_text(
        "import subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import threading; threading.Event().wait()']\n"
        "print(subprocess.Popen(sleep, start_new_session=True, stdout=subprocess.DEVNULL).pid)\n"
    )
    return (
        "import os, subprocess, sys\nfrom pathlib import Path\n"
        f"pid = subprocess.check_output([sys.executable, {str(folder / 'leave.py')!r}], text=True)\n"
        f"Path({str(folder / 'pids')!r}).write_text(f'{{os.getpid()}} {{pid}}')\n{then}"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells of processes that were left alone")
def test_nothing_that_the_notebook_started_is_left(tmp_path):
    assert graded(tmp_path, leaving(tmp_path, "")).troubles == []
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2 and not [pid for pid in pids if psutil.pid_exists(int(pid))]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells of processes that were left alone")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "a kill"])
def test_nothing_outlives_a_grader_that_is_ended(tmp_path, number):
    pids, temporary = tmp_path / "pids", tmp_path / "temporary"
    temporary.mkdir()
    path = returned(tmp_path / "a.ipynb", insert={"setup": [leaving(tmp_path, "sum(iter(int, 1))")]})
    code = (
        "from pathlib import Path; from phi3kit.workbook import grade, places;"
        f"places.NOTEBOOKS = Path({str(places.NOTEBOOKS)!r}); grade.grade({str(path)!r})"
    )
    own = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code], env=own, stderr=subprocess.DEVNULL) as grader:
        while not pids.exists() or len(pids.read_text().split()) < 2:
            assert grader.poll() is None
            time.sleep(0.1)
        family = psutil.Process(grader.pid).children(recursive=True)
        family += [psutil.Process(int(pid)) for pid in pids.read_text().split()]
        grader.send_signal(number)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert list(temporary.iterdir()) == []


@pytest.mark.tiny
@pytest.mark.parametrize("source", places.notebooks(), ids=lambda path: path.stem)
def test_every_solution_earns_full_marks_in_its_place(tmp_path, tiny_onnx, source):
    path = tmp_path / "returned.ipynb"
    ours = nbformat.read(source, as_version=4)
    nbformat.write(solved(ours), path)
    report = grade(path)
    assert report.notebook == source.stem
    assert report.troubles == []
    assert {mark.exercise: mark.told for mark in report.marks} == {one.name: {} for one in exercises(ours)}
    assert report.right == report.of > len(report.marks)
