"""A module in a process of its own: where it runs, what comes back, and that it does not outlive us."""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from phi3kit.weights import child

RUN = """
import sys
from pathlib import Path
from phi3kit.weights import child
child.run("forever", scratch=Path(sys.argv[1]))
"""


def test_it_runs_in_its_scratch_folder_and_what_it_says_comes_back(tmp_path):
    (tmp_path / "told.py").write_text(
        "import os, sys, tempfile\n"
        "print(os.getcwd(), tempfile.gettempdir(), *sys.argv[1:], os.environ['MORE'], 'ü', sep='\\n')\n"
        "sys.exit(3 if __name__ == '__main__' else 4)\n"
    )
    done = child.run("told", "a", "b c", scratch=tmp_path, env={"MORE": "more"}, stdout=subprocess.PIPE)
    assert done.stdout.splitlines() == [str(tmp_path), str(tmp_path), "a", "b c", "more", "ü"]
    assert done.returncode == 3
    assert tempfile.gettempdir() != str(tmp_path)


def test_it_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "forever.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(3600)\n")
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(child.__file__).parents[2], stdout=subprocess.PIPE, text=True) as parent:
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([orphan], timeout=60)
    for process in alive:
        process.kill()
    assert alive == []
