"""Two folders for teachers: one to hand out, and the notebooks with the solutions filled in.

`python -m phi3kit.workbook.exercises.handout learner` (or `solutions`), which is what `make learner` does.
"""

import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import Literal

from phi3kit.errors import Phi3KitError
from phi3kit.system import requirements
from phi3kit.workbook.exercises.cells import for_learners, solved
from phi3kit.workbook.running import paths

FOLDER = paths.ROOT / "handout"
# The files that the notebooks need on a new machine; the kit recognizes the workbook's folder by its MLproject.
FILES = ("phi3kit", ".jupyter", "install.py", "pyproject.toml", "requirements.txt", "environment.yml", "MLproject")
FILES += ("LICENSE", "NOTICE")
TARGETS = ("run", "lab", "clean", "install")  # the Makefile's targets for learners; the others are for developers
MARK = ".handout"  # holds the hash of notebooks/*.ipynb: a folder whose notebooks were changed is not replaced

README = """# Phi-3 as an MLflow model: your copy of the workbook

You need Python 3.11, 3.12 or 3.13, 4 GB of disk and, for the first start, the network.

1. **Start.** On Linux and macOS type `make lab` in this folder. On Windows type `python install.py`, then
   `.venv\\Scripts\\jupyter lab --notebook-dir=notebooks`. The first time this installs for some minutes.
2. **Read and run** {notebooks}, in this order, cell by cell with Shift+Enter.
3. **Do the exercises.** Each has a task, a cell to change, and below it a cell that begins with `check.`: run both, and
   it says at once what is right, what it got and what it expected. Two hints are folded up below. Add cells wherever
   you like; leave the `check.` cells as they are.
4. **Before you return it**, choose *Kernel > Restart Kernel and Run All Cells*. It will be run again from top to
   bottom, without the network, and with five minutes at most for a cell.
5. **Return** the notebooks out of the folder `notebooks`, saved, under any name.

If something does not work, `.venv/bin/phi3kit doctor` (on Windows `.venv\\Scripts\\phi3kit doctor`) says what to mend.
"""


class NotReplaced(Phi3KitError):
    """The target folder was not written by this module, or its notebooks were changed; it stays as it is."""


def write(kind: Literal["learner", "solutions"], to: Path | None = None) -> Path:
    """Write a folder aside and move it into place.

    An older folder is replaced only if this function wrote it and its `notebooks/*.ipynb` are unchanged. Its other
    files are not compared: changes to them are lost.

    Args:
        kind: `learner`: everything that a learner needs, without solutions, outputs and tests;
            `solutions`: the notebooks with every stub filled in, without outputs.
        to: the folder; below `handout/` at the repository's root by default.

    Returns:
        the folder.

    Raises:
        Incomplete: an exercise lacks a cell or its solution.
        NotReplaced: another folder is there, or its notebooks were changed.
    """
    import nbformat

    folder = to or FOLDER / kind
    if folder.exists() and _read_mark(folder) != _hash(folder):
        raise NotReplaced(f"{folder} was not written by this command, or was worked in: move it away, then try again.")
    aside = folder.with_name(f"{folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "notebooks").mkdir(parents=True)
    convert = for_learners if kind == "learner" else solved
    for path in paths.notebooks():
        nbformat.write(convert(nbformat.read(path, as_version=4)), aside / "notebooks" / path.name)
    if kind == "learner":
        _copy_files(aside)
    (aside / MARK).write_text(_hash(aside), encoding="ascii")
    if folder.exists():
        shutil.rmtree(folder)
    return aside.rename(folder)


def _copy_files(folder: Path) -> None:
    for name in FILES:
        source = paths.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy(source, folder / name)
    names = " and ".join(f"`{path.stem}`" for path in paths.notebooks())
    (folder / "README.md").write_text(README.format(notebooks=names), encoding="utf-8")
    rules = makefile((paths.ROOT / "Makefile").read_text(encoding="utf-8"))
    (folder / "Makefile").write_text(rules, encoding="utf-8", newline="\n")


def makefile(text: str) -> str:
    """The text of a Makefile, reduced to the targets that a learner needs.

    Args:
        text: paragraphs with one rule or with settings; the first one has a comment for each target.
    """
    first, *paragraphs = text.split("\n\n")
    comments = [line for line in first.splitlines() if _for_learners(re.match(r"# make ([\w-]+) ", line))]
    rules = [rule for rule in paragraphs if _for_learners(re.search(r"^([\w-]+):(?!=)", rule, re.MULTILINE))]
    phony = re.compile(r"^\.PHONY:.*", re.MULTILINE)
    return "\n\n".join(["\n".join(comments), *(phony.sub(f".PHONY: {' '.join(TARGETS)}", rule) for rule in rules)])


def _for_learners(target: re.Match[str] | None) -> bool:
    return target is None or target[1] in TARGETS


def _read_mark(folder: Path) -> str:
    mark = folder / MARK
    return mark.read_text(encoding="utf-8") if mark.is_file() else ""


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main(arguments: list[str]) -> None:
    """Write a folder, and print where it is.

    Args:
        arguments: of the command line: one kind, see `write`.
    """
    if arguments not in (["learner"], ["solutions"]):
        print("Say which folder to write: `learner` or `solutions`, one of them.", file=sys.stderr)
        sys.exit(2)
    kind = arguments[0]
    try:
        requirements.need_extra("Writing a handout", "notebooks")
        folder = paths.relative(write(kind))
    except Phi3KitError as error:
        sys.exit(str(error))
    use = "hand out this folder as it is" if kind == "learner" else "the notebooks with every stub filled in"
    print(f"{folder}: {use}.")


if __name__ == "__main__":
    main(sys.argv[1:])
