"""Names: the entry that `resolve` gives for each, and the files that a local folder must hold."""

import json
import re
import sys
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
    model = {"context_length": 9, "vocab_size": 9, "eos_token_id": 0, "decoder": {"filename": "model.onnx"}}
    (folder / "genai_config.json").write_text(json.dumps({"model": model}))
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text("{}")  # Microsoft's ONNX folders have one too
    return folder


def test_the_catalog_lists_four_models():
    names = ["tiny", "phi-3-mini-4k-instruct", "phi-3.5-mini-instruct", "phi-4-mini-instruct"]
    assert list(weights.CATALOG) == [entry.name for entry in weights.CATALOG.values()] == names


@pytest.mark.parametrize("entry", weights.CATALOG.values(), ids=lambda entry: entry.name)
class TestEntry:
    """Each entry holds what a person needs to choose a model."""

    def test_a_checkpoint_has_two_bytes_a_parameter(self, entry):
        assert entry.checkpoint.disk == pytest.approx(2 * entry.parameters, rel=0.01)

    def test_int4_needs_less_memory_than_the_checkpoint(self, entry):
        assert entry.onnx.disk < entry.onnx.memory < entry.checkpoint.memory

    def test_a_published_model_names_its_commits(self, entry):
        sources = [*entry.sources.values(), *entry.gpus.values()]
        branches = {source.repo for source in sources if source.repo and len(source.revision) != 40}
        # No commit of the GPU's folder of Phi-3.5, and none of Phi-4, could be confirmed.
        assert branches <= {"microsoft/Phi-3.5-mini-instruct-onnx", "microsoft/Phi-4-mini-instruct-onnx"}

    def test_the_context_holds_a_long_chat(self, entry):
        assert entry.context_length >= 4096

    def test_the_licence_is_free(self, entry):
        assert entry.licence in ("MIT", "Apache-2.0")


def test_a_form_has_one_spelling():
    assert [f"{form}" for form in weights.CATALOG["tiny"].sources] == ["checkpoint", "onnx"]


@pytest.mark.parametrize("name", ["phi-4-mini-instruct", "Phi-4-Mini-Instruct", "microsoft/Phi-4-mini-instruct"])
def test_a_name_in_any_case_and_a_hub_id_mean_the_entry(name):
    assert weights.resolve(name) is weights.CATALOG["phi-4-mini-instruct"]


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("someone/some-model@v1.0", "someone/some-model", "v1.0"),
        ("someone/some-model", "someone/some-model", "main"),
        ("microsoft/Phi-4-mini-instruct@main", "microsoft/Phi-4-mini-instruct", "main"),
    ],
)
def test_a_hub_id_may_carry_a_revision(name, repo, revision):
    checkpoint = weights.resolve(name).checkpoint
    assert (checkpoint.repo, checkpoint.revision) == (repo, revision)


def test_the_onnx_form_of_a_hub_id_is_exported():
    assert weights.resolve("someone/some-model").onnx.repo is None


@pytest.mark.parametrize("name", ["models/mine", Path("models")])
def test_a_folder_precedes_a_hub_id_of_the_same_spelling(tmp_path, monkeypatch, name):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert weights.resolve(name).folder == tmp_path / name


@pytest.mark.parametrize(
    ("name", "guess"),
    [("tinny", "tiny"), ("phi-3-mini", "phi-3-mini-4k-instruct"), ("phi4-mini-instruct", "phi-4-mini-instruct")],
)
def test_an_unknown_name_gets_a_suggestion(name, guess):
    with pytest.raises(WeightsError, match=f"did you mean '{guess}'"):
        weights.checkpoint(name)


@pytest.mark.parametrize("known", weights.CATALOG)
def test_an_unknown_name_gets_the_list_of_names(known):
    with pytest.raises(WeightsError, match=re.escape(known)):
        weights.onnx("llama")


@pytest.mark.parametrize("name", ["", "llama", "./nowhere", "/no/such/folder", "a/b/c"])
def test_a_name_like_no_other_gets_no_suggestion(name):
    with pytest.raises(WeightsError, match=r"^(?!.*did you mean)"):
        weights.resolve(name)


def test_a_checkpoint_of_any_architecture_is_accepted(checkpoint):
    assert weights.checkpoint(checkpoint) == checkpoint


@pytest.mark.parametrize("form", [weights.checkpoint, weights.onnx])
@pytest.mark.parametrize("missing", ["config.json", "b.safetensors", "tokenizer.json"])
def test_the_missing_file_of_a_checkpoint_is_named(checkpoint, missing, form):
    (checkpoint / missing).unlink()
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
def test_a_shard_that_its_header_contradicts_is_refused(checkpoint, damage):
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


def test_a_whole_onnx_folder_is_accepted(onnx):
    assert weights.onnx(onnx) == onnx


def test_an_onnx_folder_is_no_checkpoint(onnx):
    with pytest.raises(WeightsError, match=r"holds an ONNX model and no checkpoint.*onnx\("):
        weights.checkpoint(onnx)


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json"])
def test_the_missing_file_of_an_onnx_folder_is_named(onnx, missing):
    (onnx / missing).unlink()
    with pytest.raises(WeightsError, match=f"lacks {missing}"):
        weights.onnx(onnx)


@pytest.fixture
def external_data(onnx: Path) -> Path:
    """The file in which the graph of `onnx` keeps its weights."""
    from onnx import TensorProto, helper, save_model

    tensors = [helper.make_tensor(name, TensorProto.FLOAT, [2_000], bytes(8_000), raw=True) for name in "ab"]
    graph = helper.make_graph([], "graph", [], [], tensors)
    save_model(helper.make_model(graph), onnx / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    return onnx / "model.onnx.data"


def test_an_onnx_folder_with_external_data_is_accepted(onnx, external_data):
    assert weights.onnx(onnx) == onnx


def test_external_data_that_is_too_short_is_refused(onnx, external_data):
    external_data.write_bytes(external_data.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"lacks a part of model\.onnx\.data, which is cut short"):
        weights.onnx(onnx)


def test_missing_external_data_is_refused(onnx, external_data):
    external_data.unlink()
    with pytest.raises(WeightsError, match=r"lacks model\.onnx\.data\. Fetch or export it again"):
        weights.onnx(onnx)


def test_without_the_package_onnx_its_folders_are_accepted(onnx, external_data, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert weights.onnx(onnx) == onnx


@pytest.mark.parametrize("form", [weights.checkpoint, weights.onnx])
def test_an_empty_folder_is_told_what_each_form_has(tmp_path, form):
    with pytest.raises(WeightsError, match=r"config\.json.*genai_config\.json"):
        form(tmp_path)
