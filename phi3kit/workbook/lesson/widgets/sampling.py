"""The distribution of one next token under temperature, top_p and top_k."""

from collections.abc import Sequence
from html import escape
from itertools import accumulate

from phi3kit.errors import InvalidRequest
from phi3kit.workbook.lesson.widgets.layout import LABELLED, box, display
from phi3kit.workbook.running.session import is_interactive

Candidates = Sequence[tuple[str, float]]
ROWS = 16  # so many fit on a screen


def distribution(probabilities: Sequence[float], temperature: float, top_p: float, top_k: int) -> list[float]:
    """Return the probabilities with which tokens are sampled, likeliest first; tokens that are cut have none.

    The order is that of onnxruntime-genai and of transformers: top_k keeps the likeliest tokens, temperature scales
    their logits, top_p keeps the fewest of them that reach it together, and the rest is normalised to a sum of 1.

    Args:
        probabilities: the model's own, likeliest first; the first `top_k` suffice.
        temperature: 0 is greedy; below 1 likely tokens become likelier, above 1 unlikely ones do.
        top_p: above 0; 1 cuts nothing.
        top_k: a whole number from 1.
    """
    if temperature == 0:
        return [1.0]
    weights = [(probability / probabilities[0]) ** (1 / temperature) for probability in probabilities[:top_k]]
    sums = list(accumulate(weights))
    count = next(n for n, sum_ in enumerate(sums, 1) if sum_ >= top_p * sums[-1]) if top_p < 1 else len(weights)
    return [weight / sums[count - 1] for weight in weights[:count]]


def explore_sampling(candidates: Candidates) -> "SamplingForm | None":
    """Show sliders for temperature, top_p and top_k, and the distribution of one next token that follows from them.

    Args:
        candidates: the likeliest next tokens, as texts, each with its probability. The result is exact without the
            rest of the vocabulary, since top_k is applied first.

    Returns:
        The form; None under papermill or nbval, where a table for two settings is printed.

    Raises:
        InvalidRequest: there are no candidates.
    """
    if not candidates:
        raise InvalidRequest("candidates", candidates, "a list of (token, probability) that is not empty")
    candidates = sorted(candidates, key=lambda candidate: -candidate[1])
    if is_interactive():
        return display(SamplingForm(candidates))
    mild, wild = (Choice(candidates, temperature, 0.9, len(candidates)) for temperature in (0.5, 1.5))
    print(f"{'next token':<16}{'model':>8}{'temperature 0.5':>18}{'temperature 1.5':>18}   (both: top_p 0.9)")
    for rank, (token, probability) in enumerate(candidates[:6]):
        print(f"{token!r:<16}{_percent(probability):>8}{mild.effect(rank):>18}{wild.effect(rank):>18}")
    print(f"{'can be drawn':<16}{len(candidates):>8}{len(mild.probabilities):>18}{len(wild.probabilities):>18}")
    print("\nIn JupyterLab, this cell shows a slider for each of temperature, top_p and top_k, and bars that follow.")
    return None


class Choice:
    """The effect of one setting on the candidates, in numbers and in words."""

    def __init__(self, candidates: Candidates, temperature: float, top_p: float, top_k: int) -> None:
        self._candidates, self._temperature, self._top_k = candidates, temperature, min(top_k, len(candidates))
        self.probabilities = distribution([probability for _, probability in candidates], temperature, top_p, top_k)

    def effect(self, rank: int) -> str:
        """Return the new probability of one token, or the option that cut it."""
        if rank < len(self.probabilities):
            return _percent(self.probabilities[rank])
        if self._temperature == 0:
            return "not taken"
        return "cut by top_k" if rank >= self._top_k else "cut by top_p"

    def summary(self) -> str:
        """Say how many tokens remain, which options cut the others, and which token greedy takes."""
        token = repr(self._candidates[0][0])
        if self._temperature == 0:
            return f"Temperature 0 is greedy: it takes {token} every time, and top_p and top_k change nothing."
        count, remaining = len(self._candidates), len(self.probabilities)
        cut = f"top_k cut {count - self._top_k}, top_p cut {self._top_k - remaining}"
        return f"{remaining} of {count} tokens can be drawn ({cut}). Greedy would take {token} every time."


class SamplingForm:
    """The form behind `explore_sampling`; its controls are attributes, so that a program can use them."""

    def __init__(self, candidates: Candidates) -> None:
        import ipywidgets as w

        self._candidates, count = candidates, len(candidates)
        self.temperature = w.FloatSlider(1.0, min=0, max=2, step=0.05, description="temperature", **LABELLED)
        self.top_p = w.FloatSlider(0.9, min=0.01, max=1, step=0.01, description="top_p", **LABELLED)
        self.top_k = w.IntSlider(count, min=1, max=count, description="top_k", **LABELLED)
        self.summary, self.bars = w.HTML(), w.HTML()
        controls = [self.temperature, self.top_p, self.top_k]
        self.box = box("sampling", *controls, self.summary, self.bars)
        for control in controls:
            control.observe(lambda _: self._draw(), "value")
        self._draw()

    def _draw(self) -> None:
        choice = Choice(self._candidates, self.temperature.value, self.top_p.value, self.top_k.value)
        self.summary.value = escape(choice.summary())
        rows = [_row(token, before, choice, rank) for rank, (token, before) in enumerate(self._candidates[:ROWS])]
        heads = "".join(f'<th scope="col" style="{_CELL}">{head}</th>' for head in _HEADS)
        rest, sampled = len(self._candidates[ROWS:]), len(choice.probabilities[ROWS:])
        more = f"<p>And {rest} more, {sampled} of which can be drawn.</p>" if rest else ""
        self.bars.value = f'<table style="line-height: 1.5"><tr>{heads}</tr>{"".join(rows)}</table>{more}'


_HEADS = ("next token", "model says", "drawn with", "as a bar")
_CELL = "text-align: left; padding: 0 1em 0 0; white-space: pre; min-width: 6em"  # fixed widths


def _row(token: str, before: float, choice: Choice, rank: int) -> str:
    width = 24 * choice.probabilities[rank] if rank < len(choice.probabilities) else 0
    # In the colour of the text, so that it is visible in every theme.
    bar = f'<div style="width: {width:.2f}em; height: 0.9em; background: currentColor"></div>'
    cells = (f"<code>{escape(repr(token))}</code>", _percent(before), choice.effect(rank), bar)
    return "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"


def _percent(probability: float) -> str:
    return f"{probability:.1%}" if probability >= 0.0005 else "< 0.1%"
