"""Answers as marked text: the probability of each token, and the first difference between two answers."""

from html import escape

from phi3kit.workbook.lesson.pictures.display import Marked
from phi3kit.workbook.lesson.pictures.tokens import Step

_LIKELY, _UNLIKELY = (238, 245, 251), (255, 146, 72)  # a token's background; the unlikely one is darker in grey, too
_STYLE = "color:#111;border-radius:3px;padding:1px 1px 4px"
_VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"})


def token_probabilities(steps: list[Step]) -> Marked:
    """Mark every token of an answer with its probability in percent; a table that folds out lists the runners-up."""
    cells = [(_visible(step.token), _percent(step.probability), _runners_up(step)) for step in steps]
    rows = [f"<tr><td>{'</td><td>'.join(map(escape, row))}</td></tr>" for row in cells]
    head = "<tr><th>token</th><th>probability</th><th>the three runners-up</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    folded = f"<details><summary>The same as a table, with the runners-up</summary>{table}</details>"
    return Marked(f"<p>{_line(steps)}</p>{folded}", _plain(steps))


def first_difference(answers: dict[str, list[Step]]) -> Marked:
    """Mark the first token at which two answers to one question differ, and state the probabilities there.

    Args:
        answers: the name and the steps of each model.
    """
    (name, one), (other_name, other) = answers.items()
    pairs = enumerate(zip(one, other, strict=False))
    at = next((i for i, (a, b) in pairs if a.token != b.token), None)
    if at is None:
        sentence = f"They say the same for {min(len(one), len(other))} tokens, to the end."
    else:
        a, b = one[at], other[at]
        sentence = (
            f"They part at token {at + 1}. There {name} holds {_quoted(a)} for {_percent(a.probability)} likely and "
            f"{_quoted(b)} for {_chance(a, b)}; {other_name} holds {_quoted(b)} for {_percent(b.probability)} and "
            f"{_quoted(a)} for {_chance(b, a)}."
        )
    lines = [f"<p>{escape(name)}: {_line(steps, at)}</p>" for name, steps in answers.items()]
    plain = [f"{name}: {_plain(steps)}" for name, steps in answers.items()]
    return Marked("".join([*lines, f"<p>{escape(sentence)}</p>"]), "\n".join([*plain, sentence]))


def _line(steps: list[Step], bold: int | None = None) -> str:
    return "\u2009".join(_token(step, i == bold) for i, step in enumerate(steps))


def _token(step: Step, bold: bool) -> str:
    text = step.token.lstrip(" ") or step.token
    space = " " * (len(step.token) - len(text))
    shades = zip(_UNLIKELY, _LIKELY, strict=True)
    colour = ",".join(f"{low + (high - low) * step.probability:.0f}" for low, high in shades)
    title = f"{_percent(step.probability)}; instead: {_runners_up(step)}"
    number = escape(_percent(step.probability).removesuffix(" %"))
    span = (
        f'<span title="{escape(title)}" style="background:rgb({colour});{_STYLE}">'
        f"{escape(_visible(text))}<sub>\u202f{number}</sub></span>"
    )
    return space + (f"<b>[{span}]</b>" if bold else span) + "<br>" * step.token.count("\n")


def _plain(steps: list[Step]) -> str:
    return " ".join(f"{_visible(step.token)} ({_percent(step.probability)})" for step in steps)


def _runners_up(step: Step) -> str:
    return ", ".join(f"{_visible(token)} {_percent(probability)}" for token, probability in step.others[:3])


def _chance(step: Step, other: Step) -> str:
    others = dict(step.others)
    least = min(others.values(), default=1 - step.probability)
    return _percent(others[other.token]) if other.token in others else f"less than {_percent(least)}"


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability >= 0.005 else "<1 %"


def _quoted(step: Step) -> str:
    return f"“{_visible(step.token.strip(' ') or step.token)}”"


def _visible(text: str) -> str:
    """Replace white space by visible characters."""
    return text.translate(_VISIBLE)
