"""Draw the diagrams that the pages of the notebooks still lack, as JupyterLab does: `python tests/browser/draw.py`."""

import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import chromium
import lab
import nbformat
from PIL import Image

from phi3kit.workbook.running.page import DIAGRAMS, MERMAID, drawing
from phi3kit.workbook.running.paths import notebooks


def main() -> None:
    """Draw what is missing, and remove what no notebook shows any more."""
    cells = [cell for path in notebooks() for cell in nbformat.read(path, as_version=4).cells]
    sources = {drawing(source): source for cell in cells for source in MERMAID.findall(cell.source)}
    for file in {*DIAGRAMS.glob("*.png")} - {*sources}:
        file.unlink()
    missing = {file: source for file, source in sources.items() if not file.exists()}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        cells = [nbformat.v4.new_markdown_cell(f"```mermaid\n{source}```") for source in missing.values()]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), home / "diagrams.ipynb")
        with lab.started(home, home) as server, chromium.started(home) as browser:
            notebook = lab.Notebook(browser, server, "diagrams", device_scale_factor=2)
            for file, image in zip(missing, notebook.page.locator(".jp-RenderedMermaid img").all(), strict=True):
                picture = Image.open(io.BytesIO(image.screenshot())).convert("RGB")
                DIAGRAMS.mkdir(exist_ok=True)
                picture.quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
                print(file.name, picture.size, file.stat().st_size)


if __name__ == "__main__":
    main()
