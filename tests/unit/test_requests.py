"""What MLflow hands to a wrapper, brought into one form."""

import numpy as np
import pandas as pd
import pytest

from phi3kit.errors import InvalidRequest
from phi3kit.wrappers.requests import given, rows


def test_a_frame_gives_a_request_for_each_row_without_what_a_row_does_not_have():
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


def test_numpys_values_become_pythons_and_nan_from_a_caller_stays_to_be_refused():
    plain = given({"max_tokens": np.int64(4), "stop": np.array(["x"]), "seed": None, "temperature": float("nan")})
    assert plain["max_tokens"] == 4
    assert type(plain["max_tokens"]) is int
    assert plain["stop"] == ["x"]
    assert "seed" not in plain
    assert plain["temperature"] != plain["temperature"]
