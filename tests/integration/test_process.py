"""A process that does not end when it is asked to: ten seconds of grace, then a kill."""

import subprocess
import sys

import psutil

from phi3kit.system import process

# A command that ignores, and whose own child ignores, the request to end.
SLEEP = "import time; print('ready', flush=True); time.sleep(3600)"
STUBBORN = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_a_stubborn_family_is_killed():
    with process.start([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as watcher:
        watcher.stdout.readline()
        family = psutil.Process(watcher.pid).children(recursive=True)
    assert len(family) == 2
    assert [one for one in family if one.is_running()] == []
