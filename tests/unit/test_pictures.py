"""Pictures of invented measurements: their message without colour, without a pointer, and in words."""

import io
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import onnx
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from phi3kit.workbook.lesson.pictures import (
    Picture,
    Step,
    first_difference,
    memory_curves,
    rounding,
    signature_tree,
    time_line,
    token_probabilities,
)
from phi3kit.workbook.lesson.pictures.display import DARK, INK
from phi3kit.workbook.lesson.pictures.memory import Memory
from phi3kit.workbook.lesson.pictures.weights import four_bit_matrices
from phi3kit.workbook.running.page import page

HOSTILE = '<script>alert("1")</script>'
STEPS = [
    Step("The", 0.9, (("A", 0.06), ("It", 0.03), ("One", 0.002))),
    Step(" cat", 0.3, ((HOSTILE, 0.29), ("\n", 0.1), (" dog", 0.05), (" cow", 0.04))),
    Step(HOSTILE, 0.001, ((" ", 0.9),)),
    Step("\n", 1.0, ()),
]
MEASURED = pd.DataFrame(
    {
        "long question": [0.0, 1.5, 0.25, 300, 8],
        "short & last": [1.75, 0.5, 0.25, 9, 5],
    },
    index=["queue", "prefill", "decode", "tokens read", "tokens written"],
).T
EVENTS = {"MLflow": 0.2, "model": 0.6, "first answer": 0.8}
MEMORY = {
    "pipeline": Memory([0.1, 0.3, 0.6, 0.8, 2.0], [10.0, 200.0, 400.0, 900.0, 5000.0], EVENTS),
    "Phi3Chat": Memory([0.1, 0.3, 0.6, 0.8, 2.0], [10.0, 150.0, 300.0, 350.0, 5000.0], EVENTS),
}
PICTURES = {"time line": time_line(MEASURED), "memory": memory_curves(MEMORY)}


class Reader(HTMLParser):
    """The text of a page, its tags, and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", [], []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\u202f", "")  # between a token and its number

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, *one) for one in attrs]


def luminance(rgb: str) -> float:
    return float(np.dot([0.299, 0.587, 0.114], [int(part) for part in rgb.split(",")]))


MARKED = [token_probabilities(STEPS), first_difference({HOSTILE: STEPS, "b": STEPS[:1] + STEPS[2:]})]


@pytest.mark.parametrize("marked", MARKED)
def test_a_token_is_text_and_never_markup(marked):
    reader = Reader(marked.html)
    assert "script" not in reader.tags
    assert HOSTILE in reader.text


@pytest.mark.parametrize("marked", MARKED)
def test_a_tooltip_shows_the_runners_up(marked):
    titles = [value for _, name, value in Reader(marked.html).attributes if name == "title"]
    assert any(HOSTILE in title for title in titles)


def test_each_token_carries_its_probability_as_a_number():
    line = Reader(token_probabilities(STEPS).html).text.partition("The same as a table")[0]
    assert line.split("\u2009") == ["The90", " cat30", f"{HOSTILE}<1", "↵100"]


def test_the_plain_text_has_the_probabilities_too():
    assert "cat (30 %)" in token_probabilities(STEPS).plain


def test_the_runners_up_stand_in_a_table_too():
    rows = re.findall("<tr><td>(.*?)</td></tr>", token_probabilities(STEPS).html)
    assert rows[0].split("</td><td>") == ["The", "90 %", "A 6 %, It 3 %, One &lt;1 %"]


def test_the_table_shows_white_space_and_three_runners_up():
    cells = re.findall("<tr><td>(.*?)</td></tr>", token_probabilities(STEPS).html)[1].split("</td><td>")
    assert cells[0] == "␣cat"
    assert "cow" not in cells[2]


def test_less_likely_tokens_are_darker_in_grey():
    html = token_probabilities([Step("a", p, ()) for p in (1.0, 0.7, 0.4, 0.0)]).html
    grounds = [luminance(rgb) for rgb in re.findall(r"background:rgb\(([\d,]+)\);color:#111", html)]
    assert grounds == sorted(grounds, reverse=True)
    assert grounds[0] - grounds[-1] > 50
    assert grounds[-1] > 150  # 4.5 to 1 against black begins at about 120


@pytest.fixture
def difference():
    one = [STEPS[0], Step(" cat", 0.3, ((" dog", 0.28), (" cow", 0.05)))]
    other = [STEPS[0], Step(" dog", 0.31, ((" hen", 0.2), (" ox", 0.1)))]
    return first_difference({"left": one, "right": other})


def test_the_first_difference_is_marked_in_both_answers(difference):
    reader = Reader(difference.html)
    assert reader.tags.count("b") == 2
    assert "[cat30]" in reader.text


def test_the_first_difference_is_explained_with_numbers(difference):
    sentence = (
        "They part at token 2. There left holds “cat” for 30 % likely and “dog” for 28 %; "
        "right holds “dog” for 31 % and “cat” for less than 10 %."
    )
    assert sentence in difference.plain
    assert sentence in Reader(difference.html).text


@pytest.mark.parametrize("other", [STEPS, STEPS[:2]])
def test_answers_without_a_difference_are_said_to_agree(other):
    marked = first_difference({"left": STEPS, "right": other})
    assert f"They say the same for {len(other)} tokens" in marked.plain
    assert "<b>" not in marked.html


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_a_picture_carries_its_words_to_the_page(picture, tmp_path):
    data, metadata = picture._repr_mimebundle_()
    output = new_output("execute_result", data=data, metadata=metadata, execution_count=1)
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=[output])]), tmp_path / "executed.ipynb")
    attributes = Reader(page(tmp_path / "executed.ipynb")).attributes
    assert [value for tag, name, value in attributes if (tag, name) == ("img", "alt")] == [picture.alt]


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_small_and_lies_on_the_pages_ground(picture):
    from PIL import Image

    with Image.open(io.BytesIO(picture.png())) as image:
        assert image.convert("RGBA").getpixel((0, 0))[3] == 0
        assert 800 <= image.width <= 1100
    assert len(picture.png()) < 60_000


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"], ids=["light", "dark"])
@pytest.mark.parametrize(("colour", "least"), [(INK, 4), (DARK, 3)])
def test_text_and_lines_are_seen_on_either_ground(colour, least, ground):
    lighter, darker = sorted(map(relative_luminance, (colour, ground)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= least


def relative_luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def words(picture: Picture) -> str:
    (panel,) = picture.figure.axes
    return " | ".join(text.get_text() for text in panel.texts)


def test_the_time_line_ends_where_its_parts_add_up():
    bars = PICTURES["time line"].figure.axes[0].patches
    assert [bars[2].get_x() + bars[2].get_width(), bars[5].get_x() + bars[5].get_width()] == [1.75, 2.5]


def test_the_parts_of_the_time_line_differ_by_hatching():
    assert len({bar.get_hatch() for bar in PICTURES["time line"].figure.axes[0].patches}) == 3


@pytest.mark.parametrize("part", ["queue", "prefill", "decode"])
def test_the_time_line_names_its_parts(part):
    assert part in words(PICTURES["time line"])


@pytest.mark.parametrize("text", [words(PICTURES["time line"]), PICTURES["time line"].alt], ids=["drawing", "alt"])
def test_the_time_line_gives_its_numbers_in_words(text):
    assert "short & last: waits 1.75 s, reads 9 tokens in 0.50 s, writes 5 in 0.25 s" in text


MEMORY_PANELS = PICTURES["memory"].figure.axes


def test_the_memory_is_drawn_up_to_the_first_answer():
    assert [max(panel.lines[0].get_ydata()) for panel in MEMORY_PANELS] == [900.0, 350.0]


def test_the_panels_of_memory_share_their_scales():
    assert len({(panel.get_xlim(), panel.get_ylim()) for panel in MEMORY_PANELS}) == 1


def test_the_panels_of_memory_name_their_peaks():
    assert [panel.get_title() for panel in MEMORY_PANELS] == ["pipeline: at most 900 MB", "Phi3Chat: at most 350 MB"]


@pytest.mark.parametrize("panel", MEMORY_PANELS)
def test_the_names_of_events_do_not_collide(panel):
    panel.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in panel.texts]
    assert [text.get_text().strip() for text in panel.texts] == [f"{event}, {at} s" for event, at in EVENTS.items()]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_the_memory_is_described_with_its_numbers():
    expected = "Phi3Chat: at most 350 MB; MLflow after 0.2 s, model after 0.6 s, first answer after 0.8 s"
    assert expected in PICTURES["memory"].alt


@pytest.mark.parametrize("in_jupyter", [False, True])
def test_a_signature_is_a_tree_of_its_fields(in_jupyter, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: in_jupyter)
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Object, Property, Schema
    from mlflow.types.schema import ParamSchema as Params
    from mlflow.types.schema import ParamSpec as Param

    call = Object([Property("name", DataType.string), Property("note[/]", DataType.string, required=False)])
    inputs = [ColSpec(Array(call), "calls"), ColSpec(Map(AnyType()), "extras", required=False)]
    params = [Param("stop", DataType.string, [], (-1,)), Param("seed", DataType.long, None)]
    signature = ModelSignature(Schema(inputs), Schema([ColSpec("string")]), Params(params))
    assert signature_tree(signature).splitlines() == [
        "signature",
        "├── inputs",
        "│   ├── calls: list of object",
        "│   │   ├── name: string",
        "│   │   └── note[/]: string, optional",
        "│   └── extras: map from string to Any, optional",
        "├── outputs",
        "│   └── (unnamed): string",
        "└── params",
        "    ├── stop: list of string, [] unless given",
        "    └── seed: long, None unless given",
    ]
    assert signature_tree(signature, "outputs").splitlines()[1:] == ["└── outputs", "    └── (unnamed): string"]


def onnx_model(folder, bits, with_zeros):
    """Two rows of 64 weights in blocks of 32, packed as onnxruntime's MatMulNBits has them."""
    levels = np.random.default_rng(0).integers(0, 16, (2, 2, 32), dtype=np.uint8)
    tensors = {
        "model.layers.3.attn.o_proj.MatMul.qweight": levels[..., ::2] | levels[..., 1::2] << 4,
        "scales": np.array([0.5, 1.0, 2.0, 4.0], np.float32),
        "zeros": np.array([3 | 7 << 4, 15], np.uint8),
    }
    names = list(tensors)[: 3 if with_zeros else 2]
    shape = {"K": 64, "N": 2, "bits": bits, "block_size": 32}
    node = onnx.helper.make_node("MatMulNBits", ["x", *names], ["y"], domain="com.microsoft", **shape)
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], initializers)), folder / "model.onnx")
    return levels


@pytest.mark.parametrize(("with_zeros", "zeros"), [(True, [3, 7, 15, 0]), (False, [8, 8, 8, 8])])
def test_four_bit_matrices_are_unpacked(tmp_path, with_zeros, zeros):
    levels = onnx_model(tmp_path, 4, with_zeros)
    ((name, unpacked, scales, unpacked_zeros),) = four_bit_matrices(tmp_path)
    assert name == "model.layers.3.self_attn.o_proj.weight"
    np.testing.assert_array_equal(unpacked, levels)
    assert scales.ravel().tolist() == [0.5, 1.0, 2.0, 4.0]
    assert unpacked_zeros.ravel().tolist() == zeros


@pytest.mark.parametrize("bits", [4, 8])
def test_without_a_common_matrix_a_sentence_says_so(tmp_path, bits):
    onnx_model(tmp_path, bits, True)
    assert "No matrix" in rounding(tmp_path, tmp_path).plain
