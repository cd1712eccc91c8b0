"""Does it fit, how fast is it: the arithmetic, and what is read from a folder."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from phi3kit.doctor import checks, fit
from phi3kit.doctor.fit import Needs
from phi3kit.errors import WeightsError
from phi3kit.system import machine
from phi3kit.weights import CATALOG, Entry, Form
from phi3kit.weights.catalog import Source
from phi3kit.workbook.running.paths import NOTEBOOKS, ROOT

QUIET = 35.5e9  # bytes a second that two cores read
PHI_3_SHAPE = Needs(Form.ONNX, 2_600_000_000, 3_200_000_000, 2_200_000_000, 32)


def of(name: str, form: Form) -> Needs:
    return next(needs for needs in fit.list_needs(CATALOG[name]) if needs.form is form)


@pytest.mark.parametrize(
    ("needs", "bandwidth", "measured"),
    [
        (of("tiny", Form.ONNX), 35.5e9, 190),
        (of("tiny", Form.ONNX), 48e9, 260),
        (of("tiny", Form.CHECKPOINT), 48e9, 51),
        (PHI_3_SHAPE, 35.5e9, 11.3),
        (replace(PHI_3_SHAPE, read=2_890_000_000), 43.9e9, 13.2),  # exported with some matrices in 8 bits
        (of("phi-3-mini-4k-instruct", Form.CHECKPOINT), 43.9e9, 3.3),  # random weights of its shape
    ],
    ids=lambda value: value.form if isinstance(value, Needs) else str(value),
)
def test_estimates_are_within_a_fifth_of_measurements(needs, bandwidth, measured):
    assert needs.tokens_per_second(bandwidth, 2) == pytest.approx(measured, rel=0.2)


def test_memory_bandwidth_limits_any_number_of_cores():
    assert PHI_3_SHAPE.tokens_per_second(QUIET, 1000) < QUIET / PHI_3_SHAPE.read


def test_more_memory_bandwidth_is_faster():
    assert PHI_3_SHAPE.tokens_per_second(2 * QUIET, 8) > 1.5 * PHI_3_SHAPE.tokens_per_second(QUIET, 8)


@pytest.mark.parametrize("name", CATALOG)
class TestCatalogEntry:
    """Both forms of each entry can be estimated."""

    def test_both_forms_are_listed(self, name):
        assert [needs.form for needs in fit.list_needs(CATALOG[name])] == list(Form)

    def test_int4_reads_at_most_its_files(self, name):
        assert of(name, Form.ONNX).read <= of(name, Form.ONNX).disk < of(name, Form.CHECKPOINT).read

    def test_int4_reads_half_a_byte_a_parameter_and_more(self, name):
        assert 0.5 < of(name, Form.ONNX).read / CATALOG[name].parameters < 0.9  # in blocks, some matrices in int8

    def test_int4_is_faster(self, name):
        speeds = [of(name, form).tokens_per_second(QUIET, 2) for form in Form]
        assert speeds == sorted(speeds)


@pytest.mark.parametrize(
    ("cached", "expected"),
    [
        (0, ["disk: 2.5 GB needed, 1.0 GB free", "memory: 3.2 GB needed, 3.0 GB free"]),
        (2_500_000_000, ["memory: 3.2 GB needed, 3.0 GB free"]),
    ],
)
def test_cached_files_need_no_more_disk(monkeypatch, cached, expected):
    monkeypatch.setattr(machine, "memory", lambda: (8 * 10**9, 3 * 10**9))
    monkeypatch.setattr(machine, "disk_free", lambda folder: 10**9)
    needs = Needs(Form.ONNX, 2_500_000_000, 3_200_000_000, 2_000_000_000, 32, cached)
    assert needs.shortages()[0] == expected


def test_what_fits_has_no_shortage(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (64 * 10**9, 64 * 10**9))
    monkeypatch.setattr(machine, "disk_free", lambda folder: 10**12)
    assert PHI_3_SHAPE.shortages() == ([], [])


@pytest.mark.parametrize(
    ("name", "measured"), [("phi-3-mini-4k-instruct", 15_200_000_000), ("tiny", 1_316_000_000)], ids=["Phi-3", "tiny"]
)
def test_a_notebook_takes_about_what_was_measured(name, measured):
    """Of the largest process of TransformerPipeline."""
    assert of(name, Form.CHECKPOINT).notebook_memory == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", fit.LOGGED)
def test_the_models_that_a_notebook_logs_are_counted(name):
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    flavours = re.findall(r"mlflow\.(\w+)\.log_model\(", code)
    assert (flavours.count("transformers"), flavours.count("pyfunc")) == fit.LOGGED[name]


def test_every_notebook_has_its_models_counted():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(fit.LOGGED)


def test_a_run_takes_the_disk_of_all_models_that_it_logs():
    pipelines, models = map(sum, zip(*fit.LOGGED.values(), strict=True))
    size = pipelines * CATALOG["tiny"].checkpoint.disk + models * CATALOG["tiny"].onnx.disk
    assert pytest.approx(size, rel=0.05) == checks.RUN_DISK


@pytest.mark.parametrize("page", ["README.md", "docs/real-phi-3.md"])
def test_a_page_names_the_disk_that_both_notebooks_need(page):
    checkpoint, onnx = CATALOG["phi-3-mini-4k-instruct"].sources.values()
    pipelines, models = map(sum, zip(*fit.LOGGED.values(), strict=True))
    size = (1 + pipelines) * checkpoint.disk + (1 + models) * onnx.disk
    assert f"both notebooks together need {size / 1e9:.0f} GB" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("form", Form)
def test_a_notebook_takes_more_than_its_model(name, form):
    needs = of(name, form)
    assert (needs.notebook_memory > needs.memory, needs.notebook_disk > 0) == (True, True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An ONNX folder with a table of 1000 x 64 embeddings and a matrix of 64 x 64, in float32."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = numpy_helper.from_array(np.zeros((1000, 64), np.float32), "table")
    weight = numpy_helper.from_array(np.zeros((64, 64), np.float32), "weight")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"]), helper.make_node("MatMul", ["x", "weight"], ["y"])]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [table, weight]))
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    config = {"model": {"decoder": {"filename": "model.onnx", "num_hidden_layers": 3}}}
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))


def test_the_table_of_embeddings_is_not_read(folder):
    (needs,) = fit.list_needs(Entry("mine", folder=folder))
    assert (needs.form, needs.read, needs.layers) == (Form.ONNX, 64 * 64 * 4, 3)


def test_the_disk_of_a_folder_is_the_size_of_its_files(folder):
    (needs,) = fit.list_needs(Entry("mine", folder=folder))
    assert needs.disk == sum(path.stat().st_size for path in folder.iterdir())


def test_the_notebook_of_a_local_onnx_folder_is_unknown(folder):
    (needs,) = fit.list_needs(Entry("mine", folder=folder))
    assert (needs.notebook_disk, needs.notebook_memory) == (0, 0)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("genai_config.json", "{", "genai_config.json is no JSON"),
        ("genai_config.json", "[]", "genai_config.json holds no JSON object"),
        ("genai_config.json", '{"model": {"decoder": {"filename": "model.onnx"}}}', "num_hidden_layers"),
        ("model.onnx", "no graph", "model.onnx cannot be read as an ONNX model"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, problem):
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=problem):
        fit.list_needs(Entry("mine", folder=folder))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"num_hidden_layers": "3"}'])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json"):
        fit.list_needs(Entry("mine", folder=tmp_path))


def test_the_sizes_of_an_unlisted_hub_id_are_unknown():
    with pytest.raises(WeightsError, match="is not known"):
        fit.list_needs(Entry("some/one", checkpoint=Source("some/one")))
