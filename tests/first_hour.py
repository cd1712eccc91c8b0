"""Whole installations under bad conditions: interrupted, moved, refused. `make first-hour` runs them.

The tests run one after the other in one folder whose name has a space and an umlaut, and each needs the ones before it.
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
def repository(tmp_path_factory) -> Iterator[Path]:
    """A fresh copy of the repository, as a newcomer has it, and an empty model cache."""
    repository = tmp_path_factory.mktemp("first hour") / "Übung mit Leerzeichen"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_CACHE", str(repository.parent / "cache"))
        yield repository
    for path in repository.parent.iterdir():
        shutil.rmtree(path)


def newcomers(**changes: object) -> dict[str, str]:
    """The environment variables of this process, without those of its virtual environment and of make."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "VIRTUAL_ENV"))}
    path = os.pathsep.join(part for part in base["PATH"].split(os.pathsep) if part != str(Path(sys.executable).parent))
    return base | {"PATH": path} | {name: str(value) for name, value in changes.items()}


def output_of(*command: object, cwd: Path, **changes: object) -> tuple[int, str]:
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
def test_no_network(repository):
    code, output = output_of(*jail(), *MAKE, cwd=repository, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert code != 0
    assert "pip reaches no package index: check the network, or set HTTPS_PROXY if yours has a proxy, then" in output
    assert "Traceback" not in output


@needs_jail
def test_a_disk_that_is_too_small(repository):
    shutil.rmtree(repository / ".venv")  # its size would count as free
    small = repository.parent / "small disk"
    small.mkdir()
    copy = [f"mount -t tmpfs -o size=1g none '{small}'", f"cp -r '{repository}/.' '{small}'", f"cd '{small}'"]
    code, output = output_of(*jail(*copy), *MAKE, cwd=repository)
    assert code != 0
    assert "The installation needs about 2.5 GB of disk, and 1." in output
    assert not (repository / ".venv").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_make_run_starts_again(repository, step, number):
    process = subprocess.Popen(
        MAKE,
        cwd=repository,
        env=newcomers(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output = ""
    while step not in output:
        output += (line := process.stdout.readline())
        assert line, output
    os.killpg(process.pid, number)  # all that runs in the terminal
    output += process.communicate(timeout=600)[0]
    print(output)
    assert process.returncode != 0
    if number == signal.SIGINT:
        assert "nterrupted" in output and "Error 130" in output
        assert "Traceback" not in output


def test_and_then_it_runs_to_its_end(repository):
    code, output = output_of(*MAKE, cwd=repository)
    assert code == 0
    assert output.count("  ok  ") == 2
    assert output.splitlines()[-1].startswith("Next: `make lab`")


def test_later_commands_need_not_name_the_python_again(repository, tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho I am too old; exit 1\n")
    old.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{newcomers()['PATH']}"
    assert output_of("make", "install", cwd=repository, PATH=path) == (0, "")


def test_a_moved_folder_is_installed_again_without_make(repository):
    moved = repository.with_name("elsewhere")
    repository.rename(moved)
    code, output = output_of(PYTHON, "install.py", cwd=moved)
    assert code == 0
    assert "it is made again" in output
    *_, last = output.splitlines()
    assert last == "Next: .venv/bin/phi3kit run"
    assert output_of(*last.removeprefix("Next: ").split(), "--help", cwd=moved)[0] == 0
    shutil.rmtree(moved / ".venv")
    moved.rename(repository)


def test_a_strangers_environment_is_replaced(repository):
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", repository / ".venv"], check=True)
    code, output = output_of("make", "install", f"PYTHON={PYTHON}", cwd=repository)
    assert code == 0
    assert ".venv was not finished here: it is made again." in output
