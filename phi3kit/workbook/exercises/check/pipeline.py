"""The checks of TransformerPipeline that need its model or its tokenizer.

Both are the notebook's own, so that the checks hold for any model that it runs with.
"""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from phi3kit import chat, weights
from phi3kit.workbook.exercises.check.verdict import Wrong, call, describe, exercise, shorten

Messages = list[dict[str, str]]

_GREETING = [{"role": "user", "content": "Good morning!"}]
_BRIEF = {"role": "system", "content": "Be brief."}
_TALK = [
    {"role": "user", "content": "Where is Oslo?"},
    {"role": "assistant", "content": "In Norway."},
    {"role": "user", "content": "And Turin?"},
    {"role": "assistant", "content": "It is in Italy, in the north."},
    {"role": "user", "content": "Where is Quito?"},
    {"role": "assistant", "content": "In Ecuador."},
    {"role": "user", "content": "And Lima?"},
]
_STORY = [
    {"role": "system", "content": "You tell stories."},
    {"role": "user", "content": "Tell me a story."},
    {"role": "assistant", "content": "Once upon a time there was a fox who lived near a river."},
    {"role": "user", "content": "Go on with the story."},
]


@exercise(steps=4)
def chat_prompt(my_prompt: Callable[[Messages], str], tokenizer: Any) -> Iterator[str]:
    """Whether a prompt has the token ids that the model's own chat template makes.

    Args:
        my_prompt: takes chat messages and returns the prompt as one text.
        tokenizer: the model's, as `transformers` loads it.
    """
    conversations = {
        "One question becomes the token ids of the model's own chat template.": _GREETING,
        "So does a question after a system message.": [_BRIEF, *_GREETING],
        "So does a conversation of seven turns.": _TALK,
        "So does a question of two lines.": [{"role": "user", "content": "Translate into Spanish:\nGood night, moon."}],
    }
    errors = {
        KeyError: "A message has two keys, role and content.",
        TypeError: "`messages` is a list of dicts, each with a text under role and under content.",
    }
    for sentence, messages in conversations.items():
        expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        text = call(my_prompt, copy.deepcopy(messages), expected=expected, hints=errors)
        if not isinstance(text, str):
            raise Wrong(shorten(text), expected, "Your function has to `return` one text, joined from its parts.")
        ids, expected_ids = (tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, expected))
        if ids != expected_ids:
            raise Wrong(shorten(text), expected, _prompt_hint(text, messages))
        yield sentence


def _prompt_hint(text: str, messages: Messages) -> str:
    if "<|im_" in text or "[INST]" in text:
        return "This is the chat format of another family of models. The cell above printed the format of this one."
    tokens = re.findall(r"<\|(system|user|assistant|end)\|>", text)
    if not tokens:
        return "Your text has no control token: look again at what the cell above printed for a single question."
    if not text.rstrip().endswith("<|assistant|>"):
        return "A model only continues a text: what must be at its end, so that it goes on with the assistant's turn?"
    if not all(message["content"] in text for message in messages):
        return "Every message has to be in the text, unchanged and in order: loop over `messages`."
    if tokens.count("end") != len(messages):
        return "Each message ends with the same control token, whatever its role; only the turn to come does not."
    if [token for token in tokens if token != "end"][:-1] != [message["role"] for message in messages]:
        return "Each message begins with the control token of its own role."
    return "The control tokens are right. Print `repr(my_prompt(messages))` and compare the text between them."


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
        tokens = call(_tokens, {**options, "messages": messages}, loaded, 6, expected="five tokens", hints=errors)
        if tokens != 5:
            hint = "Words in a message only ask for a short answer. One of the request's options sets the limit."
            if my_request.get("max_tokens", 5) != 5:
                hint = (
                    "The check asks questions of its own. The field is the right one; its value is the "
                    "number of tokens after which an answer is cut off."
                )
            length = "more than five tokens" if tokens > 5 else f"{tokens} tokens"
            raise Wrong(f"an answer of {length} to another question", "an answer of exactly five tokens", hint)
        yield sentence


@exercise(steps=5)
def memory(my_memory: Callable[[Messages, int, Callable[[Messages], int]], Messages], tokenizer: Any) -> Iterator[str]:
    """Whether a conversation loses its oldest questions with their answers, and no more than it must.

    Args:
        my_memory: takes turns, a limit in tokens, and a function that counts the tokens of some turns; returns the
            turns to send.
        tokenizer: the model's, as `transformers` loads it.
    """

    def count_tokens(turns: Messages) -> int:
        return len(tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"])

    whole = [_BRIEF, *_TALK]
    one_less, two_less = [_BRIEF, *_TALK[2:]], [_BRIEF, *_TALK[4:]]
    cases = (
        ("A conversation that fits is sent whole.", whole, whole, count_tokens(whole) + 1),
        ("One that does not loses its oldest question and answer.", whole, one_less, count_tokens(whole) - 1),
        ("It forgets as much as it must and no more, up to the last token.", whole, two_less, count_tokens(two_less)),
        ("It does so without a system message too.", _TALK, _TALK[2:], count_tokens(_TALK) - 1),
    )
    changed = []
    for sentence, turns, right, limit in cases:
        expected = f"at most {limit} tokens:\n{_script(right)}"
        argument = copy.deepcopy(turns)
        result = call(my_memory, argument, limit, count_tokens, expected=expected)
        changed += [argument] if argument != turns else []
        if not (isinstance(result, list) and result and all(turn in turns for turn in result)):
            hint = "Return a list of the turns that are to be sent, each of them unchanged."
            raise Wrong(shorten(result), expected, hint)
        if result != right:
            tokens = count_tokens(result)
            raise Wrong(f"{tokens} tokens:\n{_script(result)}", expected, _memory_hint(result, turns, tokens, limit))
        yield sentence
    if changed:
        hint = "`del`, `pop` and `remove` change the caller's own list: work on a copy, such as `[*turns]`."
        raise Wrong(f"{len(changed[0])} turns in the caller's list", "the list as it was before", hint)
    yield "The caller's list stays as it was."


def _memory_hint(result: Messages, turns: Messages, tokens: int, limit: int) -> str:
    system = turns[:1] if turns[0]["role"] == "system" else []
    rest = result[len(system) :]
    if result[: len(system)] != system:
        return "The system message says how to answer: it stays, and the oldest question after it goes."
    if rest[-1:] != turns[-1:]:
        return "The last turn is the question to be answered now: it always stays."
    if rest != turns[-len(rest) :]:
        return "The newest turns stay, without a gap. If you keep the first one, check whether it is a system message."
    if rest[0]["role"] != "user":
        return "A question and its answer belong together: they stay together and go together."
    if tokens > limit:
        return "The conversation is still too long: remove turns and count again, until it fits."
    return "More of the newest turns would have fit: count after each step, and stop as soon as the rest fits."


def _script(turns: Messages) -> str:
    return "\n".join(f"  {turn['role']}: {turn['content']}" for turn in turns)


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
    call(_tokens, _corrected(my_request, my_field), loaded, 1, expected="an answer", hints={Exception: hint})
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
