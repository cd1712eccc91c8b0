"""Two folders for teachers: one to hand out, and the notebooks with the solutions filled in.

`python -m phi3kit.workbook.handout learner` (or `solutions`), which is what `make learner` does.
"""

import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import Literal

from phi3kit.errors import Phi3KitError
from phi3kit.workbook import places
from phi3kit.workbook.exercises import for_learners, solved

FOLDER = places.ROOT / "handout"
# What the notebooks need on a new machine; by MLproject the kit knows the workbook's folder.
TAKEN = ("phi3kit", ".jupyter", "install.py", "pyproject.toml", "requirements.txt", "environment.yml", "MLproject")
TAKEN += ("LICENSE", "NOTICE")
TARGETS = ("run", "lab", "clean", "install")  # of the Makefile; the others are for those who change the workbook
MARK = ".handout"  # holds the hash of notebooks/*.ipynb: a folder in which these were changed is not replaced

README = """# Phi-3 as an MLflow model: your copy of the workbook

You need Python 3.11, 3.12 or 3.13, 4 GB of disk and, for the first start, the network.

1. **Start.** On Linux and macOS type `make lab` in this folder. On Windows type `python install.py`, then
   `.venv\\Scripts\\jupyter lab --notebook-dir=notebooks`. The first time this installs for some minutes.
2. **Read and run** {notebooks}, in this order, cell by cell with Shift+Enter.
3. **Do the exercises.** Each has a task, a cell to change, and below it a cell that begins with `check.`: run both, and
   it says at once what is right, what came and what was expected. Two hints are folded up below. Add cells wherever
   you like; leave the `check.` cells as they are.
4. **Before you return it**, choose *Kernel > Restart Kernel and Run All Cells*. It will be run again from top to
   bottom, without the network, and with five minutes at most for a cell.
5. **Return** the notebooks out of the folder `notebooks`, saved, under any name.

If something does not work, `.venv/bin/phi3kit doctor` (on Windows `.venv\\Scripts\\phi3kit doctor`) says what to mend.
"""


class NotReplaced(Phi3KitError):
    """The folder to write is not one of ours, or its notebooks were changed; it stays as it is."""


def write(kind: Literal["learner", "solutions"], to: Path | None = None) -> Path:
    """Write a folder aside and move it into place.

    An older one is replaced only if it was written by this, and its `notebooks/*.ipynb` are as they were written. No
    other file in it is looked at: what was changed or put elsewhere goes with it.

    Args:
        kind: `learner`: all that is needed to work through the workbook, without solutions, outputs and tests;
            `solutions`: the notebooks with every stub filled in, without outputs.
        to: the folder; below `handout/` at the repository's root by default.

    Returns:
        the folder.

    Raises:
        Incomplete: an exercise lacks a cell or its solution.
        NotReplaced: something else lies there, or its notebooks were changed.
    """
    import nbformat

    folder = to or FOLDER / kind
    if folder.exists() and _mark(folder) != _hash(folder):
        raise NotReplaced(f"{folder} was not written by this, or was worked in: move it away, then try again.")
    aside = folder.with_name(f"{folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "notebooks").mkdir(parents=True)
    made = for_learners if kind == "learner" else solved
    for path in places.notebooks():
        nbformat.write(made(nbformat.read(path, as_version=4)), aside / "notebooks" / path.name)
    if kind == "learner":
        _rest(aside)
    (aside / MARK).write_text(_hash(aside), encoding="ascii")
    if folder.exists():
        shutil.rmtree(folder)
    return aside.rename(folder)


def _rest(folder: Path) -> None:
    for name in TAKEN:
        source = places.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy(source, folder / name)
    names = " and ".join(f"`{path.stem}`" for path in places.notebooks())
    (folder / "README.md").write_text(README.format(notebooks=names), encoding="utf-8")
    rules = makefile((places.ROOT / "Makefile").read_text(encoding="utf-8"))
    (folder / "Makefile").write_text(rules, encoding="utf-8", newline="\n")


def makefile(text: str) -> str:
    """A Makefile's text with those targets alone that a learner has a use for, and what is said of them.

    Args:
        text: paragraphs, with a rule each, or the settings; the first says what each target does.
    """
    first, *paragraphs = text.split("\n\n")
    told = [line for line in first.splitlines() if _wanted(re.match(r"# make ([\w-]+) ", line))]
    kept = [each for each in paragraphs if _wanted(re.search(r"^([\w-]+):(?!=)", each, re.MULTILINE))]
    phony = re.compile(r"^\.PHONY:.*", re.MULTILINE)
    return "\n\n".join(["\n".join(told), *(phony.sub(f".PHONY: {' '.join(TARGETS)}", each) for each in kept)])


def _wanted(target: re.Match[str] | None) -> bool:
    return target is None or target[1] in TARGETS


def _mark(folder: Path) -> str:
    mark = folder / MARK
    return mark.read_text(encoding="utf-8") if mark.is_file() else ""


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main(words: list[str]) -> None:
    """Write the folder of a kind, and say where it lies.

    Args:
        words: those of the command line: the kind, see `write`, and no other.
    """
    if words not in (["learner"], ["solutions"]):
        print("Say which folder to write: `learner` or `solutions`, one of them.", file=sys.stderr)
        sys.exit(2)
    kind = words[0]
    try:
        where = places.shown(write(kind))
    except Phi3KitError as error:
        sys.exit(str(error))
    what = "hand out this folder as it is" if kind == "learner" else "the notebooks with every stub filled in"
    print(f"{where}: {what}.")


if __name__ == "__main__":
    main(sys.argv[1:])
