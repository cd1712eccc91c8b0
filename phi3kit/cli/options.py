"""The generation options as options of a command, derived from their one declaration."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from phi3kit.errors import InvalidRequest
from phi3kit.generation.options import Option, declared

Command = TypeVar("Command", bound=Callable[..., None])


def utf8(value: Any, parameter: typer.CallbackParam) -> Any:
    """Refuse a text, or a list of texts, whose bytes on the command line are not in UTF-8; for `callback=`."""
    for text in map(str, value if isinstance(value, list) else [value]):
        if text.encode(errors="replace").decode() != text:
            raise InvalidRequest(str(parameter.name), text, "a text in UTF-8")
    return value


def generation_options(command: Command) -> Command:
    """Give a command one option for each generation option; it takes them as `**options`, None where none is given."""
    own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    derived = [_parameter(option) for option in declared()]
    command.__signature__ = inspect.Signature([*own, *derived])  # type: ignore[attr-defined]
    return command


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = list[option.type] if option.many else option.type  # type: ignore[name-defined]
    default = f" By default {option.default}." if option.default not in (None, ()) else ""
    annotation = Annotated[kind | None, typer.Option(help=option.help + default, show_default=False, callback=utf8)]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
