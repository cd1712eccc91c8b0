"""`phi3kit weights`: the model files on this machine, and whether a model fits it."""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.system import requirements
from phi3kit.system.targets import Target
from phi3kit.weights.catalog import Form

if TYPE_CHECKING:
    from phi3kit.weights.cached import Cached

app = typer.Typer(no_args_is_help=True, help="The models' files: list, fit, fetch, verify, remove.")

Name = Annotated[str, typer.Argument(help="A name of the catalog, a folder, or a hub id.")]
OneOrAll = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="As for fetch; without it, all.", show_default=False)
]


def _set_force(force: bool) -> None:
    if force:
        os.environ[requirements.FORCE] = "1"  # kernels inherit it


Force = Annotated[
    bool, typer.Option("--force", help="Go on although disk or memory look too small.", callback=_set_force)
]


@app.command("list")
def list_() -> None:
    """List the catalog, and all other model files on this machine."""
    from phi3kit.doctor import redact
    from phi3kit.weights import CATALOG, cached

    def row(name: str, form: str, size: int, context: str, licence: str, state: str) -> None:
        typer.echo(f"{redact(name):<22}  {form:<10}  {_gb(size):>7}  {context:>7}  {licence:<10}  {state}")

    def state(items: list["Cached"]) -> str:
        return "whole" if any(not item.lacks for item in items) else "in part" if items else "-"

    items = cached.list_cached()
    used, obsolete = [item for item in items if not item.obsolete], [item for item in items if item.obsolete]
    typer.echo(f"{'MODEL':<22}  {'FORM':<10}  {'SIZE':>7}  CONTEXT  {'LICENCE':<10}  HERE")
    for entry in CATALOG.values():
        for form, source in entry.sources.items():
            own = [item for item in used if (item.name, item.form) == (entry.name, form)]
            row(entry.name, form, source.disk, f"{entry.context_length:,}", entry.licence, state(own))
    for item in used:
        if item.name not in CATALOG:
            row(item.name, item.form or "files", item.size, "", "", state([item]))
    for folder in sorted({item.folder.parent if item.from_hub else item.folder.parents[1] for item in items}):
        size = sum(item.size for item in items if folder in item.folder.parents)
        typer.echo(f"{_gb(size)} in {redact(str(folder))}")
    if obsolete:
        typer.echo(f"{_gb(sum(item.size for item in obsolete))} of that are not used: phi3kit weights remove --old")


@app.command()
def fit(
    name: OneOrAll = None,
    measure: Annotated[bool, typer.Option("--measure", help="Try it, and tell how far off the estimate was.")] = False,
) -> None:
    """Tell whether a model fits this machine, and how many tokens a second to expect."""
    from phi3kit import weights
    from phi3kit.doctor import fit
    from phi3kit.system import machine

    if measure and not name:
        raise InvalidRequest("NAME", name, "the name of the model to try")
    entries = [weights.resolve(name)] if name else list(weights.CATALOG.values())
    rows = [(entry, needs) for entry in entries for needs in fit.list_needs(entry)]
    bandwidth, cores = machine.memory_bandwidth(), machine.physical_cores()
    typer.echo(f"{cores} cores read {bandwidth / 1e9:.1f} GB/s of memory: a busy machine less than a quiet one.")
    typer.echo(f"{'MODEL':<22}  {'FORM':<10}  {'DISK':>7}  {'MEMORY':>7}  {'NOTEBOOK':>8}  TOKENS/S  FITS")
    for entry, needs in rows:
        speed, (alone, notebook) = needs.tokens_per_second(bandwidth, cores), needs.shortages()
        memory = [_gb(size) if size else "?" for size in (needs.memory, needs.notebook_memory)]
        sizes = f"{_gb(needs.disk):>7}  {memory[0]:>7}  {memory[1]:>8}  {speed:>8.1f}"
        verdict = "no" if alone else "alone" if notebook else "yes"
        typer.echo(f"{entry.name:<22}  {needs.form:<10}  {sizes}  {verdict}")
        for shortage in alone + notebook:
            typer.echo(f"  {shortage}")
        if measure:
            measured = fit.measure(needs.form, _obtain(entry.folder or entry.name, needs.form))
            error = f"{abs(speed / measured - 1):.0%} too {'high' if speed > measured else 'low'}"
            typer.echo(f"  measured: {measured:.1f} tokens/s; the estimate is {error}")
    typer.echo("NOTEBOOK: the memory of the notebook about it. alone: it fits, that does not.")


@app.command()
def fetch(
    name: Name = "tiny",
    form: Annotated[Form | None, typer.Option(help="Only this one.", show_default=False)] = None,
    target: Annotated[
        Target | None, typer.Option(help="What the ONNX model is to run on. By default cpu.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """Obtain a model's files, both forms; fetch or build only what is missing."""
    forms = [form] if form else list(Form)
    if size := size_to_fetch(name, forms, target or Target.CPU):
        typer.echo(f"{name}: up to {_gb(size)} to download, {' and '.join(forms)}.", err=True)
    for each in forms:
        start = time.monotonic()
        folder = _obtain(name, each, target)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        typer.echo(f"{name}, {each}: {folder} ({size / 1e6:,.0f} MB, {time.monotonic() - start:.1f} s)")


@app.command()
def verify(name: OneOrAll = None) -> None:
    """Hash every model file on this machine; exit code 1 if one is damaged."""
    from phi3kit import weights
    from phi3kit.weights import cached

    damaged, folder = False, _own_folder(name)
    if folder:
        weights.check(folder)
        typer.echo(f"{folder}: whole")
    items = cached.list_cached()
    exports = [item for item in items if item.name == str(folder)]
    for item in exports if folder else _items(name) if name else [item for item in items if not item.obsolete]:
        damage = cached.damage(item)
        damaged |= bool(damage)
        typer.echo(f"{item}: {damage or 'intact'}")
        if damage:
            remove = "phi3kit weights remove " + ("--old" if item.obsolete else f'"{item.name}"')
            typer.echo(f"  {item.fetch if item.form and not item.obsolete else remove}")
    raise typer.Exit(int(damaged))


@app.command()
def remove(
    name: Annotated[str | None, typer.Argument(help="As for fetch.", show_default=False)] = None,
    old: Annotated[bool, typer.Option("--old", help="The files of older versions and of stopped builds.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the files that were fetched or built for a model; a folder of your own stays."""
    from phi3kit.weights import cached

    if (name is None) != old:
        raise InvalidRequest("NAME", name, "either a name or --old")
    items = _items(name) if name else [item for item in cached.list_cached() if item.obsolete]
    for item in items:
        typer.echo(f"{item}: {item.folder}")
    if items and not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest("--yes", yes, "--yes where there is no terminal to answer at")
        typer.confirm("Remove that?", abort=True)
    for item in items:
        cached.remove(item)
    typer.echo(f"Freed {_gb(sum(item.size for item in items))}.")


def size_to_fetch(name: str, forms: list[Form], target: Target = Target.CPU) -> int:
    """The most bytes that a hub's files will take; 0 where they are here, or where only the hub knows their size."""
    from phi3kit.weights import cached, resolve

    entry = resolve(name)
    own = [item for item in cached.list_cached() if item.name == entry.name and not item.lacks]
    whole = {item.form for item in own if item.form is Form.CHECKPOINT or target in item.targets}
    sources = {Form.CHECKPOINT: entry.checkpoint, Form.ONNX: entry.onnx_for(target)}
    return sum(sources[form].disk or 0 for form in forms if form not in whole and sources[form].repo)


def _obtain(name: str | Path, form: Form, target: Target | None = None) -> Path:
    from phi3kit import weights

    return weights.onnx(name, target) if form is Form.ONNX else weights.checkpoint(name)


def _own_folder(name: str | None) -> Path | None:
    """The local folder that a name means."""
    from phi3kit.weights import resolve

    with contextlib.suppress(WeightsError):  # the list may name a folder that is no more
        return resolve(name).folder if name else None
    return None


def _items(name: str) -> list["Cached"]:
    """The files of one model, by its name in the list or any other name of it."""
    from phi3kit.weights import cached, resolve

    items = cached.list_cached()
    if not any(item.name == name for item in items):
        entry = resolve(name)
        name = str(entry.folder or entry.name)
    if own := [item for item in items if item.name == name]:
        return own
    raise WeightsError(f"Nothing that was fetched or built of {name} is here: phi3kit weights list")


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"
