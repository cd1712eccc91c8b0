"""JupyterLab as `make lab` starts it, and a notebook in it, used as by a person."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from phi3kit.workbook.running.paths import ROOT

MINUTE = 60_000  # in Playwright's milliseconds
FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
FOLDERS += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
OPTIONS = ("--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True")

DRAWN = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.context?.sessionContext.session?.kernel?.status === 'idle'
        && panel.content.widgets.every(cell => !cell.isPlaceholder())
        && !document.querySelector('.jp-MarkdownCell .jp-mod-rendered .jp-RenderedMarkdown:empty')
        && [...panel.node.querySelectorAll('img')].every(image => image.complete);
}"""
# A cell that fails takes those after it along: they are idle then, too, without a number.
RAN = """() => {
    const cells = [...jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type === 'code');
    return cells[0].executionCount && cells.every(cell => cell.executionState === 'idle');
}"""
SCROLLED = """([panel, y]) => new Promise(done => {
    panel.scrollTo(0, y);
    requestAnimationFrame(() => requestAnimationFrame(() => done(panel.scrollTop + panel.clientHeight)));
})"""


@contextmanager
def started(notebooks: Path, home: Path) -> Iterator[dict[str, Any]]:
    """A server's url and token. Jupyter's own files and the tracking store lie in `home`."""
    env = {**os.environ, "JUPYTER_CONFIG_PATH": str(ROOT / ".jupyter")}
    env |= {folder: str(home / folder.lower()) for folder in FOLDERS}
    env["MLFLOW_TRACKING_URI"] = f"sqlite:///{(home / 'mlflow.db').as_posix()}"
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, f"--notebook-dir={notebooks}"]
    with (home / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _answering(server, home)
    finally:
        server.terminate()  # ends its kernels too
        server.wait(60)


def _answering(server: subprocess.Popen, home: Path) -> dict[str, Any]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            info = json.loads(next((home / "jupyter_runtime_dir").glob("jpserver-*.json")).read_text())
            direct.open(f"{info['url']}api/status?token={info['token']}", timeout=10).close()
            return info
        except (StopIteration, ValueError, OSError):
            time.sleep(0.1)
    raise AssertionError((home / "lab.log").read_text())


class Notebook:
    """One notebook on a page of its own."""

    def __init__(self, browser: Any, server: dict[str, Any], name: str, **screen: Any) -> None:
        self.name = name
        self.page = browser.new_page(viewport={"width": 1400, "height": 1400}, **screen)
        self.page.set_default_timeout(MINUTE)
        # A workspace of its own: in a shared one, the other notebooks' tabs come along.
        self.page.goto(f"{server['url']}lab/workspaces/{name}/tree/{name}.ipynb?token={server['token']}")
        self.page.wait_for_function(DRAWN)

    def menu(self, first: str, *rest: str) -> None:
        """Take an entry of a menu, or of a menu within it."""
        self.page.get_by_role("menuitem", name=first, exact=True).click()
        for label in rest:
            self.page.locator(".lm-Menu-item:visible").get_by_text(label, exact=True).click()

    def run_all(self) -> None:
        self.menu("Run", "Run All Cells")
        self.page.wait_for_function(RAN, timeout=10 * MINUTE)
        self.page.wait_for_function(DRAWN)

    def save(self) -> None:
        self.menu("File", "Save Notebook")
        self.page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty")

    def reopen_in(self, theme: str) -> None:
        """In another theme. A diagram keeps the colours of the one that it was drawn in, hence anew."""
        light = str(theme == "Light").lower()
        self.page.reload()  # another page may have changed the theme since this one was loaded
        self.page.wait_for_function(DRAWN)
        if self.page.evaluate("document.body.dataset.jpThemeLight") != light:
            # Reloaded before that is stored, it would come back as it was.
            with self.page.expect_response(
                lambda response: response.request.method == "PUT" and "themes" in response.url
            ):
                self.menu("Settings", "Theme", f"JupyterLab {theme}")
            self.page.reload()
            self.page.wait_for_function(DRAWN)
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")
        self.theme = theme

    def screens(self) -> Iterator[bytes]:
        """A picture of each screen, from the top to the end."""
        panel, top, end = self.page.query_selector(".jp-WindowedPanel-outer"), 0, 0
        while (bottom := self.page.evaluate(SCROLLED, [panel, top])) > end:
            yield self.page.screenshot()
            top, end = bottom - 80, bottom
