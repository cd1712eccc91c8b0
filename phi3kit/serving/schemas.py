"""`response_format`: from a JSON schema to the grammar that an answer must follow, sizes checked first.

Compiled without a limit, one small schema (`minItems: 1000000`) takes seconds and more than a gigabyte.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from phi3kit.errors import InvalidRequest

MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_COUNT, MAX_PATTERN = 32_000, 32, 2_000, 1_000, 500
_FIELD = "response_format"
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


class Grammars:
    """Makes matchers for one model's tokenizer.

    Args:
        tokenizer_json: the text of `tokenizer.json`.
        vocab_size: token ids are below this.
        end_ids: the tokens that end an answer.
    """

    def __init__(self, tokenizer_json: str, vocab_size: int, end_ids: tuple[int, ...]) -> None:
        from llguidance import LLTokenizer

        self._tokenizer = LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=list(end_ids))

    def matcher(self, response_format: Any) -> Any:
        """Return the `llguidance.LLMatcher` for OpenAI's `response_format`; None where any text is right.

        Raises:
            InvalidRequest: it is not one of OpenAI's three, too large, or no schema that can be followed.
        """
        from llguidance import LLMatcher

        if (schema := checked(response_format)) is None:
            return None
        try:
            matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
            problem = matcher.get_error()
        except ValueError as error:
            problem = str(error)
        if problem:
            raise InvalidRequest(_FIELD, schema, f"a schema that can be followed ({problem.splitlines()[0]:.200})")
        return matcher


def checked(response_format: Any) -> dict[str, Any] | None:
    """Return the schema that an answer must follow; None where any text is right.

    Raises:
        InvalidRequest: it is not one of OpenAI's three, or its schema is too large.
    """
    kind = response_format.get("type") if isinstance(response_format, dict) else response_format
    if kind is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    wrapped = response_format.get("json_schema") if kind == "json_schema" else None
    if not isinstance(wrapped, dict) or not isinstance(wrapped.get("schema"), dict):
        allowed = '{"type": "text"}, {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"schema": {}}}'
        raise InvalidRequest(_FIELD, response_format, allowed)
    _check_size(schema := wrapped["schema"])
    return schema


def _check_size(schema: Any) -> None:
    for nodes, (depth, name, value) in enumerate(_nodes(schema)):
        if depth > MAX_DEPTH or nodes >= MAX_NODES:
            allowed = f"a schema of at most {MAX_DEPTH} levels and {MAX_NODES} values"
            raise InvalidRequest(f"{_FIELD}.json_schema", "...", allowed)
        if name in _COUNTS and isinstance(value, int | float) and not value <= MAX_COUNT:
            raise InvalidRequest(f"{_FIELD}.json_schema.{name}", value, f"at most {MAX_COUNT}")
        if name == "pattern" and isinstance(value, str):
            _check_pattern(value)
        if name == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                _check_pattern(pattern)
    size = len(json.dumps(schema))
    if size > MAX_BYTES:
        raise InvalidRequest(f"{_FIELD}.json_schema", "...", f"a schema of at most {MAX_BYTES} bytes (it has {size})")


def _check_pattern(pattern: str) -> None:
    counts = [int(count) for braces in re.findall(r"\{[\d,]{1,40}\}", pattern) for count in re.findall(r"\d+", braces)]
    # Nested repetitions multiply.
    product = 1
    for count in counts:
        product *= max(count, 1)
    if len(pattern) > MAX_PATTERN or product > MAX_COUNT:
        allowed = f"at most {MAX_PATTERN} characters, and repetitions of at most {MAX_COUNT} together"
        raise InvalidRequest(f"{_FIELD}.json_schema.pattern", pattern, allowed)


def _nodes(schema: Any) -> Iterator[tuple[int, str, Any]]:
    """Every value in a schema, with its depth and its name; without recursion, which a deep one would exhaust."""
    stack: list[tuple[int, str, Any]] = [(0, "", schema)]
    while stack:
        depth, name, value = stack.pop()
        yield depth, name, value
        if isinstance(value, dict):
            stack += [(depth + 1, str(key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            stack += [(depth + 1, "", inner) for inner in value]
