"""`phi3kit grade`: run returned notebooks, and print the points and the feedback of each exercise."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi3kit.errors import InvalidRequest
from phi3kit.system import requirements

if TYPE_CHECKING:
    from phi3kit.workbook.exercises.grading import Report


def grade(
    notebook: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK...", help="Returned notebooks, by any name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Run returned notebooks in a sandbox; print what each exercise earned, and what to say to the learner.

    The sandbox protects from accidents, not from malice: first read a notebook whose author you do not trust.
    """
    requirements.need_extra("Grading a notebook", "notebooks")
    from rich.console import Console

    from phi3kit import weights
    from phi3kit.workbook.exercises import grading

    for obtain in (weights.checkpoint, weights.onnx):
        obtain("tiny")  # the checks need it, and the sandbox has no network
    reports: dict[Path, Report] = {}
    for path in notebook:
        typer.echo(f"{path}: a minute or two. Ctrl-C ends it.", err=True)
        try:
            # On a terminal, rich draws this line, and removes it at the end.
            with Console(stderr=True, force_terminal=sys.stderr.isatty()).status("starting") as status:
                reports[path] = grading.grade(path, progress=lambda *cell: status.update("cell {} of {}".format(*cell)))
        except InvalidRequest as error:
            typer.secho(str(error), fg="red", err=True)
            continue
        if not as_json:
            _print(path, reports[path])
    if as_json:
        results = {str(path): {**asdict(one), "right": one.right, "steps": one.steps} for path, one in reports.items()}
        typer.echo(json.dumps(results, indent=1, ensure_ascii=False))
    raise typer.Exit(0 if len(reports) == len(set(notebook)) else 2)


def _print(path: Path, report: "Report") -> None:
    typer.secho(_plain(f"{path}  ({report.notebook})"), bold=True)
    for mark in report.marks:
        colour = "green" if mark.right == mark.steps else "yellow"
        typer.echo(typer.style(f"  {mark.right} of {mark.steps}  ", fg=colour) + _plain(mark.title))
        for label, text in mark.feedback.items():
            typer.echo(f"          {label + ':':<13}" + _plain(text).replace("\n", "\n" + " " * 23))
    for problem in report.problems:
        typer.echo(f"  {_plain(problem)}")
    typer.secho(f"  {report.right} of {report.steps} in all", bold=True)


def _plain(text: str) -> str:
    """A text without control characters: a learner's text may hold some that steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
