"""The command `phi3kit`: run the notebooks, refresh them, obtain a model's files, clean up.

Exit codes: 0 all went well, 1 a notebook failed or something could not be obtained, 2 a wrong argument, 130 Ctrl-C.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from phi3kit.errors import InvalidRequest, Phi3KitError

if TYPE_CHECKING:
    from phi3kit.workbook.runner import Outcome


class _Told(TyperGroup):
    """A group of commands that tells the kit's errors in their own words, without a stack trace."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Phi3KitError as error:
            typer.secho(str(error), fg="red", err=True)
            raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from None


app = typer.Typer(
    cls=_Told, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Phi-3 with MLflow."
)

Notebooks = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[NOTEBOOK]...", help="Files or names of notebooks; without any, all of them.", show_default=False
    ),
]


@app.command("run")
def run_notebooks(
    notebook: Notebooks = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="A parameter of the notebook; may be repeated.")
    ] = None,
) -> None:
    """Run notebooks; keep each executed one, and a page of it, under runs/."""
    from phi3kit.workbook.runner import run

    given = {}
    for text in parameter or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest("-p", text, "name=value")
        given[name] = value
    _all(notebook, lambda path: run(path, given))


@app.command()
def refresh(notebook: Notebooks = None) -> None:
    """Run notebooks and, where all cells end well, keep the new outputs in the notebook itself."""
    from phi3kit.workbook.refresh import refresh as refreshed

    _all(notebook, refreshed)


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="A name of the catalog, a folder, or a hub id.")] = "tiny") -> None:
    """Obtain a model's files, both forms; fetch or build only what is missing."""
    import time

    from phi3kit import weights

    for form, obtain in (("checkpoint", weights.checkpoint), ("ONNX", weights.onnx)):
        start = time.monotonic()
        folder = obtain(name)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        typer.echo(f"{name}, {form}: {folder} ({size / 1e6:,.0f} MB, {time.monotonic() - start:.1f} s)")


@app.command()
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


if __name__ == "__main__":
    app()
