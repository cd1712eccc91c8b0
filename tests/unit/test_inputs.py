"""What MLflow hands to a wrapper, brought into one form."""

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from phi3kit.errors import InvalidRequest
from phi3kit.generation import Options
from phi3kit.wrappers.inputs import bad_request, checked, present, rows


def test_a_frame_is_a_request_for_each_row():
    frame = pd.DataFrame({"prompt": ["a", "b"], "seed": [1, None], "stop": [None, ["x"]], "n": [pd.NA, 1]})
    assert rows(frame) == [{"prompt": "a", "seed": 1}, {"prompt": "b", "stop": ["x"], "n": 1}]


def test_a_frame_without_rows_gives_no_requests():
    assert rows(pd.DataFrame({"prompt": []})) == []


@pytest.mark.parametrize("requests", [{"prompt": "a"}, [{"prompt": "a"}]])
def test_a_dict_and_a_list_are_requests_as_they_stand(requests):
    assert rows(requests) == [{"prompt": "a"}]


@pytest.mark.parametrize("other", ["a prompt", [], ["a prompt"], None, 3])
def test_anything_else_is_refused(other):
    with pytest.raises(InvalidRequest, match="request="):
        rows(other)


def options_of(requests, params=None):
    """The options of each request after the check."""
    return [options for _, options in checked(requests, params, lambda fields: ([], Options(**fields)))]


@pytest.mark.parametrize(
    ("request_", "params", "expected"),
    [
        ({}, None, None),
        ({}, {"seed": 1}, 1),
        ({"seed": 2}, {"seed": 1}, 2),
        ({"params": {"seed": 3}}, {"seed": 1}, 3),
        ({"seed": 2, "params": {"seed": 3}}, None, 3),
        ({"params": {"seed": None}}, {"seed": 1}, 1),
        ({"params": {}}, {"seed": np.int64(1)}, 1),
        ({}, {"seed": None}, None),
    ],
)
def test_the_options_of_a_request_win(request_, params, expected):
    assert options_of([request_], params)[0].seed == expected


def test_the_options_of_one_request_are_not_those_of_the_next():
    assert [one.seed for one in options_of([{"seed": 1}, {}, {"params": {"seed": 2}}])] == [1, None, 2]


@pytest.mark.parametrize(
    ("requests", "params", "field"),
    [
        ([{"seed": -1}], None, "seed"),
        ([{}, {"seed": -1}], None, "requests[1].seed"),
        ([{}, {"params": {"seed": -1}}], None, "requests[1].seed"),
        ([{}, {"params": "seed"}], None, "requests[1].params"),
        ([{"params": [1]}], None, "params"),
        ([{}, {"sede": 1}], {"seed": 1}, "requests[1].sede"),
        ([{}, {"seed": -1}], {"seed": 1}, "requests[1].seed"),
        ([{}, {}], {"seed": -1}, "seed"),
        ([{}, {}], {"sede": 1}, "sede"),
    ],
)
def test_a_refusal_names_the_request_if_it_is_one_of_several(requests, params, field):
    with pytest.raises(InvalidRequest) as refused:
        options_of(requests, params)
    assert refused.value.field == field


def test_numpys_values_become_pythons():
    plain = present({"max_tokens": np.int64(4), "stop": np.array(["x"]), "seed": None})
    assert plain == {"max_tokens": 4, "stop": ["x"]}
    assert type(plain["max_tokens"]) is int


def test_a_callers_nan_stays_to_be_refused():
    assert list(map(str, present({"temperature": float("nan")}).values())) == ["nan"]


def test_a_refusal_is_mlflows_bad_request():
    with pytest.raises(MlflowException, match="n=2 is not allowed") as error, bad_request():
        raise InvalidRequest("n", 2, "1")
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


def test_any_other_error_passes_unchanged():
    with pytest.raises(ZeroDivisionError), bad_request():
        _ = 1 / 0
