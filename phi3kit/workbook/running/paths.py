"""The folders of the notebooks and of their runs: at the repository's root, beside the store of `tracking`."""

from pathlib import Path

from phi3kit.tracking import ROOT

NOTEBOOKS = ROOT / "notebooks"
RUNS = ROOT / "runs"

# In the order of the story; any other notebook comes after these, by name.
STORY = ("TransformerPipeline", "CustomPythonWrapper")


def notebooks() -> list[Path]:
    """Return the workbook's notebooks, in the order in which they are meant to be read."""
    return sorted(
        NOTEBOOKS.glob("*.ipynb"),
        key=lambda path: (STORY.index(path.stem) if path.stem in STORY else len(STORY), path.name),
    )


def relative(path: Path) -> str:
    """Return a path as a person types it: relative to the working directory, if it lies below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
