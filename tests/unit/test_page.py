"""The page of a notebook, as text; `tests/browser/test_page.py` opens it."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from phi3kit.workbook.running import page
from phi3kit.workbook.running.paths import notebooks

FLOW = "flowchart LR\n    a --> b\n"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DIAGRAM = new_markdown_cell(f"Before.\n\n```mermaid\n{FLOW}```\n\n*After.*")


def html(tmp_path, *cells):
    notebook = tmp_path / "n.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), notebook)
    return page.page(notebook)


def picture(**metadata):
    output = new_output("display_data", {"image/png": PNG}, metadata=metadata)
    return new_code_cell("plot()", outputs=[output])


def test_it_loads_nothing_from_elsewhere(tmp_path):
    text = html(tmp_path, DIAGRAM, picture())
    assert re.findall(r"""(?:src=|import\(|@import |url\()["']?(?:https?:)?//[^"')]+""", text) == []


def test_a_picture_keeps_its_alt_text_which_is_no_markup(tmp_path):
    text = html(tmp_path, picture(**{"image/png": {"alt": 'two bars, <b> "longer"'}}))
    assert re.search(r"<img [^>]*alt='two bars, &lt;b&gt; \"longer\"'", text)


def test_a_picture_without_alt_text_is_reported_as_such(tmp_path):
    assert html(tmp_path, picture()).count("No description has been provided for this image") == 1


def test_a_diagram_without_a_drawing_is_its_source(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "DIAGRAMS", tmp_path)
    assert "a --&gt; b" in html(tmp_path, DIAGRAM)


def test_a_diagram_with_a_drawing_is_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "DIAGRAMS", tmp_path)
    page.drawing(FLOW).write_bytes(bytes(16) + (640).to_bytes(4))
    text = html(tmp_path, DIAGRAM)
    assert "a --&gt; b" not in text
    assert re.search(r'<img alt="[^"]+" [^>]*width="320"', text)


def test_pandas_empty_corners_head_no_column(tmp_path):
    table = "<table><tr><th></th><th>a</th></tr></table>"
    output = new_output("display_data", {"text/html": table})
    assert "<th></th>" not in html(tmp_path, new_code_cell("t", outputs=[output]))


@pytest.fixture(scope="module")
def diagrams():
    """The Mermaid source of every diagram, by its notebook."""
    return {
        path.stem: [
            source for cell in nbformat.read(path, as_version=4).cells for source in page.MERMAID.findall(cell.source)
        ]
        for path in notebooks()
    }


@pytest.mark.parametrize("name", [path.stem for path in notebooks()])
def test_every_diagram_of_the_workbook_is_drawn(name, diagrams):
    assert diagrams[name]
    missing = [source for source in diagrams[name] if not page.drawing(source).exists()]
    assert missing == [], "type `python tests/browser/draw.py`, which draws them in JupyterLab"


def test_every_drawing_belongs_to_a_diagram(diagrams):
    drawings = {page.drawing(source) for sources in diagrams.values() for source in sources}
    assert {*page.DIAGRAMS.glob("*")} == drawings
