"""From chat messages to the token ids of a prompt, by the model's own chat template.

A message's content is data: whatever a user types, control tokens such as `<|end|>` come from the chat template
alone. That is why messages become token ids here and not a prompt string.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
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
# Private-use characters that replace a letter of what could become a control token, and a whole one.
_OTHER, _OUT = "\ue002", "\ue003"


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
        self._config = self._read_config()
        self._tokenizer = self._read_tokenizer()
        self._special = self._read_special_tokens()
        self._missing = self._read_missing_tokens()
        self.source = rendering.read_source(self._folder, self._config)
        try:
            self._template = rendering.compiled(self.source)
            prompts = {self._rendered([{"role": "user", "content": text}]) for text in ("Yes", "No")}
            self._check_tokens(prompts)
        except rendering.Refused:
            return  # the template works, and wants another conversation
        except TemplateError as error:
            raise WeightsError(f"The chat template of {folder} does not work: {error}. Use plain prompts.") from error
        if len(prompts) == 1:
            raise WeightsError(f"The chat template of {folder} leaves the question out. Use plain prompts.")

    def _read_config(self) -> dict[str, Any]:
        config, legacy = folders.read_json(self._folder / "tokenizer_config.json"), "special_tokens_map.json"
        if config.get("split_special_tokens"):
            raise WeightsError(f"{self._folder}: `split_special_tokens` in tokenizer_config.json cannot be used here.")
        is_legacy = (self._folder / legacy).exists() and "added_tokens_decoder" not in config
        return config | (folders.read_json(self._folder / legacy) if is_legacy else {})

    def _read_tokenizer(self) -> Any:
        decoder = self._config.get("added_tokens_decoder")
        flags = {token.get("content"): token for token in _values(decoder) if isinstance(token, dict)}
        try:
            for token in self._added():  # where the two files differ, transformers believes tokenizer_config.json
                if own := flags.get(token["content"]):
                    unset = dict.fromkeys(("lstrip", "rstrip", "single_word", "special"), False)
                    token |= {**unset, "normalized": not own.get("special"), **own, "id": token["id"]}
            return _tokenizer(self._tokenizer_json)
        except Exception as error:  # the library raises no other kind
            path = self._folder / "tokenizer.json"
            raise WeightsError(f"{path} holds no tokenizer: {error}. Copy or fetch it again.") from None

    def _read_special_tokens(self) -> dict[str, str]:
        named = {name: token for name, token in self._config.items() if name.endswith("_token")}
        for name in ("model_specific_special_tokens", "extra_special_tokens"):
            entries = self._config.get(name)
            named |= entries if isinstance(entries, dict) else {}
        texts = {name: _text(token) for name, token in named.items()}
        return {name: text for name, text in texts.items() if text}

    def _read_missing_tokens(self) -> set[str]:
        """Read the tokens that transformers adds to those of `tokenizer.json`."""
        path = self._folder / "added_tokens.json"
        declared = [*self._special.values(), *(folders.read_json(path) if path.exists() else ())]
        for name in ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"):
            declared += map(_text, _values(self._config.get(name)))
        return set(filter(None, declared)) - {token["content"] for token in self._added()}

    def _check_tokens(self, texts: Iterable[str]) -> None:
        for token in sorted(self._missing):
            if not token.strip() or any(token in text for text in texts):
                path = self._folder / "tokenizer.json"
                raise WeightsError(f"{path} lacks the token {token!r} of the chat template. Fetch it again.")

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
            pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
            merges = [pair for pair in pairs if self._control.keys().isdisjoint({*pair, "".join(pair)})]
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
        model = self._tokenizer_json["model"]
        number = model.get("unk_id")  # of a Unigram model
        unknown = model.get("unk_token") if number is None else model["vocab"][number][0]
        return None if unknown in ends else unknown

    @cached_property
    def _counted(self) -> set[int]:
        """The ids of control tokens, without that of an unknown character."""
        return {token["id"] for token in self._control.values() if token["content"] != self._unknown}

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
        self._check_tokens(parts[::2])
        ids = list(self._tokenizer.encode(prompt, add_special_tokens=False).ids)
        own = [token for part in parts[::2] for token in self._controls.findall(part) if token != self._unknown]
        return ids if sum(i in self._counted for i in ids) == len(own) else self._encode_parts(parts)

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
            if "".join(parts) == prompt and (pattern is _WHOLE or self._makes_no_token(messages, now)):
                return parts
        tokens = ((i, self._controls.search(message["content"])) for i, message in enumerate(messages))
        i, token = next(((i, token[0]) for i, token in tokens if token), (0, ""))
        if not token and self._makes_no_token(messages, now):
            return [prompt]
        what = f"{token}, by which" if token else "pieces of control tokens, from which"
        allowed = f"a text without {what} the model's chat template decides what to write"
        raise InvalidRequest(f"messages[{i}].content", messages[i]["content"], allowed)

    def _makes_no_token(self, messages: list[dict[str, str]], now: datetime) -> bool:
        """Whether the template makes no control token of pieces of the contents, by an edit for example.

        One letter of the control tokens after the other is replaced in the contents. Where the replacement then stands
        in what the letter would make a control token, that token comes from a content. Whole ones are left out.
        """
        bare = [message | {"content": self._controls.sub(_OUT, message["content"])} for message in messages]
        for letter in sorted(set("".join(self._control))):
            either_case = re.compile(re.escape(letter), re.IGNORECASE)
            others = [message | {"content": either_case.sub(_OTHER, message["content"])} for message in bare]
            if others == bare:
                continue
            try:
                prompt = self._rendered(others, now)
            except TemplateError:
                return False
            tokens = self._controls.finditer(prompt.replace(_OTHER, letter))
            if any(_OTHER in prompt[token.start() : token.end()] for token in tokens):
                return False
        return True

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
        """Return the ids of a text in which nothing counts as a control token.

        Raises:
            InvalidRequest: the tokenizer writes an unknown character as the token that ends a text.
        """
        ids = self._plain.encode(text, add_special_tokens=False).ids if text else []
        if self._counted.isdisjoint(ids):
            return ids
        raise InvalidRequest("messages", text, "a text without what the tokenizer can only write as a control token")


def _taken_out(pattern: re.Pattern[str], content: str, texts: list[str]) -> str:
    """Replace each match in a content by a mark, and append the matched texts to `texts`."""

    def mark(match: re.Match[str]) -> str:
        texts.append(match[0])
        return _MARK.format(len(texts) - 1)

    return pattern.sub(mark, content)


def _values(entries: Any) -> list[Any]:
    """The entries of a list or an object in a tokenizer's files; of anything else none."""
    return list(entries.values()) if isinstance(entries, dict) else entries if isinstance(entries, list) else []


def _text(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _tokenizer(description: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    # A file may prescribe a length, which transformers ignores unless a caller wants it.
    return Tokenizer.from_str(json.dumps({**description, "truncation": None, "padding": None}))
