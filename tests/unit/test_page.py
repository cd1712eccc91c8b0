"""The page of a notebook, as text; `tests/browser/test_page.py` opens it."""

import re

import nbformat
import pytest

from phi3kit.workbook import page
from phi3kit.workbook.places import notebooks

FLOW = "flowchart LR\n    a --> b\n"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def written(tmp_path, *cells):
    notebook = tmp_path / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), notebook)
    return page.page(notebook)


def shown(**metadata):
    picture = nbformat.v4.new_output("display_data", {"image/png": PNG}, metadata=metadata)
    return nbformat.v4.new_code_cell("plot()", outputs=[picture])


def test_it_loads_nothing_from_elsewhere(tmp_path):
    made = written(tmp_path, nbformat.v4.new_markdown_cell(f"```mermaid\n{FLOW}```"), shown())
    assert re.findall(r"""(?:src=|import\(|@import |url\()["']?(?:https?:)?//[^"')]+""", made) == []


def test_a_picture_keeps_its_alternative_text_which_is_no_markup(tmp_path):
    made = written(tmp_path, shown(**{"image/png": {"alt": 'two bars, <b> "longer"'}}), shown())
    assert re.search(r"<img [^>]*alt='two bars, &lt;b&gt; \"longer\"'", made)
    assert made.count("No description has been provided for this image") == 1


def test_a_diagram_is_its_drawing_or_else_its_source(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "DIAGRAMS", tmp_path)
    cell = nbformat.v4.new_markdown_cell(f"Before.\n\n```mermaid\n{FLOW}```\n\n*After.*")
    assert "a --&gt; b" in written(tmp_path, cell)
    page.drawing(FLOW).write_bytes(bytes(16) + (640).to_bytes(4))
    made = written(tmp_path, cell)
    assert "a --&gt; b" not in made
    assert re.search(r'<img alt="[^"]+" [^>]*width="320"', made)


def test_pandas_empty_corners_head_no_column(tmp_path):
    table = "<table><tr><th></th><th>a</th></tr></table>"
    output = nbformat.v4.new_output("display_data", {"text/html": table})
    assert "<th></th>" not in written(tmp_path, nbformat.v4.new_code_cell("t", outputs=[output]))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_every_diagram_of_the_workbook_is_drawn(path):
    cells = nbformat.read(path, as_version=4).cells
    sources = [source for cell in cells for source in page.MERMAID.findall(cell.source)]
    assert sources
    missing = [source for source in sources if not page.drawing(source).exists()]
    assert missing == [], "type `python tests/browser/draw.py`, which draws them in JupyterLab"


def test_no_drawing_is_left_of_a_diagram_that_is_gone():
    cells = [cell for path in notebooks() for cell in nbformat.read(path, as_version=4).cells]
    drawn = {page.drawing(source) for cell in cells for source in page.MERMAID.findall(cell.source)}
    assert {*page.DIAGRAMS.glob("*")} == drawn
