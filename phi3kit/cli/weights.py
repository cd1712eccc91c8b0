"""`phi3kit weights`: what is here of which model, and what it takes to have it."""

import time
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The models' files: list, fetch, verify, remove.")

Name = Annotated[str, typer.Argument(help="A name of the catalog, a folder, or a hub id.")]
Force = Annotated[bool, typer.Option("--force", help="Go on although disk or memory look too small.")]


@app.command()
def fetch(name: Name = "tiny", force: Force = False) -> None:
    """Obtain a model's files, both forms; fetch or build only what is missing."""
    import os

    from phi3kit import weights
    from phi3kit.weights import room

    if force:
        os.environ[room.FORCE] = "1"
    for form, obtain in (("checkpoint", weights.checkpoint), ("ONNX", weights.onnx)):
        start = time.monotonic()
        folder = obtain(name)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        typer.echo(f"{name}, {form}: {folder} ({size / 1e6:,.0f} MB, {time.monotonic() - start:.1f} s)")
