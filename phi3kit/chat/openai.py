"""OpenAI's shapes, written once: completion, chunk, usage and error; `Gathered` collects the chunks of one stream."""

import time
import uuid
from typing import Any

from phi3kit.errors import InvalidRequest


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Return how many tokens one request read and generated."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def chat_completion(*, model: str, text: str, finish_reason: str, usage: dict[str, int]) -> dict[str, Any]:
    """Return one chat completion with one choice.

    Args:
        model: the name of the model that answered.
        text: the answer.
        finish_reason: `stop` or `length`.
        usage: as `usage` returns it.
    """
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    return _head("chat.completion", model) | {"choices": [choice], "usage": usage}


class Chunks:
    """Makes the chunks of one streamed completion; they share an id and a time.

    Args:
        model: the name of the model that answers.
    """

    def __init__(self, model: str) -> None:
        self._head = _head("chat.completion.chunk", model)
        self._delta = {"role": "assistant"}  # the first chunk names the role

    def piece(self, text: str) -> dict[str, Any]:
        """Return the chunk that carries the next piece of text."""
        delta, self._delta = self._delta | {"content": text}, {}
        return self._head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    def end(self, finish_reason: str, usage: dict[str, int]) -> dict[str, Any]:
        """Return the last chunk."""
        return self._head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}], "usage": usage}


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
        choice = chunk["choices"][0]
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
