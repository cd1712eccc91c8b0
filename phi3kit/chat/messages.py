"""Chat messages as a caller sends them, checked before anything reads them."""

import re
from collections.abc import Mapping, Sequence

from phi3kit.errors import InvalidRequest

ROLES = ("system", "developer", "user", "assistant")  # developer is OpenAI's newer name for system
# What else a message has in OpenAI's API. Clients send these back without a value; with one they are refused.
OPENAI_FIELDS = ("name", "refusal", "tool_calls", "tool_call_id", "function_call", "audio", "annotations")

# Half of a UTF-16 pair: JSON can carry one, no tokenizer takes it.
_SURROGATE = re.compile("[\ud800-\udfff]")


def check(messages: object) -> list[dict[str, str]]:
    """Check chat messages and return them as plain dicts.

    Args:
        messages: a sequence of `{"role": ..., "content": ...}`; fields that are None or an empty list are ignored.
            Only a user's content must not be empty: a stop string may have cut an answer at its start.

    Returns:
        The messages with exactly the keys `role` and `content`.

    Raises:
        InvalidRequest: naming the field, its value and what is allowed.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise InvalidRequest("messages", messages, 'a list such as [{"role": "user", "content": "Hello!"}]')
    checked = [_check_one(f"messages[{i}]", message) for i, message in enumerate(messages)]
    if checked[-1]["role"] != "user":
        raise InvalidRequest(f"messages[{len(checked) - 1}].role", checked[-1]["role"], "user in the last message")
    return checked


def _check_one(field: str, message: object) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise InvalidRequest(field, message, "an object with role and content")
    present = {key: value for key, value in message.items() if value is not None and value != []}
    if unknown := [key for key in present if key not in ("role", "content")]:
        raise InvalidRequest(f"{field}.{unknown[0]}", present[unknown[0]], "only role and content")
    role, content = present.get("role"), present.get("content")
    if role not in ROLES:
        raise InvalidRequest(f"{field}.role", role, f"one of {', '.join(ROLES)}")
    if role == "assistant" and content is None:
        content = ""
    empty = role == "user" and isinstance(content, str) and not content.strip()
    if not isinstance(content, str) or empty or _SURROGATE.search(content):
        raise InvalidRequest(f"{field}.content", content, "a text that is not empty, in whole Unicode characters")
    return {"role": str(role), "content": content}
