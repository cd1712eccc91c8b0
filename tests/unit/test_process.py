"""Processes: what a command gets and gives back, and that nothing outlives the process that started it."""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from phi3kit.system import process

SLEEP = "import time; print('ready', flush=True); time.sleep(3600)"
PARENT = """
import subprocess, sys
from phi3kit.system import process
with process.start([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE) as watcher:
    print(watcher.stdout.readline(), end="", flush=True)
    watcher.wait()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def assert_ends(*processes: psutil.Process) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    for one in alive:
        one.kill()
    assert alive == []


def test_run_returns_output_and_exit_code(tmp_path):
    code = "import sys; print('ü', *sys.argv[1:]); print('no', file=sys.stderr); sys.exit(3)"
    done = process.run([*python(code), "a", "b c"], scratch=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.stdout, done.stderr, done.returncode) == ("ü a b c\n", "no\n", 3)


def test_run_works_and_puts_temporary_files_in_scratch(tmp_path):
    code = "import os, tempfile; print(os.getcwd(), tempfile.gettempdir(), os.environ['MORE'])"
    done = process.run(python(code), scratch=tmp_path, env={"MORE": "more"}, stdout=subprocess.PIPE)
    assert done.stdout.split() == [str(tmp_path), str(tmp_path), "more"]
    assert tempfile.gettempdir() != str(tmp_path)


def test_a_module_in_scratch_hides_no_other(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    done = process.run([*process.PYTHON, "-m", "json.tool", "--help"], scratch=tmp_path, stdout=subprocess.DEVNULL)
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_killed_command_exits_as_in_a_shell(tmp_path):
    done = process.run(python("import os; os.kill(os.getpid(), 9)"), scratch=tmp_path)
    assert done.returncode == 137


def test_a_command_ends_with_its_block():
    with process.start(python(SLEEP), stdout=subprocess.PIPE) as watcher:
        watcher.stdout.readline()
        (command,) = psutil.Process(watcher.pid).children()
    assert_ends(command)
    assert watcher.poll() is not None


def test_a_command_ends_when_its_parent_is_killed():
    with subprocess.Popen([*python(PARENT), SLEEP], stdout=subprocess.PIPE, text=True) as parent:
        parent.stdout.readline()
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert len(family) > 1
    assert_ends(*family)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an orphan is not found")
def test_an_orphan_ends_with_the_command(tmp_path):
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid, flush=True)"
    with process.start(python(code), stdout=subprocess.PIPE) as watcher:
        orphan = psutil.Process(int(watcher.stdout.readline().replace("ready", "")))
        watcher.wait()
    assert_ends(orphan)


def test_resident_memory_is_that_of_the_descendants():
    code = "x = bytearray(80_000_000); print('ready', flush=True); import time; time.sleep(3600)"
    with process.start(python(code), stdout=subprocess.PIPE) as watcher:
        watcher.stdout.readline()
        assert 80e6 < process.resident(watcher.pid) < 200e6


def test_an_ended_process_holds_no_memory():
    with process.start(python("")) as watcher:
        watcher.wait()
    assert process.resident(watcher.pid) == 0


def test_a_command_that_does_not_exist_fails(tmp_path):
    assert process.run([str(Path(tmp_path, "none"))], scratch=tmp_path, stderr=subprocess.DEVNULL).returncode != 0
