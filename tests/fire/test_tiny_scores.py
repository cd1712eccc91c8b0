"""The scores of the checkpoint of `tiny`, in bfloat16, on prompts that it was not trained on."""

import pytest
from tiny_tools import score

from phi3kit import weights

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def scored():
    return score.scores(weights.checkpoint("tiny"))


def test_most_capitals_are_right(scored):
    assert scored["capitals"] >= 22, scored["wrong"]


def test_int4_loses_at_most_two_capitals(scored):
    small = score.scores(weights.onnx("tiny"))
    assert small["capitals"] >= scored["capitals"] - 2, small["wrong"]


def test_the_capital_of_spain_is_madrid(scored):
    assert "Madrid" in scored["spain"]


def test_short_answers_end_by_themselves(scored):
    assert scored["ended"] >= 34, [answer for answer in scored["answers"] if not answer[-1]]


def test_no_short_answer_loops(scored):
    assert not scored["looped"]
