"""What MLflow hands to a wrapper, brought into one form, and what a wrapper hands back when it refuses."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from phi3kit.errors import InvalidRequest


def rows(model_input: Any) -> list[dict[str, Any]]:
    """Return one dict per request from a DataFrame, a dict, or a list of dicts, without what was not given."""
    if isinstance(model_input, pd.DataFrame):
        # An object column keeps None; the others hold NaN or NA where a row has nothing and another one has.
        filled = model_input.astype(object).where(model_input.notna(), None)
        return [given(row) for row in filled.to_dict(orient="records")]
    requests = [model_input] if isinstance(model_input, Mapping) else model_input
    if not isinstance(requests, list) or not requests or not all(isinstance(one, Mapping) for one in requests):
        raise InvalidRequest("request", model_input, 'an object such as {"messages": [...]}')
    return [given(one) for one in requests]


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what was not given, and turn NumPy's values into Python's."""
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in fields.items()}
    return {name: value for name, value in plain.items() if value is not None}


@contextmanager
def refused_as_bad_request() -> Iterator[None]:
    """Turn a refused request into MLflow's 400; any other exception reaches an HTTP client as a stack trace."""
    try:
        yield
    except InvalidRequest as refused:
        raise MlflowException.invalid_parameter_value(str(refused)) from refused
