"""Pictures and marked text as the last expression of a notebook's cell, each with the same in words."""

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two colours that also differ in grey. Bars and curves in them differ by hatching, line style or label as well.
DARK, LIGHT = "#4a86bf", "#f0b070"
INK = "#767676"  # of text and lines: readable on white (4.5:1) and on JupyterLab's dark ground (4.2:1)


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
        """The drawing as a PNG file, on the ground of the page, light or dark."""
        from matplotlib.text import Text

        for text in self.figure.findobj(Text):
            text.set_color(INK)
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=100, transparent=True)
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


def folded(summary: str, text: str) -> Marked:
    """Show long text folded, below a summary."""
    return Marked(f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>", text)


def panels(width: float, height: float, columns: int = 1) -> tuple["Figure", list[Any]]:
    """Make an empty figure, in inches, and its panels from left to right; unlike pyplot's, it need not be closed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["bottom", "left"]].set_color(INK)
        panel.tick_params(color=INK)
    return figure, axes
