"""The generation options: one request's, checked on construction."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from phi3kit.errors import InvalidRequest


class Options(BaseModel):
    """How to generate, under OpenAI's names. Greedy unless a temperature is given.

    Raises:
        InvalidRequest: on construction, naming the first field that is wrong, its value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_tokens: int = Field(256, ge=1, description="a whole number from 1")
    temperature: float = Field(0.0, ge=0, le=2, description="a number from 0 (greedy) to 2")
    top_p: float = Field(1.0, ge=1e-6, le=1, description="a number from 0.000001 to 1")
    top_k: int = Field(50, ge=1, description="a whole number from 1")
    stop: tuple[str, ...] = Field((), description="a text or a list of texts, none of them empty")
    seed: int | None = Field(None, ge=0, lt=2**31, description="a whole number from 0 to 2147483647")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=2, description="a number from 0.01 to 2 (1 changes nothing; none takes the model's own)"
    )

    def __init__(self, **values: Any) -> None:
        # NumPy's values, which pandas hands out, are numbers and lists too; strict mode would refuse them.
        plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
        try:
            super().__init__(**plain)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            known = type(self).model_fields.get(name)
            allowed = known.description if known else f"one of the options {', '.join(type(self).model_fields)}"
            raise InvalidRequest(name, values.get(name), str(allowed)) from None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        texts = (value,) if isinstance(value, str) else value
        if texts is None:
            return ()
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
            raise ValueError("not texts")
        return tuple(texts)
