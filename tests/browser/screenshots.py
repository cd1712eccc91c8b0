"""Take the pictures of README and docs again, from what `make run` left: `python tests/browser/screenshots.py`."""

import socket
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import chromium
import lab
import mlflow

from phi3kit import tracking
from phi3kit.system import process
from phi3kit.workbook.running.paths import NOTEBOOKS, ROOT

FOLDER = ROOT / "docs" / "pictures"
SIZE = {"width": 1200, "height": 760}
# A notebook, and the heading at the top of its picture.
NOTEBOOK_PICTURES = {
    "TransformerPipeline": "Ask through a pipeline",
    "CustomPythonWrapper": "The same question, token by token",
}
# Pages of MLflow, each with a text that is there once the page is drawn.
PAGES = {
    "mlflow-runs": ("/#/experiments/{experiment}/runs", "chat wrapper"),
    "mlflow-registry": ("/#/models/phi3-chat-onnx", "candidate"),
}
# MLflow's assistant would cover a quarter of the page.
NO_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


def main() -> None:
    """Take all four pictures."""
    address = tracking.use("phi3kit")
    experiment = mlflow.get_experiment_by_name("phi3kit").experiment_id
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium.started(Path(folder)) as browser:
        with lab.started(NOTEBOOKS, Path(folder)) as server:
            for name, heading in NOTEBOOK_PICTURES.items():
                page = lab.Notebook(browser, server, name).page
                page.set_viewport_size(SIZE)
                for _ in range(3):  # what is drawn on the way moves what lies below it
                    page.get_by_role("heading", name=heading).first.evaluate("node => node.scrollIntoView()")
                    page.wait_for_function(lab.DRAWN)
                    page.wait_for_timeout(500)
                page.screenshot(path=FOLDER / f"{name}.png")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        options = ["--backend-store-uri", address, "--port", str(port), "--workers", "1"]
        with process.start([*process.PYTHON, "-m", "mlflow", "server", *options]):
            page = browser.new_page(viewport=SIZE)
            page.add_init_script(NO_ASSISTANT)
            for name, (path, text) in PAGES.items():
                address = f"http://127.0.0.1:{port}{path.format(experiment=experiment)}"
                _open(page, address, text)
                page.screenshot(path=FOLDER / f"{name}.png")


def _open(page, address: str, text: str) -> None:
    """Open a page as soon as the server answers, and wait until it shows a text."""
    page.set_default_timeout(lab.MINUTE)
    while True:
        try:
            page.goto(address)
            break
        except Exception as error:  # the server is not there yet
            if "ERR_CONNECTION_REFUSED" not in str(error):
                raise
            page.wait_for_timeout(500)
    page.get_by_text(text).first.wait_for()


if __name__ == "__main__":
    main()
