"""From chat messages to the token ids of a prompt, by the model's own chat template.

A message's content is data: whatever a user types, control tokens such as `<|end|>` come from the chat template
alone. That is why messages become token ids here and not a prompt string.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from phi3kit.chat import rendering
from phi3kit.chat.messages import check
from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.system import folders

# Two private-use characters that no template holds: between them stands the number of a text that was taken out.
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000(\\d+)\ue001")
# A content without its outer white space, which many templates trim.
_WHOLE = re.compile(r"\S(?:.*\S)?", re.DOTALL)
# Unicode's white space, which a control token with `lstrip` or `rstrip` removes. `str.isspace` accepts four
# separators more.
_SPACE = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and not "\x1c" <= c <= "\x1f")
# A private-use character that replaces the beginning of what could become a control token.
_OTHER = "\ue002"


class ChatTemplate:
    """A model's own chat template and tokenizer, read from its folder (checkpoint or ONNX).

    Args:
        folder: holds `tokenizer.json`, `tokenizer_config.json`, and in the latter or beside it, where transformers
            looks for it, the template.

    Attributes:
        source: the template; of several with names, the one called `default`.

    Raises:
        WeightsError: the folder has no usable tokenizer or chat template.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._tokenizer_json = folders.read_json(self._folder / "tokenizer.json")
        self._config = folders.read_json(self._folder / "tokenizer_config.json")
        self._tokenizer = self._read_tokenizer()
        self._special = self._read_special_tokens()
        self.source = self._read_source()
        try:
            self._template = rendering.compiled(self.source, _refuse)
            prompts = {self._rendered([{"role": "user", "content": text}]) for text in ("Yes", "No")}
            self._check_tokens("".join(prompts))
        except _Refused:
            return  # the template works, and wants another conversation
        except TemplateError as error:
            raise WeightsError(f"The chat template of {folder} does not work: {error}. Use plain prompts.") from error
        if len(prompts) == 1:
            raise WeightsError(f"The chat template of {folder} leaves the question out. Use plain prompts.")

    def _read_tokenizer(self) -> Any:
        try:
            return _tokenizer(self._tokenizer_json)
        except Exception as error:  # the library raises no other kind
            path = self._folder / "tokenizer.json"
            raise WeightsError(f"{path} holds no tokenizer: {error}. Copy or fetch it again.") from None

    def _read_special_tokens(self) -> dict[str, str]:
        config, legacy = self._config, self._folder / "special_tokens_map.json"
        if legacy.exists() and "added_tokens_decoder" not in config:
            config = config | folders.read_json(legacy)
        extra = config.get("extra_special_tokens")
        tokens = config | (extra if isinstance(extra, dict) else {})
        tokens = {name: token for name, token in tokens.items() if name.endswith("_token") and token}
        texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
        return {name: text for name, text in texts.items() if isinstance(text, str)}

    def _check_tokens(self, prompt: str) -> None:
        """Refuse what transformers reads as one token, and `tokenizer.json` does not know."""
        if self._config.get("split_special_tokens"):
            raise WeightsError(f"{self._folder}: `split_special_tokens` in tokenizer_config.json cannot be used here.")
        path = self._folder / "added_tokens.json"
        declared = [*self._special.values(), *(folders.read_json(path) if path.exists() else ())]
        for name in ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"):
            entries = self._config.get(name) or ()
            declared += entries.values() if isinstance(entries, dict) else entries
        texts = [token.get("content") if isinstance(token, dict) else token for token in declared]
        unknown = [text for text in texts if text in prompt and self._tokenizer.token_to_id(text) is None]
        if unknown:
            raise WeightsError(
                f"{self._folder / 'tokenizer.json'} lacks the token {unknown[0]} of the chat template. Fetch it again."
            )

    def _read_source(self) -> str:
        more = sorted((self._folder / "additional_chat_templates").glob("*.jinja"))
        paths = [path for path in (*more, self._folder / "chat_template.jinja") if path.exists()]
        files = {path.stem.replace("chat_template", "default"): folders.read_text(path) for path in paths}
        source = files or self._config.get("chat_template")
        if isinstance(source, list):
            source = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
        if source and isinstance(source, dict):
            if "default" not in source:
                names = ", ".join(map(str, source))
                raise WeightsError(f"{self._folder} has the chat templates {names}, and none of them is the default.")
            source = source["default"]
        if not source or not isinstance(source, str):
            raise WeightsError(f"{self._folder} has no chat template: give an instruct model, or use plain prompts.")
        return source

    @cached_property
    def _plain(self) -> Any:
        """The tokenizer without its control tokens: every text it encodes is only text."""
        model = dict(self._tokenizer_json["model"])
        hidden = self._control.keys() - {model.get("unk_token")}
        if isinstance(vocabulary := model["vocab"], dict):
            model["vocab"] = {_OTHER * (text in hidden) + text: number for text, number in vocabulary.items()}
        else:
            model["vocab"] = [[_OTHER * (text in hidden) + text, score] for text, score in vocabulary]
        if "merges" in model:
            # In some tokenizers merges (pairs, or "left right") spell a control token: here it stays text.
            merges = [m for m in model["merges"] if "".join(m).replace(" ", "") not in self._control]
            model |= {"merges": merges, "unk_token": self._unknown}
        added = [token | {"special": token["content"] in self._control} for token in self._added()]
        tokenizer = _tokenizer({**self._tokenizer_json, "model": model, "added_tokens": added})
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def _control(self) -> dict[str, dict[str, Any]]:
        """The added tokens by their text; those that are only white space are ordinary text to everybody."""
        return {token["content"]: token for token in self._added() if token["content"].strip()}

    def _added(self) -> list[dict[str, Any]]:
        return self._tokenizer_json.get("added_tokens") or []

    @cached_property
    def _unknown(self) -> str | None:
        """The token for what the vocabulary lacks; None where it also ends a text, as <|endoftext|> in `tiny`."""
        ends = {token for name, token in self._special.items() if name != "unk_token"}
        unknown = self._tokenizer_json["model"].get("unk_token")
        return None if unknown in ends else unknown

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        longest_first = sorted(map(re.escape, self._control), key=len, reverse=True)
        return re.compile("|".join(longest_first) or "(?!)")

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the prompt as text, for reading; `encode` is what a model should be given."""
        return self._prompt(check(messages), datetime.now())

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Turn messages into the token ids of a prompt that asks for the assistant's next turn.

        For contents without control tokens the ids are the ones that Hugging Face's `apply_chat_template` gives.

        Raises:
            InvalidRequest: the messages are malformed, the model's template refuses them, or it decides by a control
                token that stands in a content.
        """
        checked = check(messages)
        now = datetime.now()
        prompt = self._prompt(checked, now)
        parts = self._parts(checked, prompt, now)
        ids = list(self._tokenizer.encode(prompt, add_special_tokens=False).ids)
        counted = {token["id"] for token in self._control.values() if token["content"] != self._unknown}
        own = [token for part in parts[::2] for token in self._controls.findall(part) if token != self._unknown]
        return ids if sum(i in counted for i in ids) == len(own) else self._encode_parts(parts)

    def _prompt(self, messages: list[dict[str, str]], now: datetime) -> str:
        try:
            return self._rendered(messages, now)
        except TemplateError as error:
            allowed = f"messages that the model's chat template takes ({error})"
            raise InvalidRequest("messages", "...", allowed) from error

    def _parts(self, messages: list[dict[str, str]], prompt: str, now: datetime) -> list[str]:
        """Split the prompt: the template's own text and, at odd places, text of the contents.

        Every control token of a content is in a part of its own or in a larger one of the contents. Where the
        contents lie is found by rendering the conversation again with a mark in place of each of them. A template
        that looks into the contents may then render something else; for it only their control tokens are replaced.
        """
        for pattern in (_WHOLE, re.compile(f"{self._controls.pattern}|[\ue000\ue001]")):
            texts: list[str] = []
            marked = [message | {"content": _taken_out(pattern, message["content"], texts)} for message in messages]
            try:
                parts = _MARKS.split(self._rendered(marked, now))
            except TemplateError:
                continue
            parts[1::2] = [texts[int(number)] for number in parts[1::2]]
            if "".join(parts) == prompt and (pattern is _WHOLE or self._holds_no_more(parts, messages, now)):
                return parts
        tokens = ((i, self._controls.search(message["content"])) for i, message in enumerate(messages))
        i, token = next(((i, token[0]) for i, token in tokens if token), (0, ""))
        if not token and self._holds_no_more([prompt], messages, now):
            return [prompt]
        what = f"{token}, by which" if token else "pieces of control tokens, from which"
        allowed = f"a text without {what} the model's chat template decides what to write"
        raise InvalidRequest(f"messages[{i}].content", messages[i]["content"], allowed)

    def _holds_no_more(self, parts: list[str], messages: list[dict[str, str]], now: datetime) -> bool:
        """Whether the template's parts hold no control token that it made of a content, by an edit for example."""
        firsts = re.compile("|".join(sorted({re.escape(token.strip()[0]) for token in self._control})) or "(?!)")
        others = [message | {"content": firsts.sub(_OTHER, message["content"])} for message in messages]
        try:
            own = len(self._controls.findall(self._rendered(others, now)))
        except TemplateError:
            return False
        return sum(len(self._controls.findall(part)) for part in parts[::2]) <= own

    def _encode_parts(self, parts: list[str]) -> list[int]:
        pieces = []
        for i, part in enumerate(parts):
            splits = [part] if i % 2 else re.split(f"({self._controls.pattern})", part)
            pieces += [(text, bool(j % 2)) for j, text in enumerate(splits) if text]
        ids: list[int] = []
        text, strip_next = "", False
        for piece, is_control in pieces:
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

    def _rendered(self, messages: list[dict[str, str]], now: datetime | None = None) -> str:
        if "developer" not in self.source:  # for such a template it is the system message
            messages = [m | {"role": m["role"].replace("developer", "system")} for m in messages]
        variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
        clock = (now or datetime.now()).strftime
        try:
            return self._template.render(**variables, **self._special, strftime_now=clock)
        except TemplateError:
            raise
        except Exception as error:  # a template is a program, and may fail as any other
            raise TemplateError(f"{type(error).__name__}: {error}") from error

    def plain_ids(self, text: str) -> list[int]:
        """Return the ids of a text in which nothing counts as a control token."""
        return self._plain.encode(text, add_special_tokens=False).ids if text else []


def _taken_out(pattern: re.Pattern[str], content: str, texts: list[str]) -> str:
    """Replace each match in a content by a mark, and append the matched texts to `texts`."""

    def mark(match: re.Match[str]) -> str:
        texts.append(match[0])
        return _MARK.format(len(texts) - 1)

    return pattern.sub(mark, content)


def _tokenizer(description: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    # A file may prescribe a length, which transformers ignores unless a caller wants it.
    return Tokenizer.from_str(json.dumps({**description, "truncation": None, "padding": None}))


class _Refused(TemplateError):
    """The template itself refuses a conversation."""


def _refuse(message: str) -> None:
    raise _Refused(message)
