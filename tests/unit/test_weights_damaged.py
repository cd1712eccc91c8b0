"""Folders of one's own with a damaged file: `weights` refuses each in a sentence that names the file and its damage."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phi3kit import weights
from phi3kit.cli import app
from phi3kit.doctor import fit
from phi3kit.errors import WeightsError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 7\n"


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(64)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A whole checkpoint, with every JSON file that one may have."""
    index = b'{"weight_map": {"w": "model.safetensors"}}'
    others = ("generation_config", "tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens", "vocab")
    files = {f"{name}.json": b"{}" for name in others} | {"model.safetensors.index.json": index}
    config = b'{"num_hidden_layers": 2}'
    return write(tmp_path / "mine", files | {"config.json": config, "model.safetensors": safetensors()})


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    model = {"context_length": 9, "vocab_size": 9, "eos_token_id": 0, "decoder": {"filename": "model.onnx"}}
    config = {"genai_config.json": json.dumps({"model": model}).encode()}
    others = {"tokenizer.json": b"{}", "tokenizer_config.json": b"{}", "model.onnx": b"graph"}
    return write(tmp_path / "mine-onnx", config | others)


JSON = {
    "config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json",
}  # fmt: skip
DAMAGES = {
    "pointer": (POINTER, "is a pointer of git-lfs, not the file itself: run `git lfs pull`"),
    "empty": (b"", "is empty"),
    "blank": (b" \n", "is empty"),
    "mark": (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
    "utf-16": ("{}".encode("utf-16"), "begins with a byte order mark"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "is no text in UTF-8 (at byte 7)"),
    "cut": (b'{"model": ', "is no JSON"),
    "list": (b"[]", "holds no JSON object"),
}


def refusal(path: Path, obtain=weights.checkpoint) -> str:
    """The message for the folder of a damaged file, less the path of the file with which it begins."""
    with pytest.raises(WeightsError) as error:
        obtain(path.parent)
    message = str(error.value)
    assert message.startswith(f"{path} "), message
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize("name", sorted(JSON))
def test_a_pointer_in_place_of_json_is_named(checkpoint, name):
    (checkpoint / name).write_bytes(POINTER)
    assert refusal(checkpoint / name).startswith("is a pointer of git-lfs")


@pytest.mark.parametrize(("content", "problem"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_each_damage_of_a_checkpoints_json_is_named(checkpoint, name, content, problem):
    (checkpoint / name).write_bytes(content)
    assert refusal(checkpoint / name).startswith(problem)


@pytest.mark.parametrize(("content", "problem"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["genai_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_each_damage_of_an_onnx_folders_json_is_named(onnx, name, content, problem):
    (onnx / name).write_bytes(content)
    assert refusal(onnx / name, weights.onnx).startswith(problem)


def test_a_checkpoint_is_checked_before_its_export(checkpoint):
    (checkpoint / "config.json").write_bytes(b"{")
    assert refusal(checkpoint / "config.json", weights.onnx).startswith("is no JSON")


def test_a_folder_in_place_of_a_file_is_named(checkpoint):
    path = checkpoint / "generation_config.json"
    path.unlink()
    path.mkdir()
    assert refusal(path).startswith("cannot be read: Is a directory")


# Weights


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (POINTER, "which is a pointer of git-lfs, not the file itself: run `git lfs pull`"),
        (b"", "which is empty"),
    ],
    ids=["pointer", "empty"],
)
@pytest.mark.parametrize(
    ("form", "name"), [("checkpoint", "model.safetensors"), ("onnx", "model.onnx"), ("onnx", "model.onnx.data")]
)
def test_weights_without_content_are_named(request, form, name, content, problem):
    folder = request.getfixturevalue(form)
    if name.endswith(".data"):
        from onnx import TensorProto, helper, save_model

        tensor = helper.make_tensor("a", TensorProto.FLOAT, [2_000], bytes(8_000), raw=True)
        model = helper.make_model(helper.make_graph([], "graph", [], [], [tensor]))
        save_model(model, folder / "model.onnx", save_as_external_data=True, location=name)
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsError) as error:
        getattr(weights, form)(folder)
    assert f"lacks the content of {name}, {problem}" in str(error.value)


def test_a_vocabulary_without_content_is_named(checkpoint):
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer.model").write_bytes(POINTER)
    with pytest.raises(WeightsError, match=r"content of tokenizer\.model, which is a pointer"):
        weights.checkpoint(checkpoint)


@pytest.mark.parametrize("weight_map", [[], "x", {"w": 5}, {"w": ["x"]}, None], ids=str)
def test_an_index_of_another_form_is_no_stack_trace(checkpoint, weight_map):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match="lacks"):
        weights.checkpoint(checkpoint)


# What genai_config.json says


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"context_length": None}, "has no `model.context_length`, where a whole number is needed"),
        ({"context_length": "4096"}, 'has "4096" as `model.context_length`'),
        ({"context_length": -1}, "has -1 as `model.context_length`"),
        ({"context_length": True}, "has true as `model.context_length`"),
        ({"context_length": 4096.0}, "has 4096.0 as `model.context_length`"),
        ({"vocab_size": []}, "has [] as `model.vocab_size`"),
        ({"eos_token_id": None}, "has no `model.eos_token_id`"),
        ({"eos_token_id": []}, "has no `model.eos_token_id`"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_named(onnx, change, problem):
    path = onnx / "genai_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"model": content["model"] | change}))
    assert refusal(path, weights.onnx).startswith(problem)


@pytest.mark.parametrize("content", [{}, {"model": None}, {"model": []}, {"model": "phi3"}], ids=str)
def test_a_config_without_a_model_is_named(onnx, content):
    (onnx / "genai_config.json").write_text(json.dumps(content))
    assert refusal(onnx / "genai_config.json", weights.onnx).startswith("has no `model.context_length`")


@pytest.mark.parametrize("decoder", [None, [], "x", {"filename": 5}, {"session_options": []}], ids=str)
def test_other_entries_of_another_type_are_no_stack_trace(onnx, decoder):
    path = onnx / "genai_config.json"
    path.write_text(json.dumps({"model": json.loads(path.read_text())["model"] | {"decoder": decoder}}))
    assert weights.onnx(onnx) == onnx  # onnxruntime-genai refuses it


# The commands


def call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["weights", *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("command", ["verify", "fit", "fetch"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_command_names_the_file_in_one_line(checkpoint, command, name):
    (checkpoint / name).write_bytes(POINTER)
    code, output = call(command, str(checkpoint))
    assert (code, name in output, "git lfs pull" in output, output.count("\n")) == (1, True, True, 1)


@pytest.mark.parametrize("command", ["verify", "fit", "fetch"])
def test_a_command_names_a_damaged_genai_config(onnx, command):
    (onnx / "genai_config.json").write_bytes(b"{")
    code, output = call(command, str(onnx), *(["--form", "onnx"] if command == "fetch" else []))
    assert (code, "genai_config.json is no JSON" in output, output.count("\n")) == (1, True, 1)


@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
def test_a_whole_folder_of_ones_own_is_verified(request, form):
    folder = request.getfixturevalue(form)
    assert call("verify", str(folder)) == (0, f"{folder}: whole\n")


def test_an_estimate_needs_a_number_of_layers(checkpoint):
    (checkpoint / "config.json").write_bytes(b'{"num_hidden_layers": "2"}')
    with pytest.raises(WeightsError, match=r'config\.json has "2" as `num_hidden_layers`'):
        fit.list_needs(weights.resolve(checkpoint))
