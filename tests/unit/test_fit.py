"""Will it fit, how fast: the arithmetic, and what it reads from a folder."""

import json
from dataclasses import replace

import pytest

from phi3kit import machine
from phi3kit.doctor import fit
from phi3kit.doctor.fit import Form
from phi3kit.errors import WeightsError
from phi3kit.weights import CATALOG, Entry

QUIET = 35.5e9  # bytes a second that two cores read
PHI_3_SHAPE = Form("ONNX", 2_600_000_000, 3_200_000_000, 2_200_000_000, 32)


def of(name: str, form: str) -> Form:
    return next(one for one in fit.forms(CATALOG[name]) if one.form == form)


@pytest.mark.parametrize(
    ("form", "bandwidth", "measured"),
    [
        (of("tiny", "ONNX"), 35.5e9, 190),
        (of("tiny", "ONNX"), 48e9, 260),
        (of("tiny", "checkpoint"), 48e9, 51),
        (PHI_3_SHAPE, 35.5e9, 11.3),
        (replace(PHI_3_SHAPE, read=2_890_000_000), 43.9e9, 13.2),  # exported with some matrices in 8 bits
        (of("phi-3-mini-4k-instruct", "checkpoint"), 43.9e9, 3.3),  # random weights of its shape
    ],
    ids=lambda value: value.form if isinstance(value, Form) else str(value),
)
def test_the_arithmetic_gives_what_was_measured_within_a_fifth(form, bandwidth, measured):
    assert form.tokens_per_second(bandwidth, 2) == pytest.approx(measured, rel=0.2)


def test_memory_is_the_limit_however_many_cores_and_more_of_it_is_faster():
    assert PHI_3_SHAPE.tokens_per_second(QUIET, 1000) < QUIET / PHI_3_SHAPE.read
    assert PHI_3_SHAPE.tokens_per_second(2 * QUIET, 8) > 1.5 * PHI_3_SHAPE.tokens_per_second(QUIET, 8)


@pytest.mark.parametrize("name", CATALOG)
def test_every_catalog_entry_can_be_judged(name):
    checkpoint, onnx = fit.forms(CATALOG[name])
    assert (checkpoint.form, onnx.form) == ("checkpoint", "ONNX")
    assert onnx.read <= onnx.disk < checkpoint.read
    assert 0.5 < onnx.read / CATALOG[name].parameters < 0.9  # int4 in blocks, some matrices in int8
    assert onnx.tokens_per_second(QUIET, 2) > checkpoint.tokens_per_second(QUIET, 2)


def test_what_is_short_is_named_and_what_is_here_needs_no_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (8 * 10**9, 3 * 10**9))
    monkeypatch.setattr(machine, "disk_free", lambda folder: 10**9)
    form = Form("ONNX", 2_500_000_000, 3_200_000_000, 2_000_000_000, 32, 0, tmp_path)
    assert form.short_of() == ["disk: 2.5 GB needed, 1.0 GB free", "memory: 3.2 GB needed, 3.0 GB free"]
    assert Form("ONNX", 2_500_000_000, 10**9, 10**9, 32, 2_500_000_000, tmp_path).short_of() == []


def test_a_local_folder_is_judged_by_its_files_without_the_table_of_embeddings(tmp_path, monkeypatch):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))
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
    (form,) = fit.forms(Entry(tmp_path.name, folder=tmp_path))
    assert (form.form, form.read, form.layers) == ("ONNX", 64 * 64 * 4, 3)
    assert form.disk > 1000 * 64 * 4
    with pytest.raises(WeightsError, match="is not known"):
        fit.forms(Entry("some/one", checkpoint="some/one"))
