"""Messages, the text that a chat template renders them to, and its token ids: which are control tokens."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from phi3kit.chat import ChatTemplate
from phi3kit.errors import Phi3KitError
from phi3kit.workbook.lesson.widgets.layout import AS_TYPED, LABELLED, box, display
from phi3kit.workbook.running.session import is_interactive

Messages = Sequence[Mapping[str, str]]
_MARK = "\uf8ff"  # a private-use character that no template contains


def inspect_template(folder: Path, messages: Messages) -> "TemplateForm | None":
    """Show text areas for a system and a user message, and the prompt that the model's chat template renders.

    Args:
        folder: a model folder with its tokenizer and chat template.
        messages: those with which the form opens; turns between the system's and the last cannot be edited.

    Returns:
        The form; None under papermill or nbval, where text and ids are printed.
    """
    if is_interactive():
        return display(TemplateForm(folder, messages))
    reading = Reader(folder).read(messages)
    tokens = [f"[{i} {text}]" if control else f"{i} {text!r}" for i, text, control in reading.tokens]
    lines = textwrap.fill(" ".join(token.replace(" ", "\xa0") for token in tokens), 110, break_on_hyphens=False)
    print("".join(text for text, _ in reading.text).rstrip())
    print("\nAs ids, the control tokens in brackets:\n" + lines.replace("\xa0", " "))
    print(f"\n{textwrap.fill(reading.verdict, 110)}")
    print("\nIn JupyterLab, this cell shows two text areas, and text and ids that follow.")
    return None


@dataclass(frozen=True)
class Reading:
    """Messages as a model reads them.

    Attributes:
        text: the rendered prompt in pieces, each with whether it is a control token.
        tokens: the id and the text of each token, and whether it is a control token.
        typed: names of control tokens that occur in the messages, as text.
    """

    text: list[tuple[str, bool]]
    tokens: list[tuple[int, str, bool]]
    typed: list[str]

    @property
    def verdict(self) -> str:
        """Say in one sentence where the control tokens come from."""
        count = f"{sum(control for _, _, control in self.tokens)} control tokens"
        if not self.typed:
            return f"{count}, all of them from the template. No message holds the name of one."
        return (
            f"Neutralised: what a message says as {' and '.join(self.typed)} is ordinary text, in pieces; "
            f"the {count} come from the template alone."
        )


class Reader:
    """A model folder's template and tokenizer."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._template = ChatTemplate(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        added = self._tokenizer.get_added_tokens_decoder()
        self._control = {i: token.content for i, token in added.items()}

    @cached_property
    def _names(self) -> re.Pattern[str]:
        longest_first = sorted(map(re.escape, self._control.values()), key=len, reverse=True)
        return re.compile(f"({'|'.join(longest_first)})")

    def read(self, messages: Messages) -> Reading:
        """Render and encode messages as for the model.

        Raises:
            InvalidRequest: they are malformed or the template refuses them.
        """
        ids = self._template.encode(messages)
        marked = [{"role": m["role"], "content": f"{_MARK}{i}{_MARK}"} for i, m in enumerate(messages)]
        text: list[tuple[str, bool]] = []
        for i, part in enumerate(self._template.render(marked).split(_MARK)):
            if i % 2:
                text.append((messages[int(part)]["content"].strip(), False))
            else:
                text += [(piece, bool(j % 2)) for j, piece in enumerate(self._names.split(part)) if piece]
        tokens = [(i, self._control.get(i) or self._tokenizer.decode([i]), i in self._control) for i in ids]
        typed = self._names.findall(" ".join(message["content"] for message in messages))
        return Reading(text, tokens, list(dict.fromkeys(typed)))


class TemplateForm:
    """The form behind `inspect_template`; its controls are attributes, so that a program can use them."""

    def __init__(self, folder: Path, messages: Messages) -> None:
        import ipywidgets as w

        self._reader = Reader(folder)
        system, user = [m for m in messages if m["role"] == "system"], messages[-1]
        self._between = [m for m in messages[:-1] if m["role"] != "system"]
        self.system = w.Textarea(system[0]["content"] if system else "", description="System", rows=2, **LABELLED)
        self.user = w.Textarea(user["content"], description="User", rows=3, **LABELLED)
        self.verdict, self.text, self.ids = w.HTML(), w.HTML(), w.HTML()
        self.box = box("template", self.system, self.user, self.verdict, self.text, self.ids)
        for area in (self.system, self.user):
            area.observe(lambda _: self._draw(), "value")
        self._draw()

    def _draw(self) -> None:
        system = [{"role": "system", "content": self.system.value}] if self.system.value.strip() else []
        try:
            reading = self._reader.read([*system, *self._between, {"role": "user", "content": self.user.value}])
        except Phi3KitError as error:
            self.verdict.value, self.text.value, self.ids.value = escape(str(error)), "", ""
            return
        self.verdict.value = f'<div style="{AS_TYPED}">{escape(reading.verdict)}</div>'
        text = "".join(_control(text) if control else escape(text) for text, control in reading.text)
        self.text.value = f'<strong>As text</strong><div style="{AS_TYPED}">{text}</div>'
        ids = "".join(_token(*token) for token in reading.tokens)
        head = f"<strong>As {len(reading.tokens)} tokens</strong>, each with its id; control tokens in a bold frame"
        parts = "; \ufffd is a part of a character" if "\ufffd" in ids else ""
        self.ids.value = f"{head}{parts}<div>{ids}</div>"


def _control(text: str) -> str:
    return f'<strong style="border: 2px solid; padding: 0 0.2em">{escape(text)}</strong>'


def _token(token: int, text: str, control: bool) -> str:
    face = _control(text) if control else f'<span style="border: 1px dotted">{escape(repr(text))}</span>'
    cell = "display: inline-block; margin: 0.2em; text-align: center; white-space: pre-wrap; line-height: 1.6"
    return f'<span style="{cell}">{face}<br>{token}</span>'
