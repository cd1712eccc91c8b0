"""The side-by-side figures: what can be checked without a model."""

import pandas as pd
import pytest

from phi3kit.workbook.compare import FIGURES, first_tokens_agree, plot


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 2), ([5], [6], 0), ([], [1], 0), ([1, 9, 3], [1, 8, 3], 1)],
)
def test_agreement_counts_the_tokens_before_the_first_difference(one, other, same):
    assert first_tokens_agree(one, other) == same


def test_the_plot_has_a_panel_for_each_figure_and_starts_at_zero():
    figures = pd.DataFrame({"unit": FIGURES, "pipeline": 2.0, "Phi3Chat": 1.0}, index=list(FIGURES))
    panels = plot(figures).axes
    assert [panel.get_title() for panel in panels] == [f"{name} ({unit})" for name, unit in FIGURES.items()]
    assert all(panel.get_ylim()[0] == 0 for panel in panels)
    assert all([bar.get_height() for bar in panel.patches] == [2.0, 1.0] for panel in panels)
