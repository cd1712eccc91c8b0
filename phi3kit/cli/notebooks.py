"""`phi3kit run`, `refresh` and `clean`: the notebooks from the shell."""

import contextlib
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi3kit.cli.weights import Force
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
    force: Force = False,
) -> None:
    """Run notebooks; keep each executed one, and a page of it, under runs/."""
    from phi3kit.workbook import runner

    given = {}
    for text in parameter or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise _refusal(f"-p {text} gives no value. Type for example: phi3kit run -p max_tokens=32")
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
        typer.echo(f"{path.stem}: {_last_time(path)}. Ctrl-C ends it and keeps what has run.", err=True)
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
    if path.is_file() or named.is_file():
        return path if path.is_file() else named
    if str(path).startswith("-"):  # `mlflow run -P typo=1` ends as `--typo 1`
        how = "a notebook's parameter is given as -p NAME=VALUE, in `mlflow run` as -P with a name that MLproject has"
        raise _refusal(f"There is no option {path}: {how}. Type: phi3kit run --help")
    names = [notebook.stem for notebook in places.notebooks()]
    near = [*difflib.get_close_matches(path.stem, names, n=1, cutoff=0.3), *names, "PATH"][0]
    known = f"The workbook's are {', '.join(names)}. Type for example: phi3kit run {near}"
    raise _refusal(f"There is no notebook {path}. {known}")


def _last_time(path: Path) -> str:
    """How long a run of the notebook takes: as long as its last one did."""
    import json

    from phi3kit.workbook import places

    for executed in sorted(places.RUNS.glob(f"*/{path.name}"), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"]
            if not told["exception"] and told["end_time"]:
                return f"the last run took {told['duration']:.0f} s"
    return "with `tiny` about a minute on two free cores" if path.stem in places.STORY else "its first run"


def _refusal(sentence: str) -> typer.Exit:
    typer.secho(sentence, fg="red", err=True)
    return typer.Exit(2)


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
