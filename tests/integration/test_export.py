"""Our own ONNX export, of a random model of Phi-3's shape small enough to export in seconds."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from phi3kit import weights
from phi3kit.errors import WeightsError
from phi3kit.weights import export, store

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


def test_a_local_checkpoint_is_exported_once_into_a_folder_that_generates(random_model, cache, capsys):
    import onnxruntime_genai as og

    folder = weights.onnx(random_model)
    assert folder.is_relative_to(cache)
    assert "exporting" in capsys.readouterr().err
    assert weights.onnx(random_model) == folder
    assert weights.onnx(folder) == folder
    assert capsys.readouterr().err == ""
    assert {path.name for path in folder.parent.iterdir()} == {".lock", folder.name}, "neither log nor scratch stays"

    search = json.loads((folder / "genai_config.json").read_text())["search"]
    assert search["repetition_penalty"] == 1.25
    assert search["max_length"] == 128, "the context length, not generation_config's"
    assert (folder / "tokenizer_config.json").is_file()
    template = (folder / "chat_template.jinja", folder / "tokenizer_config.json")
    assert any(path.is_file() and "message['content']" in path.read_text() for path in template)

    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=12)
    generator = og.Generator(model, params)
    generator.append_tokens(og.Tokenizer(model).encode("<|user|>hello"))
    generator.generate_next_token()
    assert len(generator.get_sequence(0)) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="the system there kills nobody when memory runs out")
def test_a_builder_that_was_killed_has_most_likely_run_out_of_memory(random_model, tmp_path, monkeypatch):
    run = export.child.run

    def killed(*command: str, **options: object) -> object:
        kill_oneself = "import os, signal\nprint('so far', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
        Path(options["scratch"], "builder.py").write_text(kill_oneself)
        return run("builder", *command[1:], **options)

    monkeypatch.setattr(export.child, "run", killed)
    (tmp_path / "out").mkdir()
    with pytest.raises(WeightsError, match=r"(?s)was killed: most likely memory ran out.*so far"):
        export.export("random", random_model, tmp_path / "out")


@pytest.mark.usefixtures("cache")
def test_a_changed_checkpoint_is_exported_anew(random_model, tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(export, "export", lambda name, source, folder: exported.append(source))
    copy = Path(shutil.copytree(random_model, tmp_path / "copy"))
    first = weights.onnx(copy)
    assert weights.onnx(copy) == first
    (copy / "generation_config.json").write_text("{ }")
    second = weights.onnx(copy)
    monkeypatch.setattr(export, "OPTIONS", "-p int4 -e cpu")
    assert len({first, second, weights.onnx(copy)}) == 3
    assert exported == [copy] * 3


def test_a_failed_export_shows_the_end_of_its_log_and_keeps_it(random_model, tmp_path, cache):
    odd = Path(shutil.copytree(random_model, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"architectures": ["OddForCausalLM"]}))
    with pytest.raises(WeightsError, match=r"stopped with 1.*export\.log") as error:
        weights.onnx(odd)
    assert "NotImplementedError" in str(error.value)
    (log,) = cache.rglob("export.log")
    assert "NotImplementedError" in log.read_text()
    assert {path.name for path in log.parent.iterdir()} == {".lock", "export.log"}


@pytest.mark.tiny
def test_tiny_keeps_its_own_defaults_in_both_forms():
    checkpoint, onnx = weights.checkpoint("tiny"), weights.onnx("tiny")
    defaults = json.loads((checkpoint / "generation_config.json").read_text())
    search = json.loads((onnx / "genai_config.json").read_text())["search"]
    assert search["repetition_penalty"] == defaults.get("repetition_penalty", 1.0)
    entry = weights.CATALOG["tiny"]
    for folder, size in ((checkpoint, entry.checkpoint_bytes), (onnx, entry.onnx_bytes)):
        assert sum(path.stat().st_size for path in folder.iterdir()) == pytest.approx(size, rel=0.01)
        assert store.damage(folder) is None
