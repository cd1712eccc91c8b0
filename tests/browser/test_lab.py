"""Both notebooks in JupyterLab: Run All, then everything that is on the screen, in the light theme and in the dark."""

import functools
import itertools
import re
import shutil

import lab
import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe

from phi3kit.workbook.page import MERMAID
from phi3kit.workbook.places import NOTEBOOKS, RUNS, notebooks

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
def ran(browser, server):
    """Opens a notebook and runs all of it; asked again, it gives the same one."""

    @functools.cache
    def ran(name):
        notebook = lab.Notebook(browser, server, name)
        notebook.run_all()
        notebook.save()
        return notebook

    return ran


@pytest.fixture(scope="module")
def saved(ran, server):
    """Reads a notebook's file after that."""
    return lambda name: nbformat.read(server["folder"] / f"{ran(name).name}.ipynb", as_version=4)


@pytest.fixture(scope="module", params=itertools.product(NAMES, THEMES), ids="-".join)
def seen(request, ran):
    """A notebook that ran, opened anew in a theme."""
    name, theme = request.param
    notebook = ran(name)
    notebook.reopen_in(theme)
    return notebook


@pytest.mark.parametrize("name", NAMES)
def test_run_all_runs_every_cell_and_none_fails(name, saved):
    notebook = saved(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"] == []
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert "widgets" not in notebook.metadata


def test_every_screen_is_kept_as_a_picture(seen):
    for old in SHOTS.glob(f"{seen.name}-{seen.theme.lower()}-*.png"):
        old.unlink()
    for number, picture in enumerate(seen.screens(), 1):
        (SHOTS / f"{seen.name}-{seen.theme.lower()}-{number:02}.png").write_bytes(picture)
    assert number


def test_jupyterlab_has_no_question_and_no_news(seen):
    assert seen.page.locator(".jp-Dialog, .Toastify__toast").count() == 0


def test_diagrams_and_pictures_are_drawn(seen, saved):
    cells = saved(seen.name).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert seen.page.locator(".jp-RenderedMermaid img").count() == len(MERMAID.findall(text))
    pictures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))
    assert seen.page.locator(".jp-RenderedImage img").count() == pictures
    broken = "images => images.filter(image => !image.naturalWidth).map(image => image.outerHTML.slice(0, 200))"
    assert seen.page.locator(".jp-Notebook img").evaluate_all(broken) == []


def test_everything_that_we_wrote_has_contrast(seen):
    found = Axe().run(seen.page, OURS, {"runOnly": ["color-contrast"]}).response["violations"]
    assert [node["failureSummary"] + node["html"] for one in found for node in one["nodes"]] == []


FORMS = {"chat": r"\btalk\(", "sampling": r"\bexplore_sampling\(", "template": r"\binspect_template\("}


@pytest.fixture(params=FORMS)
def form(request, seen, saved):
    """A form on the screen: a notebook that calls for it has drawn it, once."""
    cells = saved(seen.name).cells
    calls = [cell for cell in cells if cell.cell_type == "code" and re.search(FORMS[request.param], cell.source)]
    boxes = seen.page.locator(f".phi3kit-{request.param}")
    assert boxes.count() == len(calls)
    if not calls:
        pytest.skip("this notebook has none")
    return request.param, boxes.first, seen.theme


# What a form shows; its controls change under the hand by themselves.
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
