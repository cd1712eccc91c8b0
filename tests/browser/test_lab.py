"""Both notebooks in JupyterLab: Run All, then everything on the screen, in the light theme and in the dark."""

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lab
import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe

from phi3kit.workbook.running.page import MERMAID
from phi3kit.workbook.running.paths import NOTEBOOKS, ROOT, RUNS, notebooks

pytestmark = [pytest.mark.browser, pytest.mark.tiny]

OURS = [[".jp-MarkdownOutput"], [".jp-OutputArea-output"]]  # the rest is JupyterLab's
NAMES = [path.stem for path in notebooks()]
THEMES = ["Light", "Dark"]
SHOTS = RUNS / "browser"


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    SHOTS.mkdir(parents=True, exist_ok=True)
    with lab.started(home / "notebooks", home) as info:
        yield info | {"folder": home / "notebooks"}


@pytest.fixture(scope="module")
def executed_in_lab(browser, server):
    """Opens a notebook and runs all of it, once for each notebook."""

    @functools.cache
    def execute(name):
        notebook = lab.Notebook(browser, server, name)
        notebook.run_all()
        notebook.save()
        return notebook

    return execute


@pytest.fixture(scope="module")
def saved(executed_in_lab, server):
    """The file of a notebook after that."""
    return lambda name: server["folder"] / f"{executed_in_lab(name).name}.ipynb"


@pytest.fixture(scope="module", params=itertools.product(NAMES, THEMES), ids="-".join)
def opened(request, executed_in_lab):
    """A notebook that ran, opened again in a theme."""
    name, theme = request.param
    notebook = executed_in_lab(name)
    notebook.reopen_in(theme)
    return notebook


@pytest.mark.parametrize("name", NAMES)
def test_run_all_runs_every_cell_in_order(name, saved):
    cells = nbformat.read(saved(name), as_version=4).cells
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_run_all_shows_no_error_and_no_warning(name, saved):
    cells = nbformat.read(saved(name), as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_widget_state_is_saved(name, saved):
    assert "widgets" not in nbformat.read(saved(name), as_version=4).metadata


@pytest.mark.parametrize("name", NAMES)
def test_stable_outputs_are_the_committed_ones(name, saved):
    """nbval compares the tagged cells with the outputs of this run."""
    command = [sys.executable, "-m", "pytest", "-p", "nbval_replay", "--nbval-lax", "-p", "no:cacheprovider"]
    environment = os.environ | {"NBVAL_REPLAY": str(saved(name)), "PYTHONPATH": str(Path(lab.__file__).parent)}
    done = subprocess.run(
        [*command, f"notebooks/{name}.ipynb"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_every_screen_is_kept_as_a_picture(opened):
    for old in SHOTS.glob(f"{opened.name}-{opened.theme.lower()}-*.png"):
        old.unlink()
    for number, picture in enumerate(opened.screens(), 1):
        (SHOTS / f"{opened.name}-{opened.theme.lower()}-{number:02}.png").write_bytes(picture)
    assert number


def test_jupyterlab_has_no_question_and_no_news(opened):
    assert opened.page.locator(".jp-Dialog, .Toastify__toast").count() == 0


def test_diagrams_and_pictures_are_drawn(opened, saved):
    cells = nbformat.read(saved(opened.name), as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert opened.page.locator(".jp-RenderedMermaid img").count() == len(MERMAID.findall(text))
    pictures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))
    assert opened.page.locator(".jp-RenderedImage img").count() == pictures
    broken = "images => images.filter(image => !image.naturalWidth).map(image => image.outerHTML.slice(0, 200))"
    assert opened.page.locator(".jp-Notebook img").evaluate_all(broken) == []


def test_everything_we_wrote_has_contrast(opened):
    violations = Axe().run(opened.page, OURS, {"runOnly": ["color-contrast"]}).response["violations"]
    assert [node["failureSummary"] + node["html"] for one in violations for node in one["nodes"]] == []


FORMS = {"chat": r"\btalk\(", "sampling": r"\bexplore_sampling\(", "template": r"\binspect_template\("}


@pytest.fixture(params=FORMS)
def form(request, opened, saved):
    """A form on the screen: a notebook that calls for it has drawn it, once."""
    cells = nbformat.read(saved(opened.name), as_version=4).cells
    calls = [cell for cell in cells if cell.cell_type == "code" and re.search(FORMS[request.param], cell.source)]
    boxes = opened.page.locator(f".phi3kit-{request.param}")
    assert boxes.count() == len(calls)
    if not calls:
        pytest.skip("this notebook has none")
    return request.param, boxes.first, opened.theme


# What a form shows, without its controls, which change when they are used.
SHOWS = "[...box.querySelectorAll('.widget-html-content, img, svg')].map(part => part.outerHTML).join()"


def test_a_form_answers(form):
    name, box, theme = form  # in the second theme, the form is as the first left it
    box.scroll_into_view_if_needed()
    element = box.element_handle()
    before = element.evaluate(f"box => {SHOWS}")
    if name == "chat":
        box.get_by_role("textbox").last.fill(f"Is it {theme}?")
        box.get_by_role("button", name="Ask").click()
    elif name == "sampling":
        box.get_by_role("slider").first.press({"Light": "End", "Dark": "Home"}[theme])
    else:
        box.get_by_role("textbox").last.fill(f"What does {theme}<|end|> mean?")
    box.page.wait_for_function(f"([box, before]) => {SHOWS} !== before", arg=[element, before])
    if name == "chat":
        box.get_by_text("tokens/s").wait_for()
        box.get_by_role("button", name="Ask", disabled=False).wait_for()
        assert f"Is it {theme}?" in box.inner_text()
