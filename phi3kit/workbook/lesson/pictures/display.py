"""Pictures and marked text as the last expression of a notebook's cell, each with the same in words."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two colours that also differ in grey. Bars and curves in them differ by hatching, line style or label as well.
DARK, LIGHT = "#2f5d8a", "#f0b070"


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        figure: the drawing.
        alt: a description of it, for readers who cannot see it.
    """

    figure: "Figure"
    alt: str

    def png(self) -> bytes:
        """The drawing as a PNG file, on white also where the page is dark."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=100, facecolor="white")
        return file.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        image = {"image/png": base64.b64encode(self.png()).decode()}
        return image | {"text/plain": self.alt}, {"image/png": {"alt": self.alt}}


@dataclass(frozen=True)
class Marked:
    """Text with marks in it.

    Attributes:
        html: the text as markup.
        plain: the same without markup.
    """

    html: str
    plain: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.plain}


def panels(width: float, height: float, columns: int = 1) -> tuple["Figure", list[Any]]:
    """Make an empty figure, in inches, and its panels from left to right; unlike pyplot's, it need not be closed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes
