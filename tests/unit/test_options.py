"""Generation options: what is taken, and that each refusal names field, value and range."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from phi3kit.errors import InvalidRequest, Phi3KitError
from phi3kit.generation import Options
from phi3kit.generation.options import declared


def test_the_defaults_are_greedy():
    assert vars(Options()) == {
        "max_tokens": None,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 50,
        "stop": (),
        "seed": None,
        "repetition_penalty": None,
    }


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 1},
        {"max_tokens": None},
        {"temperature": 0},
        {"temperature": 2},
        {"temperature": 1.5},
        {"top_p": 1e-6},
        {"top_p": 1},
        {"top_k": 1},
        {"top_k": 10**12},
        {"seed": 0},
        {"seed": 2**31 - 1},
        {"seed": None},
        {"repetition_penalty": 0.01},
        {"repetition_penalty": 2},
        {"repetition_penalty": None},
    ],
    ids=str,
)
def test_the_ends_of_each_range_are_taken(values):
    options = Options(**values)
    assert {name: getattr(options, name) for name in values} == values


BIG = 10**30
REFUSED = [
    ("max_tokens", [0, -1, 1.5, "7", True, float("nan"), float("inf"), [7]], "a whole number from 1"),
    ("temperature", [-1, -1e-9, 2.1, "hot", float("nan"), float("inf"), None, True], "a number from 0 (greedy) to 2"),
    ("top_p", [0, -0.5, 1e-9, 1.01, 5, "0.5", float("nan"), None], "a number from 0.000001 to 1"),
    ("top_k", [0, -1, 2.5, "5", None], "a whole number from 1"),
    ("stop", ["", [""], ["a", ""], [1], 7, {"a": 1}, b"ab"], "a text or a list of texts, none of them empty"),
    ("seed", [-1, 2**31, BIG, 1.5, "1", False], "a whole number from 0 to 2147483647"),
    ("repetition_penalty", [0, -1, 1e-300, 2.1, "1", float("inf")], "a number from 0.01 to 2"),
    ("max_completion_tokens", [5], "one of the options max_tokens, temperature, top_p, top_k, stop, seed, repetition"),
    ("frequency_penalty", [0.5], "one of the options max_tokens, "),
]


@pytest.mark.parametrize(
    ("field", "value", "allowed"), [(field, value, allowed) for field, values, allowed in REFUSED for value in values]
)
def test_a_refusal_names_field_value_and_range(field, value, allowed):
    with pytest.raises(InvalidRequest) as refused:
        Options(**{field: value})
    assert refused.value.field == field
    assert refused.value.value is value
    assert str(refused.value).startswith(f"{field}={value!r} is not allowed: give {allowed}")
    assert isinstance(refused.value, Phi3KitError | ValueError)


def test_numpy_values_are_numbers_and_lists_too():
    options = Options(
        max_tokens=np.int64(4), temperature=np.float64(0.5), seed=np.int32(3), stop=np.array(["a", "b"], dtype=object)
    )
    assert options == Options(max_tokens=4, temperature=0.5, seed=3, stop=["a", "b"])


@pytest.mark.parametrize("name", ["max_tokens", "top_k", "seed"])
def test_a_whole_float_is_a_whole_number(name):
    value = getattr(Options(**{name: 7.0}), name)
    assert (value, type(value)) == (7, int)


def test_a_numpy_nan_is_refused():
    with pytest.raises(InvalidRequest):
        Options(temperature=np.float32("nan"))


@pytest.mark.parametrize(
    ("value", "texts"), [("end", ("end",)), (["a", "bc"], ("a", "bc")), (None, ()), ([], ())], ids=repr
)
def test_stop_takes_a_text_a_list_or_nothing(value, texts):
    assert Options(stop=value).stop == texts


def test_equal_options_are_one():
    assert len({Options(stop=["a"]), Options(stop="a"), Options()}) == 2


def test_options_are_frozen():
    with pytest.raises(FrozenInstanceError):
        Options().max_tokens = 3


def test_every_option_is_declared_with_type_and_help():
    kinds = {option.name: (option.type, option.many) for option in declared()}
    assert kinds == {
        "max_tokens": (int, False),
        "temperature": (float, False),
        "top_p": (float, False),
        "top_k": (int, False),
        "stop": (str, True),
        "seed": (int, False),
        "repetition_penalty": (float, False),
    }
    assert all(option.help.endswith(".") and option.allowed for option in declared())
