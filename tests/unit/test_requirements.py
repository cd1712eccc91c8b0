"""What a step requires: it is refused before anything large begins, in numbers, and `--force` goes on."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phi3kit import weights
from phi3kit.cli import app
from phi3kit.doctor import fit
from phi3kit.errors import InsufficientResources, MissingExtra, WeightsError
from phi3kit.generation import Engine
from phi3kit.system import machine, process, requirements
from phi3kit.weights import export, hub
from phi3kit.weights.tiny import build

GB = 10**9
PHI_3 = "phi-3-mini-4k-instruct"


class Begun(Exception):
    """The step has begun."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(requirements.FORCE, "")  # undoes what `--force` writes there
    return tmp_path / "cache"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 0.1 GB of free memory. A step that begins raises `Begun`."""

    def begin(*_: object, **__: object) -> None:
        raise Begun

    monkeypatch.setattr(machine, "memory", lambda: (4 * GB, GB // 10))
    monkeypatch.setattr(process, "run", begin)
    monkeypatch.setattr(hub, "fetch", begin)
    monkeypatch.setattr(build, "load_base", begin)


def sparse(path: Path, size: int) -> None:
    """Write a safetensors file with one tensor of that size, which takes no disk."""
    path.parent.mkdir(exist_ok=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of 1 GB."""
    sparse(tmp_path / "mine" / "model.safetensors", GB)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "mine" / name).write_text('{"vocab_size": 50000, "hidden_size": 1000}')
    return tmp_path / "mine"


def test_enough_memory_is_accepted():
    assert requirements.need_memory("This", 1) is None


def test_enough_disk_for_a_folder_yet_to_be_made_is_accepted(tmp_path):
    assert requirements.need_disk("This", tmp_path / "not" / "there" / "yet", 1, "HF_HOME") is None


class TestTooLittleDisk:
    """A step that needs 3 GB on a disk with 1 GB."""

    @pytest.fixture(autouse=True)
    def disk(self, monkeypatch):
        monkeypatch.setattr(machine, "disk_free", lambda folder: GB)

    @pytest.mark.parametrize(
        "part",
        ["Fetching it needs about 3.0 GB of disk, and 1.0 GB are free", "larger place with HF_HOME", "--force"],
    )
    def test_the_refusal_names(self, tmp_path, part):
        with pytest.raises(InsufficientResources, match=re.escape(part)):
            requirements.need_disk("Fetching it", tmp_path, 3 * GB, "HF_HOME")

    def test_force_accepts_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv(requirements.FORCE, "1")
        assert requirements.need_disk("Fetching it", tmp_path, 3 * GB, "HF_HOME") is None


@pytest.mark.parametrize(
    ("obtain", "name", "step"),
    [
        (weights.checkpoint, PHI_3, f"Loading the checkpoint of {PHI_3} needs about 7.6 GB"),
        (weights.checkpoint, "tiny", "Loading the checkpoint of tiny needs about 271 MB"),
        (weights.onnx, "tiny", "Making tiny needs about 1.5 GB"),
    ],
)
@pytest.mark.usefixtures("small")
class TestTooLittleMemory:
    """Files that are still to be fetched or built."""

    def test_is_refused_in_numbers(self, obtain, name, step):
        with pytest.raises(
            InsufficientResources, match=f"^{step} of memory, and 100 MB are free: close other programs"
        ):
            obtain(name)

    def test_leaves_nothing_in_the_cache(self, cache, obtain, name, step):
        with pytest.raises(InsufficientResources):
            obtain(name)
        assert {path.name for path in cache.rglob("*")} <= {"tiny-checkpoint", ".lock"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("obtain", "step"),
    [
        (weights.checkpoint, "Loading the checkpoint of mine needs about 1.0 GB of memory"),
        (weights.onnx, "Exporting mine to ONNX needs about 4.4 GB of memory"),
    ],
)
def test_a_local_checkpoint_must_fit_into_memory(checkpoint, obtain, step):
    with pytest.raises(InsufficientResources, match=step):
        obtain(checkpoint)


def test_an_export_needs_disk_for_its_result(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (64 * GB, 64 * GB))
    monkeypatch.setattr(machine, "disk_free", lambda folder: GB // 2)
    with pytest.raises(InsufficientResources, match=r"^Exporting mine to ONNX needs about 550 MB of disk, and 500 MB"):
        export.export("mine", checkpoint, tmp_path / "out")


@pytest.mark.usefixtures("small")
def test_a_model_that_does_not_fit_is_not_opened(tmp_path):
    sparse(tmp_path / "big" / "model.onnx.data", GB)
    with pytest.raises(InsufficientResources, match=r"^Opening .*big needs about 1\.3 GB of memory"):
        Engine.open(tmp_path / "big")


@pytest.mark.usefixtures("small")
def test_force_opens_a_model_that_does_not_fit(tmp_path, monkeypatch):
    sparse(tmp_path / "big" / "model.onnx.data", GB)
    monkeypatch.setenv(requirements.FORCE, "1")
    with pytest.raises(WeightsError, match=r"has no genai_config\.json"):
        Engine.open(tmp_path / "big")


@pytest.mark.usefixtures("small")
def test_the_command_refuses_in_one_line():
    result = CliRunner().invoke(app, ["weights", "fetch", "tiny"])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)


@pytest.mark.usefixtures("small")
def test_the_command_goes_on_with_force():
    result = CliRunner().invoke(app, ["weights", "fetch", "tiny", "--force"])
    assert (type(result.exception), os.environ[requirements.FORCE]) == (Begun, "1")


def test_an_installed_extra_is_accepted():
    assert requirements.need_extra("This", "checkpoint", "export") is None


def onnx_folder(folder: Path) -> weights.Entry:
    """An ONNX folder that looks whole, as an entry."""
    (folder / "genai_config.json").write_text('{"model": {"context_length": 9, "vocab_size": 9, "eos_token_id": 0}}')
    (folder / "tokenizer.json").write_text("{}")
    return weights.Entry("mine", folder=folder)


@pytest.mark.parametrize(
    ("module", "step", "command"),
    [
        ("torch", lambda _: weights.checkpoint("tiny"), "phi3kit[checkpoint]"),
        ("transformers", lambda folder: fit.measure(weights.Form.CHECKPOINT, folder), "phi3kit[checkpoint]"),
        ("torch", lambda folder: export.export("mine", folder, folder / "out"), "phi3kit[checkpoint,export]"),
        ("onnx_ir", lambda folder: export.export("mine", folder, folder / "out"), "phi3kit[checkpoint,export]"),
        ("onnx", lambda folder: fit.list_needs(onnx_folder(folder)), "phi3kit[export]"),
    ],
    ids=["make tiny", "measure a checkpoint", "export", "export, the graph", "estimate a folder"],
)
def test_a_missing_extra_is_named_with_its_command(tmp_path, monkeypatch, module, step, command):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"needs {module}, .*pip install '{re.escape(command)}'"):
        step(tmp_path)


def test_a_finished_export_needs_no_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert weights.onnx(onnx_folder(tmp_path).folder) == tmp_path
