"""`phi3kit run`, `refresh` and `clean`: the notebooks from the shell."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi3kit.errors import InvalidRequest

if TYPE_CHECKING:
    from phi3kit.workbook.runner import Outcome


Notebooks = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[NOTEBOOK]...", help="Files or names of notebooks; without any, all of them.", show_default=False
    ),
]


def run(
    notebook: Notebooks = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="A parameter of the notebook; may be repeated.")
    ] = None,
) -> None:
    """Run notebooks; keep each executed one, and a page of it, under runs/."""
    from phi3kit.workbook import runner

    given = {}
    for text in parameter or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest("-p", text, "name=value")
        given[name] = value
    _all(notebook, lambda path: runner.run(path, given))


def refresh(notebook: Notebooks = None) -> None:
    """Run notebooks and, where all cells end well, keep the new outputs in the notebook itself."""
    from phi3kit.workbook.refresh import refresh as refreshed

    _all(notebook, refreshed)


def clean() -> None:
    """Remove what runs left: executed notebooks, the store and its artifacts. Models stay."""
    from phi3kit.workbook.clean import main

    main()


def _all(given: list[Path] | None, do: Any) -> None:
    from phi3kit.workbook import places

    found = [_found(path) for path in given] if given else places.notebooks()
    if not found:
        raise InvalidRequest("NOTEBOOK", str(places.NOTEBOOKS), "the path of a notebook, that folder holds none")
    verdicts = []
    for path in found:
        typer.echo(f"{path.stem} ...", err=True)
        outcome = do(path)
        _tell(outcome)
        verdicts.append(outcome.verdict)
        if outcome.verdict == "interrupted":
            raise typer.Exit(130)
    if "failed" in verdicts:
        raise typer.Exit(1)


def _found(path: Path) -> Path:
    from phi3kit.workbook import places

    named = places.NOTEBOOKS / f"{path}.ipynb"
    if not path.is_file() and not named.is_file():
        names = ", ".join(notebook.stem for notebook in places.notebooks())
        raise InvalidRequest("NOTEBOOK", str(path), f"the path of a notebook, or a name of the workbook's: {names}")
    return path if path.is_file() else named


def _tell(outcome: "Outcome") -> None:
    from rich.console import Console

    from phi3kit.workbook.places import shown

    colour = "green" if outcome.verdict == "ok" else "red"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{outcome.name}[/]  [{colour}]{outcome.verdict}[/]  {outcome.seconds:.0f} s")
    results = {name: outcome.results.get(key) for name, key in (("model", "model_uri"), ("answer", "answer"))}
    for name, value in {"notebook": shown(outcome.notebook), "page": shown(outcome.html), **results}.items():
        if value:
            console.print(f"  {name:<9} {value}", markup=False)
    if outcome.error:
        console.print(outcome.error, markup=False)
