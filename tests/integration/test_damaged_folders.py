"""Folders of one's own with a damaged file, on every way in that reads the model: one sentence that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import random_checkpoint
from typer.testing import CliRunner

from phi3kit import weights
from phi3kit.cli import app
from phi3kit.errors import WeightsError
from phi3kit.generation import Engine
from phi3kit.system.folders import MANIFEST
from phi3kit.wrappers import packaged_pipeline

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 7\n"
IS_POINTER = "is a pointer of git-lfs"


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    """A whole checkpoint, and its export."""
    checkpoint = tmp_path_factory.mktemp("models") / "whole"
    random_checkpoint.write(checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {"checkpoint": checkpoint, "onnx": weights.onnx(checkpoint)}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals["checkpoint"], tmp_path / "mine"))


@pytest.fixture
def onnx(originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals["onnx"], tmp_path / "mine", ignore=shutil.ignore_patterns(MANIFEST)))


def set_entry(path: Path, name: str, value: object) -> None:
    """Change an entry of a JSON file, named with dots; `...` removes it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    *parents, last = name.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    section.pop(last) if value is ... else section.update({last: value})
    path.write_text(json.dumps(content), encoding="utf-8")


def message(step: Callable[[], object]) -> str:
    with pytest.raises(WeightsError) as error:
        step()
    assert "\n" not in str(error.value)
    return str(error.value)


# Engine.open


@pytest.mark.parametrize("name", ["genai_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [POINTER, b"", b"\xef\xbb\xbf{}", b"{"], ids=["pointer", "empty", "mark", "cut"])
def test_the_engine_names_damaged_json(onnx, name, content):
    (onnx / name).write_bytes(content)
    assert message(lambda: Engine.open(onnx)).startswith(f"{onnx / name} ")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
@pytest.mark.parametrize(("content", "problem"), [(POINTER, IS_POINTER), (b"", "is empty")], ids=["pointer", "empty"])
def test_the_engine_names_weights_without_content(onnx, name, content, problem):
    (onnx / name).write_bytes(content)
    assert message(lambda: Engine.open(onnx)).startswith(f"{onnx / name} {problem}")


@pytest.mark.parametrize(
    ("entry", "value", "parts"),
    [
        ("model", ..., ["genai_config.json", "model.context_length"]),
        ("model.context_length", ..., ["genai_config.json", "model.context_length"]),
        ("model.context_length", "128", ["genai_config.json", '"128" as `model.context_length`']),
        ("model.vocab_size", None, ["genai_config.json", "model.vocab_size"]),
        ("model.eos_token_id", ..., ["genai_config.json", "model.eos_token_id"]),
        ("model.decoder.num_hidden_layers", "2", ["genai_config.json", "num_hidden_layers"]),
        ("model.decoder.filename", "other.onnx", ["other.onnx", "doesn't exist"]),
        ("model.type", "nothing", ["nothing"]),
        ("search.top_k", "many", ["genai_config.json", "top_k"]),
        ("search", [], ["genai_config.json", "search"]),
    ],
)
def test_the_engine_names_a_wrong_entry(onnx, entry, value, parts):
    set_entry(onnx / "genai_config.json", entry, value)
    text = message(lambda: Engine.open(onnx))
    assert [part for part in [str(onnx), *parts] if part not in text] == []


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (lambda folder: set_entry(folder / "tokenizer_config.json", "tokenizer_class", "Strange"), "class: Strange"),
        (lambda folder: set_entry(folder / "tokenizer_config.json", "tokenizer_class", 5), "must be string"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "model node"),
        (lambda folder: set_entry(folder / "tokenizer.json", "model.vocab", [1]), "must be object"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "Failed to open"),
    ],
    ids=["class", "number as class", "nothing", "list", "missing"],
)
def test_the_engine_names_a_wrong_tokenizer(onnx, harm, part):
    harm(onnx)
    text = message(lambda: Engine.open(onnx))
    assert (part in text, f"tokenizer_config.json of {onnx}" in text) == (True, True)


def test_the_engine_names_missing_external_data(onnx):
    (onnx / "model.onnx.data").unlink()
    assert str(onnx / "model.onnx.data") in message(lambda: Engine.open(onnx))


def test_the_engine_says_what_is_wrong_with_short_data(onnx):
    data = onnx / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-100])
    text = message(lambda: Engine.open(onnx))
    assert ("can not be read in full" in text, "onnxruntime_src" in text) == (True, False)


# The pipeline


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (lambda folder: (folder / "config.json").write_bytes(POINTER), f"config.json {IS_POINTER}"),
        (lambda folder: (folder / "generation_config.json").write_bytes(b""), "generation_config.json is empty"),
        (lambda folder: (folder / "tokenizer.json").write_bytes(POINTER), f"tokenizer.json {IS_POINTER}"),
        (lambda folder: (folder / "tokenizer_config.json").write_bytes(b"{"), "tokenizer_config.json is no JSON"),
        (lambda folder: (folder / "chat_template.jinja").write_bytes(POINTER), f"chat_template.jinja {IS_POINTER}"),
        (lambda folder: (folder / "model.safetensors").write_bytes(POINTER), f"model.safetensors, which {IS_POINTER}"),
        (lambda folder: (folder / "config.json").write_text("{}"), "a `model_type` key in its config.json"),
        (lambda folder: set_entry(folder / "config.json", "model_type", "new"), "has model type `new`"),
        (lambda folder: set_entry(folder / "config.json", "vocab_size", "many"), "'vocab_size' expected int, got str"),
        (lambda folder: set_entry(folder / "config.json", "hidden_size", 32), "mismatched"),
        (lambda folder: set_entry(folder / "config.json", "num_hidden_layers", 3), "lack model.layers.2."),
        (lambda folder: set_entry(folder / "generation_config.json", "top_k", "x"), "generation_config.json has 'x'"),
        (lambda folder: set_entry(folder / "tokenizer_config.json", "tokenizer_class", 5), "transformers cannot use"),
    ],
    ids=[
        "config pointer", "generation config empty", "tokenizer pointer", "tokenizer config cut", "template pointer",
        "weights pointer", "config of nothing", "model type", "number as text", "other size", "more layers", "default",
        "number as class",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("cache")
def test_the_pipeline_refuses_in_one_sentence(checkpoint, harm, part):
    harm(checkpoint)
    text = message(lambda: packaged_pipeline(str(checkpoint)))
    assert (part in text, str(checkpoint) in text) == (True, True), text


@pytest.mark.usefixtures("cache")
def test_a_long_error_of_transformers_is_cut(checkpoint):
    set_entry(checkpoint / "config.json", "hidden_size", 32)
    assert len(message(lambda: packaged_pipeline(str(checkpoint)))) < 500


# The export, and the chat that needs one


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (lambda folder: set_entry(folder / "config.json", "vocab_size", "many"), "'vocab_size' expected int, got str"),
        (lambda folder: set_entry(folder / "config.json", "num_hidden_layers", 3), "lack model.layers.2."),
        (lambda folder: set_entry(folder / "tokenizer_config.json", "tokenizer_class", 5), "stopped with 1: Attribute"),
    ],
    ids=["number as text", "more layers", "number as class"],
)
@pytest.mark.usefixtures("cache")
def test_a_failed_export_is_one_sentence(checkpoint, harm, part):
    harm(checkpoint)
    text = message(lambda: weights.onnx(checkpoint))
    assert (part in text, str(checkpoint) in text) == (True, True), text


@pytest.mark.parametrize(
    ("form", "name", "content", "part"),
    [
        ("checkpoint", "config.json", POINTER, IS_POINTER),
        ("checkpoint", "model.safetensors", b"", "which is empty"),
        ("checkpoint", "tokenizer.json", b"", "is empty"),
        ("onnx", "genai_config.json", b"{}", "has no `model.context_length`"),
        ("onnx", "model.onnx", POINTER, IS_POINTER),
        ("onnx", "tokenizer_config.json", b'{"tokenizer_class": "Strange"}', "class: Strange"),
        ("onnx", "chat_template.jinja", POINTER, IS_POINTER),
    ],
)
@pytest.mark.usefixtures("cache")
def test_the_chat_names_the_file_in_one_line(request, form, name, content, part):
    folder = request.getfixturevalue(form)
    (folder / name).write_bytes(content)
    result = CliRunner().invoke(app, ["chat", str(folder)], input="Hello\n")
    assert (result.exit_code, type(result.exception)) == (1, SystemExit), result.output
    assert (name in result.output, part in result.output, result.output.count("\n")) == (True, True, 1), result.output
