"""The checks of TransformerPipeline that need its model: what a request may ask for.

The model is the notebook's own, so that the checks hold for any model that it runs with.
"""

from collections.abc import Iterator
from typing import Any

from phi3kit import chat, weights
from phi3kit.workbook.exercises.check.verdict import Wrong, call, describe, exercise, shorten

_GREETING = [{"role": "user", "content": "Good morning!"}]
_STORY = [
    {"role": "system", "content": "You tell stories."},
    {"role": "user", "content": "Tell me a story."},
    {"role": "assistant", "content": "Once upon a time there was a fox who lived near a river."},
    {"role": "user", "content": "Go on with the story."},
]


@exercise(steps=4)
def short_answer(my_request: dict[str, Any], loaded: Any) -> Iterator[str]:
    """Whether a request's options cut every answer off after exactly five tokens.

    Args:
        my_request: a request with messages and options.
        loaded: the pipeline, logged for chat and loaded as a pyfunc.
    """
    _check_dict(my_request)
    if refusal := _refusal(my_request, loaded):
        hint = "The message names the field and its value. A whole number has no quotes and no decimal point."
        raise Wrong(refusal, "a request that the signature accepts", hint)
    yield "The signature accepts the request."
    if dropped := _dropped(my_request, loaded):
        hint = "Each library has its own name for this limit. Look for the name in the table of the signature."
        raise Wrong(f"{dropped}, which MLflow drops without an error", "fields that the signature names", hint)
    yield "The signature names every field in it."
    options = {name: value for name, value in my_request.items() if name != "messages"}
    refused = "The signature accepts it, but the pipeline does not. Send the one field that counts the answer's tokens."
    if "stop" in options:
        refused = "`stop` ends an answer at a text, and this pipeline does not support it. Another field counts tokens."
    errors: dict[type[Exception], str] = {Exception: refused}
    questions = {
        "Another question is answered with exactly five tokens.": [{"role": "user", "content": "How do plants grow?"}],
        "So is a longer prompt: the limit counts the answer alone.": _STORY,
    }
    for sentence, messages in questions.items():
        # A sixth token shows that the answer does not end after five; a limit of thousands would only take longer.
        request = {**options, "messages": messages}
        tokens = call(_tokens, request, loaded, 6, expected="five tokens", hints=errors, seconds=None)
        if tokens != 5:
            hint = "Words in a message only ask for a short answer. One of the request's options sets the limit."
            if my_request.get("max_tokens", 5) != 5:
                hint = (
                    "The check sends messages of its own, so a change of yours is no limit. `max_tokens` is one: its "
                    "value is the number of tokens after which an answer is cut off."
                )
            length = "more than five tokens" if tokens > 5 else f"{tokens} tokens"
            raise Wrong(f"an answer of {length} to another question", "an answer of exactly five tokens", hint)
        yield sentence


@exercise(steps=4)
def refused_request(my_request: dict[str, Any], my_field: str, loaded: Any) -> Iterator[str]:
    """Whether the schema refuses a request, and `my_field` names the field at fault.

    Args:
        my_request: a request.
        my_field: the name of a field of the signature.
        loaded: the pipeline, logged for chat and loaded as a pyfunc.
    """
    _check_dict(my_request)
    expected, refusal = "a request that the schema refuses", _refusal(my_request, loaded)
    if not refusal:
        try:
            _tokens(my_request, loaded, 1)
        except Exception as error:
            later = describe(error)
        else:
            hint = "Every field has the type that the signature asks for. Give one field a value of another type."
            if dropped := _dropped(my_request, loaded):
                hint = f"A field that the signature does not name, here {dropped}, is dropped and not refused."
            raise Wrong("an answer: the request was not refused", expected, hint)
    yield "The request is refused."
    if not refusal:
        hint = "The schema accepted the request, since it checks only types. This error comes from the pipeline."
        raise Wrong(later, expected, hint)
    yield f"The schema refuses it: {refusal}"
    names = _schema(loaded).input_names()
    if my_field not in names:
        hint = "Name the field as the table of the signature does."
        if my_field in ("role", "content", "name"):
            hint = f"{my_field} is a part of a message: name the field of the request that holds the message."
        raise Wrong(shorten(repr(my_field)), f"one of {', '.join(names)}", hint)
    at_fault = [name for name in names if not _refusal(_corrected(my_request, name), loaded)]
    if my_field not in at_fault:
        hint = (
            "Call `loaded.predict(my_bad_request)` and read the end of the message. Then correct one field at a time."
        )
        if not at_fault:
            hint = "More than one field is at fault. Begin with a request that is answered, and change one thing in it."
        raise Wrong(f"a request that is still refused with {my_field} corrected", "the field at fault", hint)
    yield f"{my_field} is at fault: with that corrected, the schema accepts the request."
    hint = "The schema accepts the corrected request, but the pipeline refuses it. Let only one field be at fault."
    corrected, errors = _corrected(my_request, my_field), {Exception: hint}
    call(_tokens, corrected, loaded, 1, expected="an answer", hints=errors, seconds=None)
    yield "The corrected request is answered."


def _corrected(request: dict[str, Any], field: str) -> dict[str, Any]:
    others = {name: value for name, value in request.items() if name != field}
    return {**others, "messages": _GREETING} if field == "messages" else others


def _check_dict(request: object) -> None:
    if not isinstance(request, dict):
        hint = "Keep the dict, and change what is in it."
        raise Wrong(shorten(request), 'a dict such as {"messages": messages}', hint)


def _schema(loaded: Any) -> Any:
    return loaded.metadata.get_input_schema()


def _refusal(request: dict[str, Any], loaded: Any) -> str:
    """Why the schema refuses a request; empty if it accepts it."""
    from mlflow.models import validate_schema

    try:
        validate_schema(request, _schema(loaded))
    except Exception as error:  # its type depends on the value
        return shorten(str(error))
    return ""


def _dropped(request: dict[str, Any], loaded: Any) -> str:
    return ", ".join(sorted(map(str, request.keys() - set(_schema(loaded).input_names()))))


def _tokens(request: dict[str, Any], loaded: Any, at_most: int) -> int:
    limited = {**request, "max_tokens": min(request.get("max_tokens", at_most), at_most)}
    with weights.offline():  # MLflow's pipeline requests a tokenizer from the hub at each `stop`
        return chat.completion(loaded.predict(limited))["usage"]["completion_tokens"]
