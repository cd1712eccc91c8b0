"""`phi3kit weights`: what is here of which model, what it takes to have it, and whether it fits."""

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.weights import room

if TYPE_CHECKING:
    from phi3kit.doctor.cached import Cached

app = typer.Typer(no_args_is_help=True, help="The models' files: list, fit, fetch, verify, remove.")

Name = Annotated[str, typer.Argument(help="A name of the catalog, a folder, or a hub id.")]
OneOrAll = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="As for fetch; without it, all.", show_default=False)
]


def _forced(force: bool) -> None:
    if force:
        os.environ[room.FORCE] = "1"  # a kernel inherits it


Force = Annotated[bool, typer.Option("--force", help="Go on although disk or memory look too small.", callback=_forced)]


@app.command("list")
def list_() -> None:
    """List the catalog, and what else is here."""
    from phi3kit.doctor import cached, discreet
    from phi3kit.weights import CATALOG

    def row(name: str, form: str, size: int, context: str, licence: str, here: str) -> None:
        typer.echo(f"{discreet(name):<22}  {form:<10}  {_gb(size):>7}  {context:>7}  {licence:<10}  {here}")

    def here(items: list["Cached"]) -> str:
        return "whole" if any(not item.lacks for item in items) else "in part" if items else "-"

    items = cached.found()
    used, old = [item for item in items if not item.old], [item for item in items if item.old]
    typer.echo(f"{'MODEL':<22}  {'FORM':<10}  {'SIZE':>7}  CONTEXT  {'LICENCE':<10}  HERE")
    for entry in CATALOG.values():
        for form, size in (("checkpoint", entry.checkpoint_bytes), ("ONNX", entry.onnx_bytes)):
            mine = [item for item in used if (item.name, item.form) == (entry.name, form)]
            row(entry.name, form, size, f"{entry.context_length:,}", entry.licence, here(mine))
    for item in used:
        if item.name not in CATALOG:
            row(item.name, item.form, item.size, "", "", here([item]))
    for folder in sorted({item.folder.parent if item.from_hub else item.folder.parents[1] for item in items}):
        size = sum(item.size for item in items if folder in item.folder.parents)
        typer.echo(f"{_gb(size)} in {discreet(str(folder))}")
    if old:
        typer.echo(f"{_gb(sum(item.size for item in old))} of that are old or left over: phi3kit weights remove --old")


@app.command()
def fit(
    name: OneOrAll = None,
    measure: Annotated[bool, typer.Option("--measure", help="Try it, and tell how far off the estimate was.")] = False,
) -> None:
    """Tell whether a model fits this machine, and how many tokens a second to expect."""
    from phi3kit import machine, weights
    from phi3kit.doctor import fit

    if measure and not name:
        raise InvalidRequest("NAME", name, "the name of the model to try")
    entries = [weights.resolve(name)] if name else list(weights.CATALOG.values())
    shapes = [(entry, form) for entry in entries for form in fit.forms(entry)]
    bandwidth, cores = machine.memory_bandwidth(), machine.physical_cores()
    typer.echo(f"{cores} cores read {bandwidth / 1e9:.1f} GB/s of memory: a busy machine less than a quiet one.")
    typer.echo(f"{'MODEL':<22}  {'FORM':<10}  {'DISK':>7}  {'MEMORY':>7}  TOKENS/S  FITS")
    for entry, form in shapes:
        speed, short = form.tokens_per_second(bandwidth, cores), form.short_of()
        size = f"{_gb(form.disk):>7}  {_gb(form.memory):>7}  {speed:>8.1f}"
        typer.echo(f"{entry.name:<22}  {form.form:<10}  {size}  {'no, too little' if short else 'yes'}")
        for what in short:
            typer.echo(f"  {what}")
        if measure:
            folder = (weights.onnx if form.form == "ONNX" else weights.checkpoint)(entry.folder or entry.name)
            real = fit.measured(form.form, folder)
            off = f"{abs(speed / real - 1):.0%} too {'high' if speed > real else 'low'}"
            typer.echo(f"  measured: {real:.1f} tokens/s; the estimate is {off}")


@app.command()
def fetch(
    name: Name = "tiny",
    form: Annotated[
        Literal["checkpoint", "onnx"] | None, typer.Option(help="Only this one.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """Obtain a model's files, both forms; fetch or build only what is missing."""
    from phi3kit import weights

    for wanted in [form] if form else ["checkpoint", "onnx"]:
        start = time.monotonic()
        folder = getattr(weights, wanted)(name)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        written = {"onnx": "ONNX"}.get(wanted, wanted)
        typer.echo(f"{name}, {written}: {folder} ({size / 1e6:,.0f} MB, {time.monotonic() - start:.1f} s)")


@app.command()
def verify(name: OneOrAll = None) -> None:
    """Hash every file that is here; exit code 1 when one is not what it was."""
    from phi3kit.doctor import cached

    damaged = False
    for item in _of(name) if name else [item for item in cached.found() if not item.old]:
        wrong = cached.damage(item)
        damaged |= bool(wrong)
        typer.echo(f"{item}: {wrong or 'intact'}")
        if wrong:
            again = "remove" if item.form == "files" else "fetch"
            typer.echo("  phi3kit weights " + ("remove --old" if item.old else f'{again} "{item.name}"'))
    raise typer.Exit(int(damaged))


@app.command()
def remove(
    name: Annotated[str | None, typer.Argument(help="As for fetch.", show_default=False)] = None,
    old: Annotated[bool, typer.Option("--old", help="What older versions built, and killed builds left.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what was fetched or built of a model; a folder of your own stays."""
    from phi3kit.doctor import cached

    if (name is None) != old:
        raise InvalidRequest("NAME", name, "either a name or --old")
    items = _of(name) if name else [item for item in cached.found() if item.old]
    for item in items:
        typer.echo(f"{item}: {item.folder}")
    if items and not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest("--yes", yes, "--yes where nobody can be asked")
        typer.confirm("Remove that?", abort=True)
    for item in items:
        cached.remove(item)
    typer.echo(f"Freed {_gb(sum(item.size for item in items))}.")


def _of(name: str) -> list["Cached"]:
    """Everything of one model, by the name under which it is listed or any that means it."""
    from phi3kit.doctor import cached
    from phi3kit.weights import resolve

    items = cached.found()
    if not any(item.name == name for item in items):
        entry = resolve(name)
        name = str(entry.folder or entry.name)
    if mine := [item for item in items if item.name == name]:
        return mine
    raise WeightsError(f"Nothing that was fetched or built of {name} is here: phi3kit weights list")


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"
