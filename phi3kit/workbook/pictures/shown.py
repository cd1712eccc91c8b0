"""How a picture reaches a reader: as the last expression of a notebook's cell, with words beside it."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two colours that differ in grey too; whatever they tell apart also differs by hatching, line style or label.
DARK, LIGHT = "#2f5d8a", "#f0b070"


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        figure: what was drawn.
        alt: what to see in it, for those who do not.
    """

    figure: "Figure"
    alt: str

    def png(self) -> bytes:
        """The drawing on white, so that it reads the same on a dark page."""
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
        plain: the same for where there is no markup.
    """

    html: str
    plain: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.plain}


def panels(width: float, height: float, columns: int = 1) -> tuple["Figure", list[Any]]:
    """An empty figure of so many inches, and its panels from left to right.

    It belongs to nobody else: unlike pyplot's figures, it need not be closed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    made = list(figure.subplots(1, columns, squeeze=False)[0])
    for panel in made:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, made
