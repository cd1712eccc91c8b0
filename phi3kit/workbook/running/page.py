"""An executed notebook as one HTML page that loads nothing from the network, light or dark as the reader's system."""

import base64
import hashlib
import re
from pathlib import Path

from phi3kit.workbook.running import results

# Mermaid itself is 3 MB of script. Here each diagram is a picture from JupyterLab, named by the hash of its source so
# that none can be stale; `python tests/browser/draw.py` draws the missing ones.
DIAGRAMS = Path(__file__).with_name("diagrams")
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# nbconvert's page is either light or dark, loads scripts for formulas, diagrams and plots, and drops the alternative
# text of pictures. Its links differ from text by colour alone, and its prompts and some of its code are too pale.
_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = output | get_metadata('alt', 'image/png') -%}
{{ super() | replace('<img ', '<img alt="%s" ' % (alt | escape_html)) if alt else super() }}
{%- endblock -%}
{%- block notebook_css -%}
{{ super() }}
<style media="screen and (prefers-color-scheme: dark)">{% include 'static/theme-dark.css' %}</style>
<style>
:root {
  color-scheme: light dark;
  --jp-cell-prompt-not-active-opacity: 1;
  --jp-cell-inprompt-font-color: var(--jp-ui-font-color1);
  --jp-cell-outprompt-font-color: var(--jp-ui-font-color1);
  --jp-mirror-editor-comment-color: #356c6c;
  --jp-mirror-editor-number-color: #007000;
  --jp-mirror-editor-operator-color: #8a00d4;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --jp-mirror-editor-comment-color: #85b8b8;
    --jp-mirror-editor-number-color: #6cc56c;
    --jp-mirror-editor-operator-color: #cf8cff;
  }
}
.jp-RenderedHTMLCommon a:any-link { text-decoration: underline; }
</style>
{%- endblock -%}
"""


def page(executed: Path) -> str:
    """Convert an executed notebook to HTML.

    Args:
        executed: the notebook's file.

    Returns:
        The page, without recorded results, which no browser can display. A Mermaid diagram without a drawing appears
        as its source.
    """
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = MERMAID.sub(_image, cell.source)
        elif cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if set(output.get("data", "-")) != {results.MEDIA_TYPE}]
            for data in (output.data for output in cell.outputs if "text/html" in output.get("data", ())):
                data["text/html"] = data["text/html"].replace("<th></th>", "<td></td>")  # pandas' corner is no heading
    return HTMLExporter(raw_template=_TEMPLATE).from_notebook_node(notebook, {"metadata": {"name": executed.stem}})[0]


def drawing(source: str) -> Path:
    """Return the path of a diagram's drawing, which need not exist.

    Args:
        source: the diagram's Mermaid code.
    """
    return DIAGRAMS / f"{hashlib.sha256(source.strip().encode()).hexdigest()[:12]}.png"


def _image(block: re.Match[str]) -> str:
    file = drawing(block[1])
    if not file.exists():
        return block[0]
    png = file.read_bytes()
    width = int.from_bytes(png[16:20]) // 2  # the drawing has twice the size, for high-resolution screens
    alt = "A diagram; the caption below says what it shows."
    return f'<img alt="{alt}" width="{width}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
