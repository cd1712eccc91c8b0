"""Two models side by side: what can be checked without a model."""

import pytest

from phi3kit.generation.options import declared
from phi3kit.workbook.lesson.comparison import first_tokens_agree
from phi3kit.workbook.lesson.option_probe import PROBES, option_table


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 2), ([5], [6], 0), ([], [1], 0), ([1, 9, 3], [1, 8, 3], 1)],
)
def test_agreement_counts_tokens_before_the_first_difference(one, other, same):
    assert first_tokens_agree(one, other) == same


def test_every_declared_option_has_a_probe():
    assert {option.name for option in declared()} <= PROBES.keys()


class Fake:
    """A chat model that honours `max_tokens`, refuses `n=2`, and ignores everything else."""

    def predict(self, request):
        if request.get("n") == 2:
            raise ValueError("n")
        content = " ".join(["It", "is", "a", "city", "in", "Spain"][: request.get("max_tokens", 6)])
        return {"choices": [{"message": {"content": content}}]}


def test_the_option_table_has_a_row_for_each_probe():
    column = option_table({"fake": Fake()})["fake"].to_dict()
    honoured = dict.fromkeys(["messages", "max_tokens", "n=1", "stream=false", "stream=true"], "honoured")
    assert column == dict.fromkeys(PROBES, "ignored") | honoured | {"n=2": "refused"}
