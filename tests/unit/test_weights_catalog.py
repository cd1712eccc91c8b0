"""Names: what `resolve` makes of them, and what a local folder must hold."""

import json
from pathlib import Path

import pytest

from phi3kit import weights
from phi3kit.errors import WeightsError


def safetensors(path: Path, tensor: bytes = bytes(64)) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(tensor)], "data_offsets": [0, len(tensor)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + tensor)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["SomethingElseForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    safetensors(folder / "a.safetensors")
    safetensors(folder / "b.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    folder = tmp_path / "my-onnx"
    folder.mkdir()
    (folder / "genai_config.json").write_text('{"model": {"decoder": {"filename": "model.onnx"}}}')
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text("{}")  # Microsoft's ONNX folders have one too
    return folder


def test_catalog_names_hold_what_is_needed_to_choose_one():
    assert list(weights.CATALOG) == [
        "tiny", "phi-3-mini-4k-instruct", "phi-3.5-mini-instruct", "phi-4-mini-instruct",
    ]  # fmt: skip
    for name, entry in weights.CATALOG.items():
        assert entry.name == name
        assert entry.onnx_bytes < entry.memory_bytes < entry.checkpoint_bytes or name == "tiny"
        assert entry.checkpoint_bytes == pytest.approx(2 * entry.parameters, rel=0.01)  # bfloat16
        assert entry.context_length >= 4096
        assert entry.licence in ("MIT", "Apache-2.0")
        if entry.checkpoint:
            assert len(entry.revision) == 40
            assert len(entry.onnx_revision) == 40 or entry.name == "phi-4-mini-instruct"


@pytest.mark.parametrize("name", ["phi-4-mini-instruct", "Phi-4-Mini-Instruct", "microsoft/Phi-4-mini-instruct"])
def test_a_catalog_model_answers_to_its_name_in_any_case_and_to_its_hub_id(name):
    assert weights.resolve(name) is weights.CATALOG["phi-4-mini-instruct"]


def test_a_hub_id_may_carry_a_revision():
    entry = weights.resolve("someone/some-model@v1.0")
    assert (entry.checkpoint, entry.revision, entry.onnx_repo) == ("someone/some-model", "v1.0", None)
    assert weights.resolve("someone/some-model").revision == "main"
    assert weights.resolve("microsoft/Phi-4-mini-instruct@main").revision == "main"


def test_a_folder_goes_before_a_hub_id_of_the_same_spelling(tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert weights.resolve("models/mine").folder == tmp_path / "models" / "mine"
    assert weights.resolve(Path("models")).folder == tmp_path / "models"


@pytest.mark.parametrize(
    ("name", "guess"),
    [("tinny", "tiny"), ("phi-3-mini", "phi-3-mini-4k-instruct"), ("phi4-mini-instruct", "phi-4-mini")],
)
def test_an_unknown_name_is_met_with_the_names_there_are_and_a_guess(name, guess):
    with pytest.raises(WeightsError, match=f"did you mean '{guess}") as error:
        weights.checkpoint(name)
    assert all(known in str(error.value) for known in weights.CATALOG)


@pytest.mark.parametrize("name", ["", "llama", "./nowhere", "/no/such/folder", "a/b/c"])
def test_what_is_nothing_like_a_model_gets_no_guess(name):
    with pytest.raises(WeightsError) as error:
        weights.resolve(name)
    assert "did you mean" not in str(error.value)
    assert "phi-3-mini-4k-instruct" in str(error.value)


def test_a_whole_checkpoint_folder_of_any_architecture_is_taken_as_it_is(checkpoint):
    assert weights.checkpoint(checkpoint) == checkpoint


@pytest.mark.parametrize("missing", ["config.json", "b.safetensors", "tokenizer.json"])
def test_a_checkpoint_folder_that_lacks_a_file_is_refused_by_its_name(checkpoint, missing):
    (checkpoint / missing).unlink()
    for form in (weights.checkpoint, weights.onnx):
        with pytest.raises(WeightsError, match=f"lacks {missing}"):
            form(checkpoint)


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: old[:-1],
        lambda old: old[:5],
        lambda old: old + b"?",
        lambda old: old[:9] + bytes([old[9] ^ 1]) + old[10:],
        lambda old: old[:9] + bytes([old[9] ^ 128]) + old[10:],
        lambda old: old.replace(b"data_offsets", b"data_offsetr"),
        lambda old: (2).to_bytes(8, "little") + b"[]" + old,
    ],
)
def test_a_shard_of_the_wrong_length_or_with_a_damaged_header_is_seen_without_reading_it_all(checkpoint, damage):
    shard = checkpoint / "b.safetensors"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(WeightsError, match=r"b\.safetensors, which is cut short or damaged"):
        weights.checkpoint(checkpoint)


def test_pickled_weights_are_refused_with_the_reason(checkpoint):
    for path in checkpoint.glob("*safetensors*"):
        path.unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=r"lacks model\.safetensors.*\.bin weights are not read"):
        weights.checkpoint(checkpoint)


def test_an_onnx_folder_is_taken_as_it_is_and_is_no_checkpoint(onnx):
    assert weights.onnx(onnx) == onnx
    with pytest.raises(WeightsError, match=r"holds an ONNX model and no checkpoint.*onnx\("):
        weights.checkpoint(onnx)


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json"])
def test_an_onnx_folder_that_lacks_a_file_is_refused_by_its_name(onnx, missing):
    (onnx / missing).unlink()
    with pytest.raises(WeightsError, match=f"lacks {missing}"):
        weights.onnx(onnx)


def test_weights_that_an_onnx_graph_keeps_in_another_file_must_be_there_and_long_enough(onnx):
    from onnx import TensorProto, helper, save_model

    tensors = [helper.make_tensor(name, TensorProto.FLOAT, [2_000], bytes(8_000), raw=True) for name in "ab"]
    graph = helper.make_graph([], "graph", [], [], tensors)
    save_model(helper.make_model(graph), onnx / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    assert weights.onnx(onnx) == onnx
    data = onnx / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"lacks a part of model\.onnx\.data, which is cut short"):
        weights.onnx(onnx)
    data.unlink()
    with pytest.raises(WeightsError, match=r"lacks model\.onnx\.data\. Fetch or export it again"):
        weights.onnx(onnx)


def test_a_folder_that_is_neither_says_what_either_would_have(tmp_path):
    for form in (weights.checkpoint, weights.onnx):
        with pytest.raises(WeightsError, match=r"config\.json.*genai_config\.json"):
            form(tmp_path)
