"""Requests as MLflow hands them over, in one form; their answers; and refusals as MLflow's errors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

from phi3kit.errors import InvalidRequest
from phi3kit.generation import Answer, Engine, Options

Request = tuple[list[int], Options]  # the prompt's token ids, and how to generate


def rows(model_input: Any) -> list[dict[str, Any]]:
    """Return one dict per request from a DataFrame, a dict, or a list of dicts, without empty fields.

    Raises:
        InvalidRequest: the input is none of these, or an empty list.
    """
    if isinstance(model_input, pd.DataFrame):
        # An object column keeps None; the others hold NaN or NA where a row has nothing and another one has.
        filled = model_input.astype(object).where(model_input.notna(), None)
        return [present(row) for row in filled.to_dict(orient="records")]
    requests = [model_input] if isinstance(model_input, Mapping) else model_input
    if not isinstance(requests, list) or not requests or not all(isinstance(one, Mapping) for one in requests):
        raise InvalidRequest("request", model_input, 'an object such as {"messages": [...]}')
    return [present(one) for one in requests]


def only_row(model_input: Any) -> dict[str, Any]:
    """Return the one request in an input, for a stream.

    Raises:
        InvalidRequest: the input holds none, or several.
    """
    requests = rows(model_input)
    if len(requests) != 1:
        raise InvalidRequest("request", requests, "one request: predict_stream streams one answer")
    return requests[0]


def checked(
    requests: list[dict[str, Any]], params: Mapping[str, Any] | None, check: Callable[[dict[str, Any]], Request]
) -> list[Request]:
    """Give each request the options of the call, and check it.

    Args:
        requests: as `rows` returns them. A request's own options, under their names or in an object `params`, win.
        params: the options of the call.
        check: takes the fields of one request, and returns its token ids and its options.

    Raises:
        InvalidRequest: as `check` raises it; if a field of one request among several was refused, it names the request.
    """
    common, results = present(params or {}), []
    for i, request in enumerate(requests):
        try:
            if not isinstance(own := request.pop("params", {}), Mapping):
                raise InvalidRequest("params", own, 'an object such as {"max_tokens": 64}')
            request |= present(own)
            results.append(check(common | request))
        except InvalidRequest as refused:
            if len(requests) == 1 or refused.field in common.keys() - request.keys():
                raise
            raise refused.renamed(refused.field, f"requests[{i}].{refused.field}") from None
    return results


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drop fields that are None, and turn NumPy's values into Python's."""
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in fields.items()}
    return {name: value for name, value in plain.items() if value is not None}


def answers(engine: Engine, requests: Sequence[Request]) -> list[Answer]:
    """Answer requests in order; those with equal options share a batch."""
    answered: list[Any] = [None] * len(requests)
    for options in {options for _, options in requests}:
        indices = [i for i, request in enumerate(requests) if request[1] == options]
        batch = engine.generate([requests[i][0] for i in indices], options)
        for i, answer in zip(indices, batch, strict=True):
            answered[i] = answer
    return answered


@contextmanager
def bad_request() -> Iterator[None]:
    """Turn a refused request into MLflow's 400; any other exception reaches an HTTP client as a stack trace."""
    try:
        yield
    except InvalidRequest as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
