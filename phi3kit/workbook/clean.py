"""Remove what runs left: `python -m phi3kit.workbook.clean`, with nothing installed but Python.

Models that were fetched or built stay in their cache, and so does `.venv`.
"""

import shutil
from pathlib import Path

from phi3kit.workbook.places import ROOT

LEFT_BY_RUNS = ("runs", "mlartifacts", "mlruns", "mlflow.db*", "notebooks/mlruns", "notebooks/mlflow.db*")
# A lesson's own files, when it was cut off before its last cell.
LEFT_BY_RUNS += ("notebooks/first_phi3_model.py", "notebooks/my_wrapper.py")


def clean(root: Path = ROOT) -> tuple[list[str], int]:
    """Remove executed notebooks, and the store with its artifacts, below `root`.

    Args:
        root: the repository's root.

    Returns:
        the names of what was removed, and how many bytes that freed.
    """
    removed, freed = [], 0
    for path in sorted(path for pattern in LEFT_BY_RUNS for path in root.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            freed += sum(file.lstat().st_size for file in path.rglob("*") if file.is_symlink() or file.is_file())
            shutil.rmtree(path)
        else:
            freed += path.lstat().st_size
            path.unlink()
        removed.append(path.relative_to(root).as_posix())
    return removed, freed


def main() -> None:
    """Clean the repository and say how much that freed."""
    removed, freed = clean()
    print(f"Freed {freed / 1e6:,.1f} MB: {', '.join(removed)}" if removed else "Nothing to remove.")


if __name__ == "__main__":
    main()
