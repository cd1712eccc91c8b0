"""Where the notebooks lie, and what their runs leave: at the repository's root, as the store of `tracking` does."""

from pathlib import Path

from phi3kit.tracking import ROOT

NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "runs"

# In the order of the story; any other notebook comes after these, by name.
STORY = ("TransformerPipeline", "CustomPythonWrapper")


def notebooks() -> list[Path]:
    """The workbook's notebooks, in the order in which they are meant to be read."""
    found = sorted(NOTEBOOKS.glob("*.ipynb"))
    return sorted(found, key=lambda path: STORY.index(path.stem) if path.stem in STORY else len(STORY))


def shown(path: Path) -> str:
    """A path as a person at the shell would write it: relative to where they are, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
