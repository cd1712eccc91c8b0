"""The generation options: the one declaration from which signatures, the command line and refusals are derived."""

from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from phi3kit.errors import InvalidRequest


def _option(default: Any, help: str, allowed: str, **limits: float) -> Any:
    return Field(default, description=help, json_schema_extra={"allowed": allowed}, **limits)


class Options(BaseModel):
    """How to generate, under OpenAI's names. Greedy unless a temperature is given.

    Raises:
        InvalidRequest: on construction, naming the first field that is wrong, its value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_tokens: int = _option(256, "The longest answer, in tokens.", "a whole number from 1", ge=1)
    temperature: float = _option(
        0.0, "From 0, always the likeliest token, to 2.", "a number from 0 (greedy) to 2", ge=0, le=2
    )
    # og treats smaller values of top_p and of repetition_penalty as off.
    top_p: float = _option(
        1.0, "Sample from the likeliest tokens of this total probability.", "a number from 0.000001 to 1", ge=1e-6, le=1
    )
    top_k: int = _option(50, "Sample from this many of the likeliest tokens.", "a whole number from 1", ge=1)
    stop: tuple[str, ...] = _option(
        (), "End the answer before this text.", "a text or a list of texts, none of them empty"
    )
    seed: int | None = _option(
        None, "Draw the same samples each time.", "a whole number from 0 to 2147483647", ge=0, lt=2**31
    )
    repetition_penalty: float | None = _option(
        None,
        "Above 1, repeat less.",
        "a number from 0.01 to 2 (1 changes nothing; none takes the model's own)",
        ge=0.01,
        le=2,
    )

    def __init__(self, **values: Any) -> None:
        # NumPy's values, which pandas hands out, are numbers and lists too; strict mode would refuse them.
        plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
        try:
            super().__init__(**plain)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            allowed = {option.name: option.allowed for option in declared()}
            others = f"one of the options {', '.join(allowed)}"
            raise InvalidRequest(name, values.get(name), allowed.get(name, others)) from None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        texts = (value,) if isinstance(value, str) else value
        if texts is None:
            return ()
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
            raise ValueError("not texts")
        return tuple(texts)


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
    """

    name: str
    type: type
    many: bool
    default: Any
    help: str
    allowed: str


def declared() -> list[Option]:
    """Every generation option, in the order of their declaration."""
    return [_declared(name, field) for name, field in Options.model_fields.items()]


def _declared(name: str, field: Any) -> Option:
    inner = [part for part in get_args(field.annotation) if part not in (NoneType, Ellipsis)]
    kind, many = (inner or [field.annotation])[0], get_origin(field.annotation) is tuple
    return Option(name, kind, many, field.default, field.description, field.json_schema_extra["allowed"])
