"""Answers as marked text: what the model was sure of, and where two answers part."""

from html import escape

from phi3kit.workbook.pictures.shown import Marked
from phi3kit.workbook.pictures.tokens import Step

_SURE, _UNSURE = (238, 245, 251), (255, 146, 72)  # a token's ground, likely to unlikely: darker in grey, too
_STYLE = "color:#111;border-radius:3px;padding:1px 1px 4px"
_SEEN = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"})


def coloured(steps: list[Step]) -> Marked:
    """An answer with every token's probability in percent beside it, and the runners-up in a table that folds out."""
    cells = [
        (_seen(step.token), _percent(step.probability), ", ".join(map(_candidate, step.others[:3]))) for step in steps
    ]
    rows = [f"<tr><td>{'</td><td>'.join(map(escape, row))}</td></tr>" for row in cells]
    head = "<tr><th>token</th><th>probability</th><th>the three runners-up</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    folded = f"<details><summary>The same as a table, with the runners-up</summary>{table}</details>"
    return Marked(f"<p>{_line(steps)}</p>{folded}", _plain(steps))


def parting(answers: dict[str, list[Step]]) -> Marked:
    """Two answers to one question, with the first token at which they part in bold and brackets, and why in words.

    Args:
        answers: the name of who answers, and the steps.
    """
    (name, one), (other_name, other) = answers.items()
    pairs = enumerate(zip(one, other, strict=False))
    at = next((i for i, (a, b) in pairs if a.token != b.token), None)
    if at is None:
        said = f"They say the same for {min(len(one), len(other))} tokens, to the end."
    else:
        a, b = one[at], other[at]
        said = (
            f"They part at token {at + 1}. There {name} holds {_quoted(a)} for {_percent(a.probability)} likely and "
            f"{_quoted(b)} for {_chance(a, b)}; {other_name} holds {_quoted(b)} for {_percent(b.probability)} and "
            f"{_quoted(a)} for {_chance(b, a)}."
        )
    lines = [f"<p>{escape(who)}: {_line(steps, at)}</p>" for who, steps in answers.items()]
    plain = [f"{who}: {_plain(steps)}" for who, steps in answers.items()]
    return Marked("".join([*lines, f"<p>{escape(said)}</p>"]), "\n".join([*plain, said]))


def _line(steps: list[Step], bold: int | None = None) -> str:
    return "\u2009".join(_token(step, i == bold) for i, step in enumerate(steps))


def _token(step: Step, bold: bool) -> str:
    text = step.token.lstrip(" ") or step.token
    space = " " * (len(step.token) - len(text))
    colour = ",".join(f"{u + (s - u) * step.probability:.0f}" for s, u in zip(_SURE, _UNSURE, strict=True))
    title = f"{_percent(step.probability)}; instead: {', '.join(map(_candidate, step.others[:3]))}"
    number = escape(_percent(step.probability).removesuffix(" %"))
    marked = (
        f'<span title="{escape(title)}" style="background:rgb({colour});{_STYLE}">'
        f"{escape(_seen(text))}<sub>\u202f{number}</sub></span>"
    )
    return space + (f"<b>[{marked}]</b>" if bold else marked) + "<br>" * step.token.count("\n")


def _plain(steps: list[Step]) -> str:
    return " ".join(f"{_seen(step.token)} ({_percent(step.probability)})" for step in steps)


def _candidate(one: tuple[str, float]) -> str:
    return f"{_seen(one[0])} {_percent(one[1])}"


def _chance(step: Step, other: Step) -> str:
    known = dict(step.others)
    least = min(known.values(), default=1 - step.probability)
    return _percent(known[other.token]) if other.token in known else f"less than {_percent(least)}"


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability >= 0.005 else "<1 %"


def _quoted(step: Step) -> str:
    return f"“{_seen(step.token.strip(' ') or step.token)}”"


def _seen(text: str) -> str:
    """White space made visible."""
    return text.translate(_SEEN)
