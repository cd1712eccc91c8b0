"""What `install.py` would do, with every command recorded instead of run, and its error messages.

Whole installations under bad conditions are in `tests/first_hour.py`.
"""

import contextlib
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phi3kit.workbook.running.paths import ROOT

CPU = "--index-url https://download.pytorch.org/whl/cpu --retries 0 --timeout 10 --no-deps torch=="


class Room:
    def __init__(self, free):
        self.free = free


class Installer:
    """`install.py` in an empty folder, on Linux by default; `fails` says which commands fail."""

    def __init__(self, folder, monkeypatch):
        spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.commands, self.output, self.fails, self.torch = [], [], (), ""
        self.venv = folder / ".venv"
        for name, path in {
            "HERE": folder,
            "VENV": self.venv,
            "PYTHON": self.venv / "python",
            "PINS": folder / "requirements.txt",
            "DONE": self.venv / "done",
            "PIP": ["pip", "install"],
            "TORCH": "",
            "install_uv": lambda: True,
            "run": self.run,
            "errors_of": lambda command: "" if self.run(command) else "ERROR: Something odd.\n",
            "say": self.output.append,
            "answer": lambda code: self.torch,
        }.items():
            monkeypatch.setattr(self.module, name, path)
        monkeypatch.setattr(self.module.sys, "platform", "linux")
        monkeypatch.setattr(self.module.shutil, "disk_usage", lambda folder: Room(10**12))
        (folder / "requirements.txt").write_text("torch==2.13.0\nuv==0.9.1\n")
        (folder / "pyproject.toml").write_text("")

    def run(self, command, **options):
        text = " ".join(map(str, command))
        self.commands.append(text)
        if " -m venv " in text:
            shutil.rmtree(self.venv, ignore_errors=True)  # it says `--clear`
            self.venv.mkdir()
            (self.venv / "python").touch()
        return not any(part in text for part in self.fails)

    def main(self):
        self.commands.clear()
        self.module.main()
        return self.commands

    def torch_commands(self):
        return [command.partition("pip install ")[2] for command in self.main() if "torch==" in command]


@pytest.fixture
def installer(tmp_path, monkeypatch):
    return Installer(tmp_path, monkeypatch)


def test_on_linux_the_cpu_build_is_asked_for_once_and_first(installer):
    assert installer.torch_commands() == [f"{CPU}2.13.0"]


def test_without_that_index_pypi_is_next(installer):
    installer.fails = ("--index-url",)
    first, second = installer.torch_commands()
    assert (first, second) == (f"{CPU}2.13.0", f"--constraint {installer.module.PINS} torch==2.13.0")
    assert "2.5 GB of CUDA" in " ".join(installer.output)


@pytest.mark.parametrize(("platform", "torch"), [("darwin", ""), ("win32", ""), ("linux", "cuda")])
def test_elsewhere_and_for_cuda_pypi_is_the_only_one(installer, monkeypatch, platform, torch):
    monkeypatch.setattr(installer.module.sys, "platform", platform)
    monkeypatch.setattr(installer.module, "TORCH", torch)
    assert installer.torch_commands() == [f"--constraint {installer.module.PINS} torch==2.13.0"]


@pytest.mark.parametrize(
    ("have", "torch", "replaced"),
    [
        ("2.13.0+cpu", "", False),
        ("2.13.0", "", False),
        ("2.13.0", "cuda", False),
        ("2.13.0+cpu", "cuda", True),
        ("2.12.0", "", True),
    ],
)
def test_a_torch_that_fits_stays(installer, monkeypatch, have, torch, replaced):
    monkeypatch.setattr(installer.module, "TORCH", torch)
    installer.torch = have
    assert bool(installer.torch_commands()) == replaced


def test_where_uv_fails_pip_does_it(installer):
    installer.fails = ("-m uv",)
    assert (
        sum(command.startswith("pip install --quiet") and "--no-deps" in command for command in installer.main()) == 2
    )


def test_a_second_call_does_nothing_until_the_pins_change(installer):
    assert installer.main()
    assert installer.main() == []
    installer.module.PINS.write_text("torch==2.13.1\n")
    assert installer.main()


def test_an_interrupted_installation_starts_over(installer, monkeypatch):
    def interrupt(have_uv):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(installer.module, "install_rest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            installer.main()
    (installer.venv / "half-a-file").touch()
    assert " -m venv " in installer.main()[0]
    assert not (installer.venv / "half-a-file").exists()
    assert installer.main() == []


@pytest.mark.parametrize("change", ["another Python", "a folder that was moved", "a stranger's .venv"])
def test_an_environment_that_does_not_fit_is_made_again(installer, monkeypatch, tmp_path, change):
    installer.main()
    if change == "another Python":
        monkeypatch.setattr(installer.module.sys, "version_info", (3, 99, 0))
    elif change == "a folder that was moved":
        monkeypatch.setattr(installer.module, "HERE", tmp_path / "..")
        (tmp_path.parent / "pyproject.toml").write_text("")
    else:
        installer.module.DONE.unlink()
    installer.output.clear()
    assert " -m venv " in installer.main()[0]
    assert "it is made again" in " ".join(installer.output)
    assert installer.main() == []


def test_the_download_is_told_before_it_begins(installer):
    installer.fails = (" -m venv ",)
    with pytest.raises(SystemExit):
        installer.main()
    assert "This downloads about 0.6 GB" in " ".join(installer.output)


@pytest.mark.parametrize("step", ["torch==2.13.0", "-r", "-e"])
def test_a_failed_step_is_one_sentence(installer, step):
    installer.fails = (f" {step}",)
    with pytest.raises(SystemExit, match=r"^\S+ could not be installed: Something odd, then type `\S.*`\.$"):
        installer.main()


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        ("ERROR: Exception:\nTraceback:\nIncompleteRead(10 bytes read)", "the download broke off"),
        (
            "ERROR: Exception:\nTraceback:\nReadTimeoutError: Read timed out.",
            "the download broke off",
        ),
        ("WARNING: Retrying after connection broken by 'X'\nERROR: No matching distribution", "no package index"),
        ("ERROR: No matching distribution found for x", "the package index does not have it"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "No space left on device"),
        ("error: Failed to build `x`\n  Caused by: no compiler\n\n", "Caused by: no compiler, then"),
        ("", "without a message"),
    ],
)
def test_the_sentence_names_the_cause(installer, monkeypatch, errors, sentence):
    monkeypatch.setattr(installer.module, "getproxies", dict)
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        installer.module.give_up("x", errors)


def test_a_failed_update_leaves_the_environment_that_worked(installer):
    installer.main()
    installer.module.PINS.write_text("torch==2.13.1\n")
    installer.fails = ("torch==2.13.1",)
    with pytest.raises(SystemExit, match="could not be installed"):
        installer.main()
    (installer.venv / "marker").touch()
    installer.fails = ()
    assert " -m venv " not in " ".join(installer.main())
    assert (installer.venv / "marker").exists()


def test_a_missing_need_is_one_sentence(installer, monkeypatch):
    monkeypatch.setattr(installer.module.shutil, "disk_usage", lambda folder: Room(1e9))
    with pytest.raises(
        SystemExit,
        match=r"needs about 2\.5 GB of disk, and 1\.0 GB are free .* or set PHI3KIT_FORCE=1 if you know better, then",
    ):
        installer.main()
    monkeypatch.setenv("PHI3KIT_FORCE", "1")
    assert installer.main()
    monkeypatch.setattr(installer.module.os, "access", lambda *_: False)
    with pytest.raises(SystemExit, match="may not be written: copy this folder"):
        installer.main()
    monkeypatch.setattr(installer.module, "TORCH", "rocm")
    with pytest.raises(SystemExit, match="TORCH=rocm is not known"):
        installer.main()


def test_a_python_without_venv_names_the_package(installer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)  # as Debian ships it
    monkeypatch.setenv("MAKELEVEL", "1")
    with pytest.raises(SystemExit, match=r"`sudo apt install python3\.\d+-venv`, .* then type `make run`"):
        installer.main()


def test_without_make_it_says_how_to_go_on(installer, monkeypatch):
    monkeypatch.delenv("MAKELEVEL", raising=False)
    installer.main()
    assert installer.output[-1].startswith("Next: ") and installer.output[-1].endswith("phi3kit run")


def old_pythons() -> list:
    pythons = []
    for version in ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10"):
        candidates = [
            *(Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"),
            shutil.which(f"python{version}"),
        ]
        missing = [] if candidates[0] else pytest.mark.skip(f"no Python {version} here")
        pythons.append(pytest.param(candidates[0], id=version, marks=missing))
    return pythons


@pytest.mark.skipif(os.name == "nt", reason="nobody waits there")
@pytest.mark.parametrize("mode", [0o644, 0o444])
def test_a_second_window_waits_for_the_first(installer, monkeypatch, mode):
    import fcntl

    installer.module.PINS.chmod(mode)
    first = installer.module.wait_for_others()
    assert first.writable() == os.access(installer.module.PINS, os.W_OK)
    real, operations = fcntl.flock, []

    def flock(file, operation):  # the first window is done while the second one waits
        operations.append(operation)
        if not operation & fcntl.LOCK_NB:
            assert installer.output == ["Another window is installing here: waiting for it. Ctrl-C ends the wait."]
            first.close()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    installer.module.wait_for_others().close()
    assert operations == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    installer.output.clear()
    installer.module.wait_for_others().close()
    assert installer.output == []


@pytest.mark.skipif(os.name == "nt", reason="makes a program of a name by a link")
@pytest.mark.parametrize("python", old_pythons())
@pytest.mark.parametrize("newer", [True, False])
def test_an_old_python_names_a_newer_one(python, newer, tmp_path):
    if newer:
        (tmp_path / "python3.11").write_text("#!/bin/sh\nexit 1\n")  # as pyenv's, which may only mention a Python
        (tmp_path / "python3.12").write_text("#!/bin/sh\nexit 0\n")
        for name in ("python3.11", "python3.12"):
            (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": str(tmp_path), "MAKELEVEL": "1"}
    done = subprocess.run([python, ROOT / "install.py"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("This needs Python 3.11, 3.12 or 3.13, and ")
    command = "make run PYTHON=python3.12" if newer else "downloads/, then type `make run PYTHON=python3.11"
    assert command in done.stderr


@pytest.mark.parametrize(("minor", "fits"), [(10, False), (11, True), (12, True), (13, True), (14, False), (15, False)])
def test_a_python_without_wheels_is_refused_at_once(monkeypatch, tmp_path, minor, fits):
    monkeypatch.setattr(sys, "version_info", (3, minor, 1, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    if fits:
        assert "main" in runpy.run_path(str(ROOT / "install.py"))
        return
    sentence = rf"^This needs Python 3\.11, 3\.12 or 3\.13, and .* is 3\.{minor}: get one from .*, then type `"
    with pytest.raises(SystemExit, match=sentence):
        runpy.run_path(str(ROOT / "install.py"))


@pytest.mark.skipif(os.name == "nt", reason="makes a program of a name by a script")
def test_a_python_that_is_too_new_is_no_way_out(monkeypatch, tmp_path):
    for name in ("python3.13", "python3.14"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MAKELEVEL", raising=False)
    with pytest.raises(SystemExit, match=r" is 3\.14: type `python3\.13 install\.py`\.$"):
        runpy.run_path(str(ROOT / "install.py"))
    (tmp_path / "python3.13").unlink()
    with pytest.raises(SystemExit, match=r" is 3\.14: get one "):
        runpy.run_path(str(ROOT / "install.py"))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "pip reaches no package index: check the network"),
        (
            {"PIP_INDEX_URL": "https://pypi.invalid/simple", "HTTPS_PROXY": "http://ann:secret@127.0.0.1:9"},
            "pip cannot get through the proxy 127.0.0.1:9: check HTTPS_PROXY \\(http://...\\), then type",
        ),
        (
            {"PIP_INDEX_URL": "https://pypi.invalid/simple", "HTTPS_PROXY": "ann:secret@127.0.0.1:9"},
            "pip cannot get through the proxy 127.0.0.1:9: check HTTPS_PROXY \\(http://...\\), then type",
        ),
    ],
    ids=["no network", "a proxy that is down", "one without http:// before it"],
)
def test_where_nothing_can_be_fetched_one_sentence_says_so(monkeypatch, tmp_path, environment, sentence):
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, **environment}.items():
        monkeypatch.setenv(name, value)
    module = runpy.run_path(str(ROOT / "install.py"))
    with contextlib.chdir(tmp_path), pytest.raises(SystemExit, match=sentence) as ended:
        module["install_uv"].__globals__["PIP"][:3] = [sys.executable, "-m", "pip"]
        module["PIP"].extend(["--target", str(tmp_path)])
        module["install_uv"]()
    assert "secret" not in str(ended.value)
