"""Remove the output of runs: `python -m phi3kit.workbook.running.clean`, with nothing installed but Python.

Models stay in their cache, and `.venv` stays.
"""

import shutil
from pathlib import Path

from phi3kit.workbook.running.paths import ROOT

LEFT_BY_RUNS = ("runs", "mlartifacts", "mlruns", "mlflow.db*", "notebooks/mlruns", "notebooks/mlflow.db*")
# Files that a notebook writes, and removes in its last cell.
LEFT_BY_RUNS += ("notebooks/first_phi3_model.py", "notebooks/mended_phi3_model.py", "notebooks/my_wrapper.py")


def clean(root: Path = ROOT) -> tuple[list[str], int]:
    """Remove executed notebooks, and the store with its artifacts, below `root`.

    Args:
        root: the repository's root.

    Returns:
        The names of the removed files and folders, and their bytes.
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
    """Clean the repository and print the freed bytes."""
    removed, freed = clean()
    print(f"Freed {freed / 1e6:,.1f} MB: {', '.join(removed)}" if removed else "Nothing to remove.")


if __name__ == "__main__":
    main()
