"""`phi3kit run`, `refresh` and `clean`: the notebooks from the shell."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi3kit.cli.weights import Force, size_to_fetch
from phi3kit.errors import InvalidRequest
from phi3kit.system import requirements

if TYPE_CHECKING:
    from phi3kit.workbook.running.runner import Outcome


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
    force: Force = False,
) -> None:
    """Run notebooks; keep each executed one, and a page of it, under runs/."""
    from phi3kit.workbook.running import runner

    values = {}
    for text in parameter or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise _refusal(f"-p {text} gives no value. Type for example: phi3kit run -p max_tokens=32")
        values[name] = value
    _run_all(notebook, values, lambda path: runner.run(path, values))


def refresh(notebook: Notebooks = None) -> None:
    """Run notebooks and, where all cells end well, keep the new outputs in the notebook itself."""
    from phi3kit.workbook.running import refresh

    _run_all(notebook, {}, refresh.refresh)


def clean() -> None:
    """Remove the output of runs: executed notebooks, the store and its artifacts. Models stay."""
    from phi3kit.workbook.running.clean import main

    main()


def _run_all(arguments: list[Path] | None, given: dict[str, str], run_one: Callable[[Path], "Outcome"]) -> None:
    from phi3kit.workbook.running import paths
    from phi3kit.workbook.running.parameters import check, defaults

    requirements.need_extra("Running a notebook", "notebooks")
    notebooks = [_notebook(path) for path in arguments] if arguments else paths.notebooks()
    if not notebooks:
        raise InvalidRequest("NOTEBOOK", str(paths.NOTEBOOKS), "the path of a notebook, that folder holds none")
    # All are checked before the first one runs for minutes.
    models = [(defaults(path) | check(path, given)).get("model") for path in notebooks]
    verdicts = []
    for path, model in zip(notebooks, models, strict=True):
        typer.echo(f"{path.stem}: {_duration(path, model)}. Ctrl-C ends it and keeps what has run.", err=True)
        outcome = run_one(path)
        _print(outcome)
        verdicts.append(outcome.verdict)
        if outcome.verdict == "interrupted":
            raise typer.Exit(130)
    if "failed" in verdicts:
        raise typer.Exit(1)


def _notebook(path: Path) -> Path:
    """Find the notebook that an argument means: a file, or a name of the workbook's."""
    from phi3kit.workbook.running import paths

    for file in (path, paths.NOTEBOOKS / f"{path}.ipynb"):
        if file.is_file():
            return file
    if path.is_dir():
        raise _refusal(f"{path} is a folder: give the path of a notebook in it.")
    if str(path).startswith("-"):  # `mlflow run -P typo=1` ends as `--typo 1`
        usage = "a notebook's parameter is given as -p NAME=VALUE, in `mlflow run` as -P with a name that MLproject has"
        raise _refusal(f"There is no option {path}: {usage}. Type: phi3kit run --help")
    names = [notebook.stem for notebook in paths.notebooks()]
    nearest = [*difflib.get_close_matches(path.stem, names, n=1, cutoff=0.3), *names, "PATH"][0]
    others = f"The workbook's are {', '.join(names)}. Type for example: phi3kit run {nearest}"
    raise _refusal(f"There is no notebook {path}. {others}")


def _duration(path: Path, model: object) -> str:
    """Say how long a run of the notebook takes, from the last one with the same model."""
    from phi3kit.weights import CATALOG, Form
    from phi3kit.workbook.running import history, paths

    if seconds := history.last_seconds(path.name, model):
        return f"the last run took {seconds:.0f} s"
    if path.stem not in paths.STORY:
        return "its first run"
    tiny = "with `tiny` one to three minutes on two free cores, by their speed"
    if model == "tiny":
        return tiny
    size = size_to_fetch(str(model), list(Form)) if str(model) in CATALOG else 0
    download = f", up to {size / 1e9:.1f} GB to download" if size else ""
    return f"its first run with {model}{download}; {tiny}"


def _refusal(sentence: str) -> typer.Exit:
    typer.secho(sentence, fg="red", err=True)
    return typer.Exit(2)


def _print(outcome: "Outcome") -> None:
    from rich.console import Console

    from phi3kit.workbook.running.paths import relative

    colour = "green" if outcome.verdict == "ok" else "red"
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{outcome.name}[/]  [{colour}]{outcome.verdict}[/]  {outcome.seconds:.0f} s")
    results = {name: outcome.results.get(key) for name, key in (("model", "model_uri"), ("answer", "answer"))}
    for name, value in {"notebook": relative(outcome.notebook), "page": relative(outcome.html), **results}.items():
        if value:
            console.print(f"  {name:<9} {value}", markup=False)
    if outcome.error:
        console.print(outcome.error, markup=False)
