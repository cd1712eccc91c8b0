"""The figures of two wrappers as bars."""

import pandas as pd

from phi3kit.workbook.lesson.pictures.display import DARK, LIGHT, Picture, panels


def bar_charts(figures: pd.DataFrame) -> Picture:
    """Draw one small panel for each figure of `comparison.side_by_side`, each from zero."""
    names = [column for column in figures.columns if column != "unit"]
    figure, axes = panels(11, 2.6, len(figures))
    sentences = []
    for panel, (row, values) in zip(axes, figures.iterrows(), strict=True):
        bars = panel.bar(names, values[names].astype(float), color=[DARK, LIGHT], hatch=["", "//"], width=0.6)
        panel.bar_label(bars, fmt="%.3g", padding=2)
        panel.set_title(f"{row} ({values['unit']})", fontsize=10)
        panel.margins(y=0.18)
        panel.tick_params(axis="x", labelsize=8)
        sentences.append(f"{row}: " + ", ".join(f"{name} {values[name]:.3g} {values['unit']}" for name in names))
    return Picture(figure, "Bar charts. " + "; ".join(sentences) + ".")
