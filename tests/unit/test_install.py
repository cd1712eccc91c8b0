"""What `install.py` would do, with every command replaced by a note of it."""

import importlib.util

import pytest

from phi3kit.workbook.places import ROOT

CPU = "--index-url https://download.pytorch.org/whl/cpu --retries 0 --timeout 10 --no-deps torch=="


class Installer:
    """`install.py` in an empty folder, on Linux unless told otherwise; `fails` says which commands fail."""

    def __init__(self, folder, monkeypatch):
        spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.commands, self.said, self.fails, self.torch = [], [], (), ""
        self.venv = folder / ".venv"
        for name, path in {
            "HERE": folder,
            "VENV": self.venv,
            "PYTHON": self.venv / "python",
            "PINS": folder / "requirements.txt",
            "DONE": self.venv / "done",
            "UNDER_WAY": self.venv / "under-way",
            "TORCH": "",
            "run": self.run,
            "say": self.said.append,
            "answer": lambda code: self.torch,
        }.items():
            monkeypatch.setattr(self.module, name, path)
        monkeypatch.setattr(self.module.sys, "platform", "linux")
        (folder / "requirements.txt").write_text("torch==2.13.0\n")
        (folder / "pyproject.toml").write_text("")

    def run(self, *command, **options):
        text = " ".join(map(str, command))
        self.commands.append(text)
        if " -m venv " in text:
            self.venv.mkdir(exist_ok=True)
            (self.venv / "python").touch()
        return not any(part in text for part in self.fails)

    def main(self):
        self.commands.clear()
        self.module.main()
        return self.commands

    def torch_commands(self):
        return [command.partition("--disable-pip-version-check ")[2] for command in self.main() if "torch==" in command]


@pytest.fixture
def installer(tmp_path, monkeypatch):
    return Installer(tmp_path, monkeypatch)


def test_on_linux_the_cpu_build_is_asked_for_once_and_first(installer):
    assert installer.torch_commands() == [f"{CPU}2.13.0"]


def test_where_that_index_does_not_answer_pypi_is_next_and_that_is_said(installer):
    installer.fails = ("--index-url",)
    first, second = installer.torch_commands()
    assert (first, second) == (f"{CPU}2.13.0", f"--constraint {installer.module.PINS} torch==2.13.0")
    assert "several GB of CUDA" in " ".join(installer.said)


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
    assert sum(" -m pip install --quiet" in command and "--no-deps" in command for command in installer.main()) == 2


def test_a_second_call_does_nothing_until_the_pins_change(installer):
    assert installer.main()
    assert installer.main() == []
    installer.module.PINS.write_text("torch==2.13.1\n")
    assert installer.main()


def test_an_interrupted_installation_starts_over(installer, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(installer.module, "install_rest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            installer.main()
    (installer.venv / "half-a-file").touch()
    assert " -m venv " in installer.main()[0]
    assert not (installer.venv / "half-a-file").exists()
    assert installer.main() == []


def test_a_failed_update_leaves_the_environment_that_worked(installer):
    installer.main()
    installer.module.PINS.write_text("torch==2.13.1\n")
    installer.fails = ("torch==2.13.1",)
    with pytest.raises(SystemExit, match="run the same command again"):
        installer.main()
    (installer.venv / "kept").touch()
    installer.fails = ()
    assert " -m venv " not in " ".join(installer.main())
    assert (installer.venv / "kept").exists()


def test_what_it_needs_is_said_in_a_sentence(installer, monkeypatch):
    monkeypatch.setattr(installer.module, "TORCH", "rocm")
    with pytest.raises(SystemExit, match="TORCH=rocm is not known"):
        installer.main()
    monkeypatch.setattr(installer.module.sys, "version_info", (3, 10, 1))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer; .* is 3\.10"):
        installer.main()
