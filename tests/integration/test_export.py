"""The kit's ONNX export, of a random model of Phi-3's architecture that is exported in seconds."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from phi3kit import weights
from phi3kit.errors import WeightsError
from phi3kit.system import folders, process
from phi3kit.weights import Form, export

SPECIAL = ["<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "random"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    bare = Tokenizer(models.BPE(vocabulary, []))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bare.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    config = Phi3Config(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, original_max_position_embeddings=128, pad_token_id=0,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = Phi3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=[1, 0], repetition_penalty=1.25, max_length=20)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def exported(random_model, tmp_path_factory) -> Path:
    """The folder of one export, in a cache that the tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return weights.onnx(random_model)


@pytest.fixture
def same_cache(exported, monkeypatch) -> None:
    monkeypatch.setenv("PHI3KIT_CACHE", str(exported.parents[1]))


@pytest.mark.usefixtures("same_cache")
def test_a_local_checkpoint_is_exported_once(random_model, exported, capsys):
    assert (weights.onnx(random_model), capsys.readouterr().err) == (exported, "")


def test_an_export_is_a_local_onnx_folder(exported):
    assert weights.onnx(exported) == exported


def test_an_export_leaves_neither_log_nor_scratch_folder(exported):
    assert {path.name for path in exported.parent.iterdir()} == {".lock", exported.name}


def test_an_export_has_the_models_defaults_but_its_length(exported):
    search = json.loads((exported / "genai_config.json").read_text())["search"]
    assert (search["repetition_penalty"], search["max_length"]) == (1.25, 128)  # 128: the context length


def test_an_export_has_the_chat_template(exported):
    files = [exported / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    assert any("message['content']" in path.read_text() for path in files if path.is_file())


def test_an_export_generates(exported):
    import onnxruntime_genai as og

    model = og.Model(str(exported))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=12)
    generator = og.Generator(model, params)
    generator.append_tokens(og.Tokenizer(model).encode("<|user|>hello"))
    generator.generate_next_token()
    assert len(generator.get_sequence(0)) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="the system there kills no process when memory runs out")
def test_an_exporter_that_was_killed_ran_out_of_memory(random_model, tmp_path, monkeypatch):
    run, code = process.run, "import os, signal\nprint('so far', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(process, "run", lambda _, **options: run([sys.executable, "-c", code], **options))
    (tmp_path / "out").mkdir()
    with pytest.raises(WeightsError, match=r"(?s)was killed: most likely memory ran out.*so far"):
        export.export("random", random_model, tmp_path / "out")


@pytest.fixture
def exports(cache, monkeypatch) -> list[Path]:
    """The checkpoints of all exports; none takes place."""
    sources = []
    monkeypatch.setattr(export, "export", lambda name, source, folder: sources.append(source))
    return sources


@pytest.fixture
def copy(random_model, tmp_path) -> Path:
    return Path(shutil.copytree(random_model, tmp_path / "copy"))


def test_an_unchanged_checkpoint_is_exported_once(copy, exports):
    assert (weights.onnx(copy) == weights.onnx(copy), exports) == (True, [copy])


def test_a_changed_checkpoint_is_exported_again(copy, exports):
    first = weights.onnx(copy)
    (copy / "generation_config.json").write_text("{ }")
    assert (weights.onnx(copy) == first, exports) == (False, [copy, copy])


def test_other_export_options_are_another_export(copy, exports, monkeypatch):
    first = weights.onnx(copy)
    monkeypatch.setattr(export, "OPTIONS", "-p int4 -e cpu")
    assert (weights.onnx(copy) == first, exports) == (False, [copy, copy])


@pytest.fixture(scope="module")
def failure(random_model, tmp_path_factory) -> tuple[str, Path]:
    """The message of an export that failed, and its cache."""
    folder, cache = tmp_path_factory.mktemp("odd") / "odd", tmp_path_factory.mktemp("cache")
    shutil.copytree(random_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["OddForCausalLM"]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_CACHE", str(cache))
        with pytest.raises(WeightsError, match=r"stopped with 1") as error:
            weights.onnx(folder)
    return str(error.value), cache


@pytest.mark.parametrize("part", ["export.log", "NotImplementedError"])
def test_a_failed_export_shows_the_end_of_its_log(failure, part):
    assert part in failure[0]


def test_a_failed_export_leaves_only_its_log(failure):
    (log,) = failure[1].rglob("export.log")
    assert "NotImplementedError" in log.read_text()
    assert {path.name for path in log.parent.iterdir()} == {".lock", "export.log"}


@pytest.mark.tiny
@pytest.mark.parametrize("form", Form)
def test_the_catalog_knows_the_size_of_tiny(form):
    folder = getattr(weights, form)("tiny")
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size == pytest.approx(weights.CATALOG["tiny"].sources[form].disk, rel=0.01)


@pytest.mark.tiny
@pytest.mark.parametrize("form", Form)
def test_tiny_is_whole(form):
    assert folders.damage(getattr(weights, form)("tiny")) is None
