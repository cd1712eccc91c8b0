"""Whether there is room, asked before anything large: what is refused, in which numbers, and that `--force` goes on."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phi3kit import machine, weights
from phi3kit.cli import app
from phi3kit.errors import NoRoom
from phi3kit.generation import Engine
from phi3kit.weights import child, export, hub, room
from phi3kit.weights.tiny import build

GB = 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(room.FORCE, "")  # so that what `--force` writes there is undone
    return tmp_path / "cache"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 0.1 GB of memory left, on which nothing large may be begun."""

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("begun")

    monkeypatch.setattr(machine, "memory", lambda: (4 * GB, GB // 10))
    monkeypatch.setattr(child, "run", begun)
    monkeypatch.setattr(hub, "fetch", begun)
    monkeypatch.setattr(build, "load_base", begun)


def sparse(path: Path, size: int) -> None:
    """A file of that size with nothing in it, which takes no disk; as safetensors, one tensor of zeros."""
    path.parent.mkdir(exist_ok=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    sparse(tmp_path / "mine" / "model.safetensors", GB)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "mine" / name).write_text('{"vocab_size": 50000, "hidden_size": 1000}')
    return tmp_path / "mine"


def test_enough_room_is_no_news(tmp_path):
    room.need_memory("This", 1)
    room.need_disk("This", tmp_path / "not" / "there" / "yet", 1)


@pytest.mark.parametrize(("inside", "variable"), [("cache/tiny", "PHI3KIT_CACHE"), ("hf/hub", "HF_HOME")])
def test_too_little_disk_is_told_in_numbers_with_the_variable_of_that_place(tmp_path, monkeypatch, inside, variable):
    monkeypatch.setattr(machine, "disk_free", lambda folder: GB)
    with pytest.raises(NoRoom) as refused:
        room.need_disk("Fetching it", tmp_path / inside, 3 * GB)
    message = str(refused.value)
    assert message.startswith("Fetching it needs about 3.0 GB of disk, and 1.0 GB are free")
    assert f"larger place with {variable}" in message
    assert "--force" in message
    monkeypatch.setenv(room.FORCE, "1")
    room.need_disk("Fetching it", tmp_path / inside, 3 * GB)


@pytest.mark.parametrize(
    ("form", "name", "told"),
    [
        ("checkpoint", "phi-3-mini-4k-instruct", "Loading the checkpoint of phi-3-mini-4k-instruct needs about 7.6 GB"),
        ("checkpoint", "tiny", "Loading the checkpoint of tiny needs about 271 MB"),
        ("onnx", "tiny", "Making tiny needs about 1.5 GB"),
    ],
)
@pytest.mark.usefixtures("small")
def test_too_little_memory_is_told_before_anything_is_fetched_or_built(cache, form, name, told):
    with pytest.raises(NoRoom, match=f"^{told} of memory, and 100 MB are free: close other programs"):
        getattr(weights, form)(name)
    assert [path.name for path in cache.rglob("*")] in ([], ["tiny-checkpoint", ".lock"])


@pytest.mark.usefixtures("small")
def test_a_local_checkpoint_must_fit_to_be_loaded_and_thrice_to_be_exported(checkpoint):
    with pytest.raises(NoRoom, match=r"^Loading the checkpoint of mine needs about 1\.0 GB of memory"):
        weights.checkpoint(checkpoint)
    with pytest.raises(NoRoom, match=r"^Exporting mine to ONNX needs about 4\.4 GB of memory"):
        weights.onnx(checkpoint)


def test_an_export_needs_disk_for_its_result(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (64 * GB, 64 * GB))
    monkeypatch.setattr(machine, "disk_free", lambda folder: GB // 2)
    with pytest.raises(NoRoom, match=r"^Exporting mine to ONNX needs about 550 MB of disk, and 500 MB"):
        export.export("mine", checkpoint, tmp_path / "out")


@pytest.mark.usefixtures("small")
def test_a_model_that_does_not_fit_is_not_opened(tmp_path, monkeypatch):
    sparse(tmp_path / "big" / "model.onnx.data", GB)
    with pytest.raises(NoRoom, match=r"^Opening .*big needs about 1\.3 GB of memory"):
        Engine(tmp_path / "big")
    monkeypatch.setenv(room.FORCE, "1")
    with pytest.raises(weights.WeightsError, match=r"has no genai_config\.json"):
        Engine(tmp_path / "big")


@pytest.mark.usefixtures("small")
def test_the_command_refuses_in_one_line_and_goes_on_with_force():
    refused = CliRunner().invoke(app, ["weights", "fetch", "tiny"])
    assert refused.exit_code == 1
    assert refused.output.count("\n") == 1
    forced = CliRunner().invoke(app, ["weights", "fetch", "tiny", "--force"])
    assert isinstance(forced.exception, AssertionError), "begun"
    assert os.environ[room.FORCE] == "1"
