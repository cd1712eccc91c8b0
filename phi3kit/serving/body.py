"""The body of `/v1/chat/completions`: what is honoured, accepted without effect, or refused by name."""

import json
from dataclasses import dataclass
from typing import Any

from phi3kit.chat import openai
from phi3kit.chat.messages import ROLES
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Options
from phi3kit.generation.options import declared

MOST_LOGPROBS = 20  # OpenAI's own limit
_OPTIONS = {option.name: option for option in declared()}
_OURS = ("messages", "model", "max_completion_tokens", "stream", "stream_options", "response_format")
_OURS += ("logprobs", "top_logprobs")
_WITHOUT_EFFECT = ("user", "metadata")
_NEUTRAL = {name: value for name, value in {**openai.NEUTRAL, "store": False}.items() if name not in _OURS}
_KNOWN = {*_OPTIONS, *_OURS, *_WITHOUT_EFFECT, *_NEUTRAL}


@dataclass(frozen=True)
class ChatRequest:
    """A checked request.

    Attributes:
        messages: as they came; the chat template checks them.
        model: the name that was asked for; None where none was.
        options: how to generate.
        stream: whether the answer is wanted piece by piece.
        include_usage: whether a stream ends with the usage.
        response_format: OpenAI's, unchecked.
        top_logprobs: how many likeliest tokens to report with each token; None reports nothing.
        limit_name: what the caller wrote for `max_tokens`.
    """

    messages: Any
    model: str | None
    options: Options
    stream: bool
    include_usage: bool
    response_format: Any
    top_logprobs: int | None
    limit_name: str


def parse(raw: bytes) -> ChatRequest:
    """Check the bytes of a body.

    Raises:
        InvalidRequest: naming the first field that is wrong or that this server does not know.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("body", "...", f"a JSON object in UTF-8 ({error})") from None
    if not isinstance(body, dict):
        raise InvalidRequest("body", body, 'an object such as {"messages": [...]}')
    fields = {name: value for name, value in body.items() if value is not None}
    if unknown := sorted(fields.keys() - _KNOWN):
        raise InvalidRequest(unknown[0], fields[unknown[0]], "only fields that this server knows: leave it out")
    openai.refuse_other_than(_NEUTRAL, fields)
    if "messages" not in fields:
        raise InvalidRequest("messages", None, 'a list such as [{"role": "user", "content": "Hello!"}]')
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidRequest("model", model, "a name that /v1/models lists")
    stream = _flag(fields, "stream")
    stream_options = fields.get("stream_options", {})
    if (
        not isinstance(stream_options, dict)
        or stream_options.keys() - {"include_usage"}
        or (stream_options and not stream)
    ):
        raise InvalidRequest("stream_options", stream_options, '{"include_usage": true}, and that with "stream": true')
    limit_name = openai.rename_max_tokens(fields)
    try:
        options = Options(**{name: fields[name] for name in _OPTIONS if name in fields})
    except InvalidRequest as refused:
        raise refused.renamed("max_tokens", limit_name) from None
    return ChatRequest(
        messages=openai.plain_messages(fields["messages"]),
        model=model,
        options=options,
        stream=stream,
        include_usage=_flag(stream_options, "include_usage"),
        response_format=fields.get("response_format"),
        top_logprobs=_top_logprobs(fields),
        limit_name=limit_name,
    )


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(name, value, "true or false")
    return value


def _top_logprobs(fields: dict[str, Any]) -> int | None:
    wanted, count = _flag(fields, "logprobs"), fields.get("top_logprobs", 0)
    if type(count) is not int or not 0 <= count <= MOST_LOGPROBS or (count and not wanted):
        raise InvalidRequest(
            "top_logprobs", count, f'a whole number to {MOST_LOGPROBS}, and that with "logprobs": true'
        )
    return count if wanted else None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a body, for the server's OpenAPI document."""
    text = {"type": "string", "minLength": 1}
    parts = {"type": "array", "items": _object({"type": {"const": "text"}, "text": {"type": "string"}}, "type", "text")}
    content = {"anyOf": [{"type": "string"}, parts, {"type": "null"}]}
    message = _object({"role": {"enum": list(ROLES)}, "content": content}, "role")
    properties: dict[str, Any] = {
        "messages": {"type": "array", "items": message, "minItems": 1},
        "model": {"type": ["string", "null"]},
        "stream": {"type": ["boolean", "null"]},
        "stream_options": {"type": ["object", "null"]},
        "response_format": {"type": ["object", "null"]},
        "logprobs": {"type": ["boolean", "null"]},
        "top_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": MOST_LOGPROBS},
        **{name: {} for name in _WITHOUT_EFFECT},
        **{name: {"enum": [value, None]} for name, value in _NEUTRAL.items()},
    }
    for option in declared():
        if option.many:
            kind: dict[str, Any] = {"anyOf": [text, {"type": "array", "items": text}, {"type": "null"}]}
        else:
            kind = {"type": ["integer" if option.type is int else "number", "null"]}
            limits = {"minimum": option.least, "maximum": option.most}
            kind |= {name: limit for name, limit in limits.items() if abs(limit) < float("inf")}
        properties[option.name] = kind | {"description": option.help}
    properties["max_completion_tokens"] = properties["max_tokens"]
    return _object(properties, "messages")


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
