"""The kit's ONNX export, of a random model of Phi-3's architecture that is exported in seconds."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import random_checkpoint

from phi3kit import weights
from phi3kit.errors import WeightsError
from phi3kit.generation import Engine, Options
from phi3kit.system import folders, process, targets
from phi3kit.weights import Form, Target, cached, export


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "random"
    random_checkpoint.write(folder)
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


# Other targets. No GPU is here: the exports are made, and their graphs computed on the CPU.


@pytest.fixture(scope="module", params=[Target.CUDA, Target.DML])
def for_gpu(request, random_model, exported) -> tuple[Target, Path]:
    """A target, and the folder of the export for it, in the cache of the export for a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_CACHE", str(exported.parents[1]))
        return request.param, weights.onnx(random_model, request.param)


@pytest.mark.usefixtures("same_cache")
def test_each_target_has_an_export_of_its_own(random_model, exported, for_gpu):
    target, folder = for_gpu
    assert (weights.onnx(random_model, target), weights.onnx(random_model)) == (folder, exported)


def test_an_export_for_a_gpu_names_its_provider(for_gpu):
    target, folder = for_gpu
    assert folders.GenaiConfig.read(folder).provider == target


def test_an_export_for_a_gpu_has_the_models_defaults(for_gpu):
    search = json.loads((for_gpu[1] / "genai_config.json").read_text())["search"]
    assert search["repetition_penalty"] == 1.25


def test_an_export_for_a_gpu_computes_in_float16(for_gpu):
    import onnx

    graph = onnx.load(for_gpu[1] / "model.onnx", load_external_data=False).graph
    assert {value.type.tensor_type.elem_type for value in graph.output} == {onnx.TensorProto.FLOAT16}


def test_directml_gets_matrices_of_four_bits(for_gpu):
    import onnx

    target, folder = for_gpu
    nodes = onnx.load(folder / "model.onnx", load_external_data=False).graph.node
    bits = {
        entry.i for node in nodes if node.op_type == "MatMulNBits" for entry in node.attribute if entry.name == "bits"
    }
    assert bits == ({4} if target is Target.DML else {4, 8})


def test_the_engine_refuses_an_export_for_a_gpu(for_gpu):
    target, folder = for_gpu
    with pytest.raises(
        WeightsError, match=f"computes with {target} .*put {targets.PACKAGES[target][0]} in their place"
    ):
        Engine.open(folder)


def test_the_number_of_threads_replaces_no_provider(for_gpu, monkeypatch):
    monkeypatch.setattr(targets, "need", lambda *_: None)
    with pytest.raises(WeightsError, match=r"(?i)cannot open .*(cuda|dml).* It computes with"):
        Engine.open(for_gpu[1], threads=2)


def test_the_graph_for_a_gpu_answers_as_the_cpus(for_gpu, exported, tmp_path):
    folder = Path(shutil.copytree(for_gpu[1], tmp_path / "copy"))
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["decoder"]["session_options"]["provider_options"] = []
    (folder / "genai_config.json").write_text(json.dumps(config))
    (folder / folders.MANIFEST).unlink()
    prompt, options = "<|user|>hello<|end|><|assistant|>", Options(max_tokens=3)
    (gpu,), (cpu,) = (Engine.open(each).generate([prompt], options) for each in (folder, exported))
    assert gpu.token_ids[0] == cpu.token_ids[0]  # random weights in other precisions: later ones may differ


@pytest.mark.usefixtures("same_cache")
def test_exports_are_listed_by_target(for_gpu, exported):
    items = {item.folder: (item.targets, item.lacks, item.obsolete) for item in cached.list_cached()}
    assert [items[folder] for folder in (for_gpu[1], exported)] == [
        ((for_gpu[0],), None, False),
        (("cpu",), None, False),
    ]


@pytest.mark.usefixtures("same_cache")
def test_the_command_that_obtains_an_export_has_its_target(for_gpu):
    (item,) = [item for item in cached.list_cached() if item.folder == for_gpu[1]]
    assert item.fetch.endswith(f" --target {for_gpu[0]}")


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
    monkeypatch.setattr(export, "export", lambda name, source, folder, target: sources.append(source))
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
    monkeypatch.setitem(export.OPTIONS, weights.Target.CPU, "-p int4 -e cpu")
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
