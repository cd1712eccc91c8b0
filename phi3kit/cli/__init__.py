"""The command `phi3kit`: one module for each thing a person does with it.

It knows nothing of how the other rooms work: it reads arguments, calls them and prints.

Exit codes: 0 all went well, 1 something could not be done, 2 a wrong argument, 130 Ctrl-C.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import phi3kit
from phi3kit.cli import chat, doctor, grade, notebooks, serve, weights
from phi3kit.errors import InvalidRequest, Phi3KitError


class _Commands(TyperGroup):
    """The commands; the kit's own errors are printed as sentences, without a stack trace."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Phi3KitError as error:
            typer.secho(str(error), fg="red", err=True)
            raise typer.Exit(2 if isinstance(error, InvalidRequest) else 1) from None
        except KeyboardInterrupt:
            typer.echo("Interrupted, and nothing is half-made: the same command goes on or starts over.", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Phi-3 with MLflow."
)


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"phi3kit {phi3kit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    pass


app.command("run", context_settings={"ignore_unknown_options": True})(notebooks.run)
app.command("refresh")(notebooks.refresh)
app.command("clean")(notebooks.clean)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("grade")(grade.grade)
app.command("doctor")(doctor.doctor)
app.add_typer(weights.app, name="weights")
