"""Links in prose: inside the project they lead somewhere; those that lead outside are all listed here."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from phi3kit.workbook.running.paths import ROOT, notebooks

NAMES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "phi3kit/weights/tiny/MODEL_CARD.md", "docs/*.md")
PAPERS = [path for name in NAMES for path in sorted(ROOT.glob(name))]
LINK = re.compile(r"\]\(\s*([^)\s]+)[^)]*\)")

# Listed on 2026-11-25; no test opens them.
OUTSIDE = {
    "https://download.pytorch.org/whl/cpu",
    "https://github.com/computationalmodelling/nbval",
    "https://github.com/microsoft/PhiCookBook/blob/main/md/02.Application/01.TextAndChat/Phi3/E2E_Phi-3-MLflow.md",
    "https://github.com/microsoft/onnxruntime-genai",
    "https://huggingface.co/docs/transformers/en/chat_templating",
    "https://huggingface.co/microsoft/Phi-3-mini-4k-instruct",
    "https://huggingface.co/microsoft/Phi-3-mini-4k-instruct-onnx",
    "https://huggingface.co/microsoft/Phi-3.5-mini-instruct",
    "https://huggingface.co/microsoft/Phi-3.5-mini-instruct-onnx",
    "https://huggingface.co/microsoft/Phi-4-mini-instruct",
    "https://huggingface.co/microsoft/Phi-4-mini-instruct-onnx",
    "https://keepachangelog.com/en/1.1.0/",
    "https://mlflow.org/",
    "https://mlflow.org/docs/latest/api_reference/python_api/mlflow.pyfunc.html",
    "https://mlflow.org/docs/latest/ml/deep-learning/transformers/",
    "https://mlflow.org/docs/latest/ml/model-registry/",
    "https://mlflow.org/docs/latest/ml/model/",
    "https://mlflow.org/docs/latest/ml/projects/",
    "https://mlflow.org/docs/latest/ml/tracking/",
    "https://semver.org/spec/v2.0.0.html",
}


@cache
def prose(path: Path) -> str:
    """The Markdown of a paper or of a notebook, without its code."""
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


def inside() -> list[tuple[Path, str]]:
    """Each paper and notebook with each of its links that lead into the repository."""
    links = [(path, link) for path in (*PAPERS, *notebooks()) for link in LINK.findall(prose(path))]
    return [(path, link) for path, link in links if not link.startswith(("https:", "http:"))]


def outside() -> set[str]:
    """Every address of the web in prose, linked or bare."""
    plain = [re.sub(r"`[^`\n]+`", "", prose(path)) for path in (*PAPERS, *notebooks())]
    return {address for text in plain for address in re.findall(r"https?://[^\s)>\]]+", text)}


@pytest.mark.parametrize("path, link", inside(), ids=lambda value: getattr(value, "name", value))
def test_a_link_inside_the_repository_leads_to_a_file(path, link):
    target = (path.parent / link.partition("#")[0]).resolve()
    assert target.is_relative_to(ROOT) and target.exists()


ANCHORED = [(path, link) for path, link in inside() if "#" in link]


@pytest.mark.parametrize("path, link", ANCHORED, ids=lambda value: getattr(value, "name", value))
def test_a_link_with_an_anchor_leads_to_a_heading(path, link):
    name, _, anchor = link.partition("#")
    assert anchor in anchors((path.parent / name).resolve() if name else path)


def test_every_link_that_leads_outside_is_listed():
    assert outside() - OUTSIDE == set()


def test_every_listed_link_is_used():
    assert OUTSIDE - outside() == set()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_readme_links_every_page_of_docs(page):
    assert f"docs/{page.name}" in {link.partition("#")[0] for link in LINK.findall(prose(ROOT / "README.md"))}
