"""The page of a notebook that ran under papermill: complete without a network, and accessible."""

import shutil

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe

from phi3kit.workbook.running.page import MERMAID
from phi3kit.workbook.running.page import page as html
from phi3kit.workbook.running.paths import NOTEBOOKS, RUNS, notebooks

pytestmark = pytest.mark.browser

NAMES = [path.stem for path in notebooks()]
NO_ALT = "No description has been provided for this image"  # nbconvert's words


@pytest.fixture(scope="module", params=NAMES)
def file(request, browser, executed):
    """The page of a run that an earlier test made; without one, of the committed outputs."""
    notebook = executed / f"{request.param}.ipynb"
    if not notebook.exists():
        shutil.copy(NOTEBOOKS / notebook.name, executed)
        notebook.with_suffix(".html").write_text(html(notebook), encoding="utf-8")
    return notebook.with_suffix(".html")


@pytest.fixture(scope="module", params=["light", "dark"])
def page(request, browser, file):
    """The page on a light or a dark screen; `requests` holds every address that it requested, its own included."""
    opened = browser.new_page(viewport={"width": 1100, "height": 1400}, color_scheme=request.param)
    opened.scheme, opened.requests = request.param, []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.goto(file.as_uri())
    yield opened
    opened.close()


def test_it_requests_nothing_but_itself(page, file):
    assert [url for url in page.requests if not url.startswith("data:")] == [file.as_uri()]


def test_no_error_and_no_warning_is_on_it(page):
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []


def test_it_is_light_or_dark_as_the_system_is(page):
    shade = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor.match(/\\d+/)[0]")
    assert int(shade) > 200 if page.scheme == "light" else int(shade) < 60


def test_on_paper_it_is_light(page):
    page.emulate_media(media="print")
    shade = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor.match(/\\d+/)[0]")
    page.emulate_media(media="screen")
    assert int(shade) > 200


def test_every_picture_is_drawn_and_has_alt_text(page, file):
    cells = nbformat.read(file.with_suffix(".ipynb"), as_version=4).cells
    pictures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))
    diagrams = sum(len(MERMAID.findall(cell.source)) for cell in cells if cell.cell_type == "markdown")
    images = page.locator("img")
    assert images.count() == pictures + diagrams, "a diagram is missing: type `python tests/browser/draw.py`"
    assert all(images.evaluate_all("images => images.map(image => image.naturalWidth)"))
    assert {"", NO_ALT, None}.isdisjoint(image.get_attribute("alt") for image in images.all())


def test_it_breaks_no_rule_of_axe(page):
    """Headings in order, contrast, landmarks, language, title, and nothing by colour alone."""
    violations = Axe().run(page).response["violations"]
    assert [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]]) for one in violations] == []


def test_it_is_kept_as_a_picture(page, file):
    (RUNS / "browser").mkdir(parents=True, exist_ok=True)
    picture = RUNS / "browser" / f"{file.stem}-page-{page.scheme}.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 100_000
