"""The generation options: the one declaration from which signatures, the command line and refusals are derived."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from math import inf
from types import NoneType
from typing import Any, get_args, get_origin

from phi3kit.errors import InvalidRequest


def _option(default: Any, help: str, allowed: str, least: float = -inf, most: float = inf) -> Any:
    metadata = {"help": help, "allowed": allowed, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=metadata)


# Without pydantic, whose import would take as long as all of `phi3kit --help`.
@dataclass(frozen=True, init=False)
class Options:
    """How to generate, under OpenAI's names. Greedy unless a temperature is given.

    Raises:
        InvalidRequest: on construction, naming the first field that is wrong, its value and what is allowed.
    """

    max_tokens: int | None = _option(
        None, "The longest answer, in tokens: by default 256, or what still fits.", "a whole number from 1", 1
    )
    temperature: float = _option(
        0.0, "From 0, always the likeliest token, to 2.", "a number from 0 (greedy) to 2", 0, 2
    )
    # og treats smaller values of top_p and of repetition_penalty as off.
    top_p: float = _option(
        1.0, "Sample from the likeliest tokens of this total probability.", "a number from 0.000001 to 1", 1e-6, 1
    )
    top_k: int = _option(50, "Sample from this many of the likeliest tokens.", "a whole number from 1", 1)
    stop: tuple[str, ...] = _option(
        (), "End the answer before this text.", "a text or a list of texts, none of them empty"
    )
    seed: int | None = _option(
        None, "Draw the same samples each time.", "a whole number from 0 to 2147483647", 0, 2**31 - 1
    )
    repetition_penalty: float | None = _option(
        None, "Above 1, repeat less.", "a number from 0.01 to 2 (1 is off; none takes the model's own)", 0.01, 2
    )

    def __init__(self, **values: Any) -> None:
        options = declared()
        for option in options:
            object.__setattr__(self, option.name, option.checked(values.get(option.name, option.default)))
        for name in values.keys() - {option.name for option in options}:
            known = ", ".join(option.name for option in options)
            raise InvalidRequest(name, values[name], f"one of the options {known}")


@dataclass(frozen=True)
class Option:
    """One generation option, as `Options` declares it.

    Attributes:
        name: OpenAI's, where OpenAI has the option.
        type: of one value: int, float or str.
        many: whether the option is a list of such values.
        default: None where the model's own value, or none, holds.
        help: one line for a person.
        allowed: the accepted values, in words.
        least: the smallest number.
        most: the largest number.
    """

    name: str
    type: type
    many: bool
    default: Any
    help: str
    allowed: str
    least: float
    most: float

    def checked(self, value: Any) -> Any:
        """Return a value as the option's own type, or raise InvalidRequest."""
        # NumPy's values, which pandas hands out, are numbers and lists too.
        plain = value.tolist() if hasattr(value, "tolist") else value
        if self.type is int and type(plain) is float and plain.is_integer():
            plain = int(plain)  # JSON does not tell 7.0 from 7, and a table holds a column with a gap as floats
        if plain is None and (self.default is None or self.many):
            return self.default
        if self.many:
            texts = [plain] if isinstance(plain, str) else plain
            if isinstance(texts, list | tuple) and all(isinstance(text, str) and text for text in texts):
                return tuple(texts)
        # A bool is an int to Python, and no number to anybody else. Nothing compares with NaN.
        elif type(plain) in {int, self.type} and self.least <= plain <= self.most:
            return self.type(plain)
        raise InvalidRequest(self.name, value, self.allowed)


@cache
def declared() -> tuple[Option, ...]:
    """Every generation option, in the order of their declaration."""
    return tuple(_declared(field) for field in dataclasses.fields(Options))


def _declared(field: Any) -> Option:
    inner = [part for part in get_args(field.type) if part not in (NoneType, Ellipsis)]
    kind, many = (inner or [field.type])[0], get_origin(field.type) is tuple
    return Option(field.name, kind, many, field.default, **field.metadata)
