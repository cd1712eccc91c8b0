"""The checks of TransformerPipeline that need only its tokenizer: a prompt by hand, and a conversation that fits.

The tokenizer is the notebook's own, so that the checks hold for any model that it runs with.
"""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from phi3kit import chat
from phi3kit.workbook.exercises.check.verdict import Wrong, call, exercise, shorten

Messages = list[dict[str, str]]

_TEMPLATE = "the chat template, which is hidden in this exercise"
_BY_HAND = "Write the prompt by hand: neither the tokenizer's chat template nor the kit's may do it for you."
_KEYS = "A message is a dict with two keys: `message['role']` and `message['content']`."

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
        _Hidden: _BY_HAND,
        KeyError: _KEYS,
        AttributeError: _KEYS,
        TypeError: "`messages` is a list of dicts, each with a text under role and under content.",
    }
    for sentence, messages in conversations.items():
        expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        with _hidden_template(tokenizer):
            text = call(my_prompt, copy.deepcopy(messages), expected=expected, hints=errors)
        if not isinstance(text, str):
            raise Wrong(shorten(text), expected, "Your function has to `return` one text, joined from its parts.")
        ids, expected_ids = (tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, expected))
        if ids != expected_ids:
            raise Wrong(shorten(text), expected, _prompt_hint(text, messages))
        yield sentence


class _Hidden(Exception):
    """A function that this exercise does without was called."""


@contextmanager
def _hidden_template(tokenizer: Any) -> Iterator[None]:
    """Hide the text of this tokenizer's chat template; let every tokenizer refuse to apply one, and the kit too."""
    from transformers import PreTrainedTokenizerBase

    refuse = mock.Mock(side_effect=_Hidden(_TEMPLATE))
    with (
        mock.patch.object(tokenizer, "chat_template", _TEMPLATE),
        mock.patch.object(PreTrainedTokenizerBase, "apply_chat_template", refuse),
        mock.patch.multiple(chat.ChatTemplate, encode=refuse, render=refuse),
    ):
        yield


def _prompt_hint(text: str, messages: Messages) -> str:
    if _TEMPLATE in text:
        return _BY_HAND
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
        errors: dict[type[Exception], str] = {KeyError: _KEYS, AttributeError: _KEYS}
        late = "Your loop does not end: in each of its rounds two turns have to go, as in `rest = rest[2:]`."
        result = call(my_memory, argument, limit, count_tokens, expected=expected, hints=errors, late=late)
        changed += [argument] if argument != turns else []
        if not (isinstance(result, list) and result and all(turn in turns for turn in result)):
            hint = "Return a list of the turns that are to be sent, each of them unchanged."
            if not isinstance(result, list | None):
                hint = (
                    f"Yours has the type {type(result).__name__}: return the turns in a list, each of them unchanged."
                )
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
