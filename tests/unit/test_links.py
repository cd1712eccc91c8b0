"""Links in prose: inside the project they lead somewhere; those that lead outside are all listed here."""

import re
from pathlib import Path

import nbformat
import pytest

from phi3kit.workbook.places import ROOT, notebooks

PAPERS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "phi3kit/weights/tiny/MODEL_CARD")]
EVERYTHING = [*PAPERS, *notebooks()]
INSIDE = re.compile(r"\]\((?!https?:)\s*([^)\s]+)[^)]*\)")
# Nothing here asks whether they answer: that takes a network, and a page that moves is no fault of the code.
OUTSIDE = {"https://keepachangelog.com/en/1.1.0/", "https://semver.org/spec/v2.0.0.html"}


def prose(path: Path) -> str:
    """The Markdown of a paper or of a notebook, without its blocks of code."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The headings' addresses, as GitHub writes them and as Jupyter does."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    plain = [re.sub(r"[`*_]", "", title).strip() for title in titles]
    github = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in plain}
    return github if path.suffix == ".md" else {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: path.name)
def test_what_a_link_inside_the_project_names_is_there(path):
    for link in INSIDE.findall(prose(path)):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_links_that_lead_outside_are_listed():
    plain = [re.sub(r"`[^`\n]+`", "", prose(path)) for path in EVERYTHING]
    assert {link for text in plain for link in re.findall(r"https?://[^\s)>]+", text)} == OUTSIDE
