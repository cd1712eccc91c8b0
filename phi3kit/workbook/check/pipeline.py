"""The checks of TransformerPipeline that need its model or its tokenizer.

Both are the notebook's own, so that the checks hold for whatever model it was run with.
"""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from phi3kit import chat, weights
from phi3kit.workbook.check.verdict import Wrong, called, exercise, shown

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


@exercise(of=4)
def chat_prompt(my_prompt: Callable[[Messages], str], tokenizer: Any) -> Iterator[str]:
    """Whether a text gives the token ids that the model's own chat template gives.

    Args:
        my_prompt: takes chat messages and gives the prompt as one text.
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
    for right, messages in conversations.items():
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        text = called(my_prompt, copy.deepcopy(messages), expected=wanted, hints=errors)
        if not isinstance(text, str):
            raise Wrong(shown(text), wanted, "Give back one text: `return` it, joined from its parts.")
        ids, wanted_ids = (tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, wanted))
        if ids != wanted_ids:
            raise Wrong(shown(text), wanted, _prompt_hint(text, messages))
        yield right


def _prompt_hint(text: str, messages: Messages) -> str:
    if "<|im_" in text or "[INST]" in text:
        return "That is the chat format of another family of models. This one's is what the cell above printed."
    tokens = re.findall(r"<\|(system|user|assistant|end)\|>", text)
    if not tokens:
        return "No control token is in it: look again at what the cell above printed for a single question."
    if not text.rstrip().endswith("<|assistant|>"):
        return "A model only continues a text: what must stand last, so that it goes on with the assistant's turn?"
    if not all(message["content"] in text for message in messages):
        return "Every message has to be in the text as it is: a loop over `messages` takes them in their order."
    if tokens.count("end") != len(messages):
        return "Each message, whoever speaks, ends with the same control token; only the turn to come does not."
    if [token for token in tokens if token != "end"][:-1] != [message["role"] for message in messages]:
        return "Each message begins with the control token of its own role."
    return "The control tokens are right. Print `repr(my_prompt(messages))` and compare what stands between them."


@exercise(of=4)
def short_answer(my_request: dict[str, Any], loaded: Any) -> Iterator[str]:
    """Whether a request's options cut any answer off after exactly five tokens.

    Args:
        my_request: a request with messages and options.
        loaded: the pipeline, logged for chat and loaded as a pyfunc.
    """
    _is_request(my_request)
    if refusal := _refusal(my_request, loaded):
        hint = "The message names the field and what came. A whole number has no quotes and no decimal point."
        raise Wrong(refusal, "a request that the signature takes", hint)
    yield "The signature takes the request."
    if dropped := _dropped(my_request, loaded):
        hint = "Each library has its own word for this limit. Look for the one in the table of the signature."
        raise Wrong(f"{dropped}, which MLflow drops without a word", "fields that the signature names", hint)
    yield "Every field in it is one that the signature names."
    options = {name: value for name, value in my_request.items() if name != "messages"}
    refused = "The pipeline behind the signature refuses it. Send the one field that counts the answer's tokens."
    if "stop" in options:
        refused = "`stop` ends an answer at a text, and this pipeline cannot take it. Another field counts tokens."
    errors: dict[type[Exception], str] = {Exception: refused}
    questions = {
        "Another question is answered with exactly five tokens.": [{"role": "user", "content": "How do plants grow?"}],
        "So is a longer prompt: the limit counts the answer alone.": _STORY,
    }
    for right, messages in questions.items():
        # The sixth token shows that an answer does not end after five; a limit of thousands would only take longer.
        came = called(_tokens, {**options, "messages": messages}, loaded, 6, expected="five tokens", hints=errors)
        if came != 5:
            hint = "Words in a message only ask for a short answer. One of the request's options sets the limit."
            if my_request.get("max_tokens", 5) != 5:
                hint = (
                    "The check asks questions of its own. The field is the right one; its value is the "
                    "number of tokens after which an answer is cut off."
                )
            found = "more than five tokens" if came > 5 else f"{came} tokens"
            raise Wrong(f"an answer of {found} to another question", "an answer of exactly five tokens", hint)
        yield right


@exercise(of=5)
def memory(my_memory: Callable[[Messages, int, Callable[[Messages], int]], Messages], tokenizer: Any) -> Iterator[str]:
    """Whether a conversation loses its oldest questions with their answers, and no more than it must.

    Args:
        my_memory: takes turns, a limit in tokens, and a function that counts the tokens of some turns; gives the turns
            to send.
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
    for right, turns, wanted, limit in cases:
        told = f"at most {limit} tokens:\n{_script(wanted)}"
        given = copy.deepcopy(turns)
        kept = called(my_memory, given, limit, count_tokens, expected=told, hints={})
        changed += [given] if given != turns else []
        if not (isinstance(kept, list) and kept and all(turn in turns for turn in kept)):
            hint = "Give back a list with those of the turns that are to be sent, each as it came."
            raise Wrong(shown(kept), told, hint)
        if kept != wanted:
            tokens = count_tokens(kept)
            raise Wrong(f"{tokens} tokens:\n{_script(kept)}", told, _memory_hint(kept, turns, tokens, limit))
        yield right
    if changed:
        hint = "`del`, `pop` and `remove` change the caller's own list: work on a copy, such as `[*turns]`."
        raise Wrong(f"{len(changed[0])} turns in the list that was given", "the list as it was", hint)
    yield "The list that it was given stays as it was."


def _memory_hint(kept: Messages, turns: Messages, tokens: int, limit: int) -> str:
    system = turns[:1] if turns[0]["role"] == "system" else []
    rest = kept[len(system) :]
    if kept[: len(system)] != system:
        return "The system message says how to answer: it stays, and the oldest question after it goes."
    if rest[-1:] != turns[-1:]:
        return "The last turn is the question that wants an answer now: it always stays."
    if rest != turns[-len(rest) :]:
        return "The newest turns stay, without a gap. If you keep the first one, look whether it is a system message."
    if rest[0]["role"] != "user":
        return "A question and its answer belong together: they stay together and go together."
    if tokens > limit:
        return "It is still too long: forget, count again, and go on until it fits."
    return "More of the newest turns would have fit: count after each step, and stop as soon as the limit is kept."


def _script(turns: Messages) -> str:
    return "\n".join(f"  {turn['role']}: {turn['content']}" for turn in turns)


@exercise(of=4)
def refused_request(my_request: dict[str, Any], my_field: str, loaded: Any) -> Iterator[str]:
    """Whether the schema refuses a request, and the field that is named is the one at fault.

    Args:
        my_request: a request.
        my_field: the name of a field of the signature.
        loaded: the pipeline, logged for chat and loaded as a pyfunc.
    """
    _is_request(my_request)
    expected, refusal = "a request that the schema refuses", _refusal(my_request, loaded)
    if not refusal:
        try:
            _tokens(my_request, loaded, 1)
        except Exception as error:
            later = f"{type(error).__name__}: {shown(str(error))}"
        else:
            hint = "Everything in it has the type that the signature gives. Give one field another type of value."
            if dropped := _dropped(my_request, loaded):
                hint = f"What the signature does not name, here {dropped}, is dropped and not refused."
            raise Wrong("an answer: nobody refused it", expected, hint)
    yield "The request is refused."
    if not refusal:
        hint = "The schema let it through: it looks at types alone. This error came after it, from the pipeline."
        raise Wrong(later, expected, hint)
    yield f"it is the schema that refuses it: {refusal}"
    names = _schema(loaded).input_names()
    if my_field not in names:
        hint = "Name the field as the table of the signature does."
        if my_field in ("role", "content", "name"):
            hint = f"{my_field} is a part of a message: name the field of the request that the message stands in."
        raise Wrong(shown(repr(my_field)), f"one of {', '.join(names)}", hint)
    at_fault = [name for name in names if not _refusal(_mended(my_request, name), loaded)]
    if my_field not in at_fault:
        hint = "Call `loaded.predict(my_bad_request)` and read how the message ends. Then mend one field at a time."
        if not at_fault:
            hint = "More than one field is at fault. Begin with a request that is answered, and change one thing in it."
        raise Wrong(f"a request that is still refused with {my_field} mended", "the field at fault", hint)
    yield f"{my_field} is at fault: with that mended, the schema takes the request"
    hint = "The schema takes it now, and then the pipeline refuses something else. Let one field alone be at fault."
    called(_tokens, _mended(my_request, my_field), loaded, 1, expected="an answer", hints={Exception: hint})
    yield "The mended request is answered."


def _mended(request: dict[str, Any], field: str) -> dict[str, Any]:
    mended = {name: value for name, value in request.items() if name != field}
    return {**mended, "messages": _GREETING} if field == "messages" else mended


def _is_request(request: object) -> None:
    if not isinstance(request, dict):
        raise Wrong(shown(request), 'a dict such as {"messages": messages}', "Keep the dict, and change what is in it.")


def _schema(loaded: Any) -> Any:
    return loaded.metadata.get_input_schema()


def _refusal(request: dict[str, Any], loaded: Any) -> str:
    """Why the schema refuses a request; empty if it does not."""
    from mlflow.models import validate_schema

    try:
        validate_schema(request, _schema(loaded))
    except Exception as error:  # of several kinds, as the values are
        return shown(str(error))
    return ""


def _dropped(request: dict[str, Any], loaded: Any) -> str:
    return ", ".join(sorted(map(str, request.keys() - set(_schema(loaded).input_names()))))


def _tokens(request: dict[str, Any], loaded: Any, at_most: int) -> int:
    brief = {**request, "max_tokens": min(request.get("max_tokens", at_most), at_most)}
    with weights.offline():  # MLflow's pipeline asks a hub for a tokenizer at each `stop`
        return chat.completion(loaded.predict(brief))["usage"]["completion_tokens"]
