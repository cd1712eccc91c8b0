"""`phi3kit grade`: what returned notebooks earned, and what to say to their learners."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi3kit.errors import InvalidRequest

if TYPE_CHECKING:
    from phi3kit.workbook.grade import Report


def grade(
    notebook: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK...", help="Returned notebooks, by any name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Run returned notebooks in a sandbox; print what each exercise earned, and what to say to the learner.

    It protects from accidents, not from malice: read first what comes from somebody you do not trust.
    """
    from phi3kit import weights
    from phi3kit.workbook.grade import grade as graded

    for obtain in (weights.checkpoint, weights.onnx):
        obtain("tiny")  # the checks need it, and the sandbox has no network
    reports = {}
    refused = []
    for path in notebook:
        typer.echo(f"{path}: a minute or two. Ctrl-C ends it.", err=True)
        try:
            reports[str(path)] = graded(path)
        except InvalidRequest as error:
            refused.append(path)
            typer.secho(str(error), fg="red", err=True)
            continue
        if not as_json:
            _tell(path, reports[str(path)])
    if as_json:
        whole = {path: {**asdict(one), "right": one.right, "of": one.of} for path, one in reports.items()}
        typer.echo(json.dumps(whole, indent=1, ensure_ascii=False))
    raise typer.Exit(2 if refused else 0)


def _tell(path: Path, report: "Report") -> None:
    typer.secho(_plain(f"{path}  ({report.notebook})"), bold=True)
    for mark in report.marks:
        colour = "green" if mark.right == mark.of else "yellow"
        typer.echo(typer.style(f"  {mark.right} of {mark.of}  ", fg=colour) + _plain(mark.title))
        for label, text in mark.told.items():
            typer.echo(f"          {label + ':':<13}" + _plain(text).replace("\n", "\n" + " " * 23))
    for trouble in report.troubles:
        typer.echo(f"  {_plain(trouble)}")
    typer.secho(f"  {report.right} of {report.of} in all", bold=True)


def _plain(text: str) -> str:
    """A learner's text may hold what would steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
