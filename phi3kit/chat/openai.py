"""OpenAI's shapes, written once: completion, chunk, usage and error; `Gathered` collects the chunks of one stream."""

import json
import time
import uuid
from typing import Any

from phi3kit.errors import InvalidRequest

# Options that have no effect here, each with the value that asks for none: any other value is refused.
NEUTRAL: dict[str, Any] = {
    "n": 1,
    "stream": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "tools": [],
    "tool_choice": "none",
    "functions": [],
}


def refuse_other_than(neutral: dict[str, Any], fields: dict[str, Any]) -> None:
    """Take options out of `fields` that may only have their neutral value.

    Raises:
        InvalidRequest: naming an option that has another.
    """
    for name, only in neutral.items():
        # To Python, True is 1.
        if (value := fields.pop(name, only)) != only or isinstance(value, bool) != isinstance(only, bool):
            raise InvalidRequest(name, value, f"{json.dumps(only)}, or leave it out: there is no other")


def rename_max_tokens(fields: dict[str, Any]) -> str:
    """Rename OpenAI's newer `max_completion_tokens` to `max_tokens`, and return the name that the caller wrote.

    Raises:
        InvalidRequest: both are there.
    """
    if "max_completion_tokens" not in fields:
        return "max_tokens"
    if "max_tokens" in fields:
        raise InvalidRequest("max_tokens", fields["max_tokens"], "either this or max_completion_tokens")
    fields["max_tokens"] = fields.pop("max_completion_tokens")
    return "max_completion_tokens"


def plain_messages(messages: Any) -> Any:
    """Return messages with contents in parts of text joined to one text; what is no such content stays as it is."""
    if not isinstance(messages, list):
        return messages
    return [
        message | {"content": _joined(f"messages[{i}].content", message["content"])}
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        else message
        for i, message in enumerate(messages)
    ]


def _joined(field: str, parts: list[Any]) -> str:
    for i, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{field}[{i}]", part, 'a part such as {"type": "text", "text": "Hello!"}')
    return "".join(part["text"] for part in parts)


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int | None = None) -> dict[str, Any]:
    """Return how many tokens one request read and generated, and how many of the prompt were in a cache."""
    counts: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return counts


def chat_completion(
    *, model: str, text: str, finish_reason: str, usage: dict[str, Any], logprobs: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return one chat completion with one choice.

    Args:
        model: the name of the model that answered.
        text: the answer.
        finish_reason: `stop` or `length`.
        usage: as `usage` returns it.
        logprobs: an entry for each token, as `logprob` returns it, where they were asked for.
    """
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": text},
    }
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    return _head("chat.completion", model) | {"choices": [choice], "usage": usage}


class Chunks:
    """Makes the chunks of one streamed completion; they share an id and a time.

    Args:
        model: the name of the model that answers.
    """

    def __init__(self, model: str) -> None:
        self._head = _head("chat.completion.chunk", model)
        self._delta = {"role": "assistant"}  # the first chunk names the role

    def piece(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Return the chunk that carries the next piece of text."""
        delta, self._delta = self._delta | {"content": text}, {}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        if logprobs is not None:
            choice["logprobs"] = {"content": logprobs}
        return self._head | {"choices": [choice]}

    def end(self, finish_reason: str, usage: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the chunk that ends the answer, with the usage where one is given."""
        end = self._head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}
        return end | ({"usage": usage} if usage else {})

    def usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return OpenAI's last chunk of a stream with `include_usage`: it has no choices."""
        return self._head | {"choices": [], "usage": usage}


class Gathered:
    """Collects the chunks of one stream.

    Attributes:
        text: the answer.
        finish_reason: None until the last chunk.
        usage: empty until a chunk carries it.
    """

    def __init__(self) -> None:
        self.text = ""
        self.finish_reason: str | None = None
        self.usage: dict[str, int] = {}
        self._head: dict[str, Any] = {}

    def add(self, chunk: dict[str, Any]) -> str:
        """Take the next chunk, or a whole completion, and return the text that it adds."""
        choice = chunk["choices"][0] if chunk["choices"] else {}
        piece = (choice.get("delta") or choice.get("message") or {}).get("content") or ""
        self.text += piece
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self.usage = chunk.get("usage") or self.usage
        self._head = self._head or {name: chunk[name] for name in ("id", "created", "model") if name in chunk}
        return piece

    def completion(self) -> dict[str, Any]:
        """Return the same answer as one chat completion."""
        choice = {"index": 0, "finish_reason": self.finish_reason}
        choice |= {"message": {"role": "assistant", "content": self.text}}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": self.usage}


def completion(result: object) -> dict[str, Any]:
    """Return the one chat completion in what a wrapped model's `predict` returned.

    A wrapped chat model returns a list with one completion for each request.

    Raises:
        InvalidRequest: when there is not exactly one completion in it.
    """
    answer = result[0] if isinstance(result, list) and len(result) == 1 else result
    if not isinstance(answer, dict) or not answer.get("choices"):
        raise InvalidRequest("result", result, "one chat completion, or a list that holds one")
    return answer


def logprob(token: str, value: float, top: list[tuple[str, float]]) -> dict[str, Any]:
    """Return the entry of one token: its text, the logarithm of its probability, and the likeliest tokens'."""
    entry = {"token": token, "logprob": value, "bytes": list(token.encode())}
    tops = [{"token": text, "logprob": each, "bytes": list(text.encode())} for text, each in top]
    return entry | {"top_logprobs": tops}


def error(message: str, *, type: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return an error body; OpenAI's clients read all four fields.

    Args:
        message: one sentence for a person.
        type: the kind of error, for example `invalid_request_error`.
        param: the field that was refused, if one was.
        code: a machine-readable code.
    """
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def _head(kind: str, model: str) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "object": kind, "created": int(time.time()), "model": model}
