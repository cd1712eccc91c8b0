"""The first hour in the worst of places: whole installations, cut off, moved, refused. `make first-hour` runs them.

They go one after the other in one folder whose name has a space and an umlaut. Each needs the ones before it.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jail import jail, needs_jail

from phi3kit.workbook.running.paths import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs make and signals")

PYTHON = Path(getattr(sys, "_base_executable", sys.executable))  # not the one of the environment that runs this
STEPS = [
    "Making .venv",
    "Installing torch",
    "Installing the rest",
    "making tiny",
    "exporting tiny",
    "TransformerPipeline: ",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A fresh copy of the repository, as a newcomer has it, and a model cache with nothing in it."""
    place = tmp_path_factory.mktemp("first hour") / "Übung mit Leerzeichen"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_CACHE", str(place.parent / "cache"))
        yield place
    for folder in place.parent.iterdir():
        shutil.rmtree(folder)


def newcomers(**changes: object) -> dict[str, str]:
    """Our environment variables, without those of the environment and the make that this runs in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "VIRTUAL_ENV"))}
    path = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if part != str(Path(sys.executable).parent))
    return kept | {"PATH": path} | {name: str(value) for name, value in changes.items()}


def said_by(*command: object, cwd: Path, **changes: object) -> tuple[int, str]:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=newcomers(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    return done.returncode, done.stdout


MAKE = ["make", "run", f"PYTHON={PYTHON}"]


@needs_jail
def test_no_network(place):
    code, said = said_by(*jail(), *MAKE, cwd=place, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert code != 0
    assert "pip reaches no package index: check the network, or set HTTPS_PROXY if yours has a proxy, then type" in said
    assert "Traceback" not in said


@needs_jail
def test_a_disk_that_is_too_small(place):
    shutil.rmtree(place / ".venv")  # what there was of it would count as room
    small = place.parent / "small disk"
    small.mkdir()
    copy = [f"mount -t tmpfs -o size=1g none '{small}'", f"cp -r '{place}/.' '{small}'", f"cd '{small}'"]
    code, said = said_by(*jail(*copy), *MAKE, cwd=place)
    assert code != 0
    assert "The installation needs about 2.5 GB of disk, and 1." in said
    assert not (place / ".venv").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_make_run_starts_again(place, step, how):
    process = subprocess.Popen(
        MAKE,
        cwd=place,
        env=newcomers(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = ""
    while step not in said:
        said += (line := process.stdout.readline())
        assert line, said
    os.killpg(process.pid, how)  # all that runs in the terminal
    said += process.communicate(timeout=600)[0]
    print(said)
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "nterrupted" in said and "Error 130" in said
        assert "Traceback" not in said


def test_and_then_it_runs_to_its_end(place):
    code, said = said_by(*MAKE, cwd=place)
    assert code == 0
    assert said.count("  ok  ") == 2
    assert said.splitlines()[-1].startswith("Next: `make lab`")


def test_later_commands_need_not_name_the_python_again(place, tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho I am too old; exit 1\n")
    old.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{newcomers()['PATH']}"
    assert said_by("make", "install", cwd=place, PATH=path) == (0, "")


def test_a_moved_folder_is_installed_again_without_make(place):
    moved = place.with_name("elsewhere")
    place.rename(moved)
    code, said = said_by(PYTHON, "install.py", cwd=moved)
    assert code == 0
    assert "it is made anew" in said
    *_, last = said.splitlines()
    assert last == "Next: .venv/bin/phi3kit run"
    assert said_by(*last.removeprefix("Next: ").split(), "--help", cwd=moved)[0] == 0
    shutil.rmtree(moved / ".venv")
    moved.rename(place)


def test_a_strangers_environment_is_replaced(place):
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", place / ".venv"], check=True)
    code, said = said_by("make", "install", f"PYTHON={PYTHON}", cwd=place)
    assert code == 0
    assert ".venv was not finished here: it is made anew." in said
