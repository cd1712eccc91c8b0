"""The side-by-side figures: what can be checked without a model."""

import pytest

from phi3kit.workbook.compare import first_tokens_agree


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 2), ([5], [6], 0), ([], [1], 0), ([1, 9, 3], [1, 8, 3], 1)],
)
def test_agreement_counts_the_tokens_before_the_first_difference(one, other, same):
    assert first_tokens_agree(one, other) == same
