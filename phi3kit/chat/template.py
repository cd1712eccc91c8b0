"""From chat messages to the token ids of a prompt, by the model's own chat template.

A message's content is data: whatever a user types, control tokens such as `<|end|>` come from the chat template
alone. That is why messages become token ids here and not a prompt string.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from phi3kit.chat.messages import check
from phi3kit.errors import InvalidRequest, WeightsError

# Two private-use characters that no template holds: they mark where the content of message N belongs.
_SLOT = "\ue000{}\ue001"
_SLOTS = re.compile("\ue000(\\d+)\ue001")
# Unicode's white space, which a control token with `lstrip` or `rstrip` removes. `str.isspace` accepts four
# separators more.
_SPACE = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and not "\x1c" <= c <= "\x1f")


class ChatTemplate:
    """A model's own chat template and tokenizer, read from its folder (checkpoint or ONNX).

    Args:
        folder: holds `tokenizer.json` and, in `chat_template.jinja` or `tokenizer_config.json`, the template.

    Raises:
        WeightsError: when the folder has no tokenizer or no chat template.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        try:
            self._tokenizer_json = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
            self._config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise WeightsError(f"{folder} has no {Path(error.filename).name}: give a complete model folder.") from None
        beside = folder / "chat_template.jinja"
        self.source: str = beside.read_text(encoding="utf-8") if beside.exists() else self._config.get("chat_template")
        if not self.source or not isinstance(self.source, str):
            raise WeightsError(f"{folder} has no chat template: give an instruct model, or use plain prompts.")

    @cached_property
    def _jinja(self) -> Any:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        # The same settings under which transformers renders chat templates, so that the ids come out equal.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        return environment.from_string(self.source)

    @cached_property
    def _plain(self) -> Any:
        """The tokenizer without its control tokens: every text it encodes is only text."""
        from tokenizers import Tokenizer

        model = dict(self._tokenizer_json["model"])
        if "merges" in model:
            # In some tokenizers merges (pairs, or "left right") spell a control token; in `tiny` a byte that the
            # vocabulary lacks becomes <|endoftext|>. Here the first stays text and the second is left out.
            merges = [m for m in model["merges"] if "".join(m).replace(" ", "") not in self._control]
            model |= {"merges": merges, "unk_token": None}
        return Tokenizer.from_str(json.dumps({**self._tokenizer_json, "model": model, "added_tokens": []}))

    @cached_property
    def _control(self) -> dict[str, dict[str, Any]]:
        return {token["content"]: token for token in self._tokenizer_json["added_tokens"]}

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the prompt as text, for reading; `encode` is what a model should be given."""
        text = self._render_slots(check(messages))
        return _SLOTS.sub(lambda slot: messages[int(slot[1])]["content"].strip(), text)

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Turn messages into the token ids of a prompt that asks for the assistant's next turn.

        For contents without control tokens the ids are the ones that Hugging Face's `apply_chat_template` gives.

        Raises:
            InvalidRequest: when the messages are malformed or the model's template refuses them.
        """
        checked = check(messages)
        ids: list[int] = []
        text, strip_next = "", False
        for piece, is_control in self._pieces(checked):
            if is_control:
                token = self._control[piece]
                ids += self.plain_ids(text.rstrip(_SPACE) if token["lstrip"] else text)
                ids.append(token["id"])
                text, strip_next = "", token["rstrip"]
                continue
            text += piece
            if strip_next:
                text = text.lstrip(_SPACE)
        return ids + self.plain_ids(text)

    def _pieces(self, messages: list[dict[str, str]]) -> list[tuple[str, bool]]:
        """Split the rendered template into (text, is it a control token); contents are never control tokens."""
        longest_first = sorted(map(re.escape, self._control), key=len, reverse=True)
        control = re.compile(f"({'|'.join(longest_first) or '(?!)'})")
        pieces: list[tuple[str, bool]] = []
        for i, part in enumerate(_SLOTS.split(self._render_slots(messages))):
            if i % 2:
                pieces.append((messages[int(part)]["content"].strip(), False))
            else:
                pieces += [(text, bool(j % 2)) for j, text in enumerate(control.split(part)) if text]
        return pieces

    def _render_slots(self, messages: list[dict[str, str]]) -> str:
        from jinja2 import TemplateError

        slots = [{"role": m["role"], "content": _slot(i, m["content"])} for i, m in enumerate(messages)]
        names = {name: self._special(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        try:
            text = self._jinja.render(messages=slots, add_generation_prompt=True, **names)
        except TemplateError as error:
            raise WeightsError(f"The model's chat template does not work here: {error}. Use plain prompts.") from error
        if _SLOT.format(len(messages) - 1) not in text:
            raise WeightsError("The model's chat template leaves the last message out. Use plain prompts.")
        return text

    def _special(self, name: str) -> str:
        token = self._config.get(name) or ""
        return token["content"] if isinstance(token, dict) else token

    def plain_ids(self, text: str) -> list[int]:
        """Return the ids of a text in which nothing counts as a control token."""
        return self._plain.encode(text, add_special_tokens=False).ids if text else []


def _slot(index: int, content: str) -> str:
    """The placeholder of a content, between the content's own outer white space."""
    before, _, after = content.partition(content.strip())
    return f"{before}{_SLOT.format(index)}{after}"


def _refuse(message: str) -> None:
    raise InvalidRequest("messages", "...", f"messages that the model's chat template takes ({message})")
