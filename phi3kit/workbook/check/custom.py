"""The checks of CustomPythonWrapper that need no stored model: rows, a stop sequence, a deadline."""

import inspect
import time
from collections.abc import Iterator
from typing import Any

from phi3kit.workbook.check.verdict import Wrong, called, exercise, shown

_QUESTIONS = ("What does a baker do?", "Why is the sky blue?", "What is the capital of Italy?", "Who wrote Hamlet?")
_QUESTIONS += ("What is water made of?", "What is the sun?", "How do birds fly?")
_PAUSE, _DEADLINE, _ENOUGH = 0.02, 0.5, 100  # an endless answer is read to its end only long after its deadline


@exercise(of=5)
def every_row(my_predict: Any) -> Iterator[str]:
    """A function of `answer` and a table gives a list with the answer to each row's prompt, in order."""
    _all_answered(my_predict, ["Name a sea.", "Name a lake.", "Name a bay."], "The column's name is `prompt`.")
    yield "Three rows get three answers, in order."
    counted = "These rows are numbered from 7, as after filtering: take the column's values, and count nothing."
    _all_answered(my_predict, ["Name a hill.", "Name an alp."], counted, first=7)
    yield "So do rows that are numbered from 7."
    _all_answered(my_predict, ["Sing!", "Hum!", "Sing!"], "Who asks twice gets two answers: keep what is repeated.")
    yield "A prompt that comes twice is answered twice."
    _all_answered(my_predict, ["Name a cape."], "One row is a table too: a list with one answer.")
    yield "One row gets a list with one answer."
    _all_answered(my_predict, [], "Nothing was asked: there is no first row to take out of this table.")
    yield "No rows get an empty list."


def _all_answered(my_predict: Any, prompts: list[str], hint: str, first: int = 0) -> None:
    import pandas as pd

    table = pd.DataFrame({"prompt": prompts}, index=range(first, first + len(prompts)), dtype=object)
    right = [_answer(prompt) for prompt in prompts]
    expected = f"{right} for {prompts}"
    one = "`answer` takes one prompt, a text: call it once for each row."
    came = called(my_predict, _answer, table, expected=expected, hints={TypeError: one, LookupError: hint})
    if not isinstance(came, list):
        raise Wrong(shown(came) or "an empty text", expected, _not_a_list(came, right))
    if came != right:
        if sorted(map(str, came)) == sorted(right):
            hint = "The answers are there, in another order: only their order tells which row each one answers."
        elif came == [_answer(column) for column in table]:
            hint = "A loop over a table gives the names of its columns. Loop over the column `prompt` of it."
        elif len(came) < len(set(right)):
            hint = "Rows are dropped without a word: go through the whole column."
        raise Wrong(shown(came), expected, hint)


def _answer(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise TypeError(f"answer takes one prompt, and a {type(prompt).__name__} came")
    return f"<{prompt}>"


def _not_a_list(came: object, right: list[str]) -> str:
    if came is None:
        return "Nothing came back: is there a `return`?"
    if isinstance(came, str):
        if len(right) == 1:
            return "One row is a table too: a list with one answer."
        if all(text in came for text in right):
            return "Joined into one text, the answers cannot be told apart any more: a list keeps each in its place."
        return "`[0]` takes the row numbered 0, and the others are dropped without a word: go through the whole column."
    if isinstance(came, set | dict):
        return "A set or a dict keeps one of what comes twice: a list has a place for each row."
    return f"A {type(came).__name__} is no list: make a list of it, or build one between square brackets."


@exercise(of=3)
def stop_sequence(my_params: Any, prompts: Any) -> Iterator[str]:
    """With these params, `Phi3Model` (loaded with MLflow) ends each answer before its first full stop."""
    from mlflow.exceptions import MlflowException

    expected = "answers that end before their first full stop"
    cut = "`max_tokens` counts tokens and knows no sentences: it may cut one in half. Give it room, and stop at a text."
    if not isinstance(my_params, dict) or "stop" not in my_params:
        shortened = isinstance(my_params, dict) and my_params.get("max_tokens", 40) != 40
        look = "One of the params in the signature above ends an answer at a text of your choice. Spell it as there."
        raise Wrong(shown(my_params), expected, cut if shortened else look)
    asked = [{"prompt": f"<|user|>{question}<|end|><|assistant|>"} for question in _QUESTIONS]
    many = "The signature says `(shape: (-1,))` there: a list of texts, even if it holds one."
    hints: dict[type[Exception], str] = {} if isinstance(my_params["stop"], list) else {MlflowException: many}
    answers = called(prompts.predict, asked, my_params, expected=expected, hints=hints)
    yield "MLflow takes it: `stop` is a list of texts."
    # A sentence that ends within 32 tokens needs no more of them; the stub gives 40.
    whole = [text.partition(".") for text in prompts.predict(asked, {"max_tokens": 32})]
    pairs = [(came, before) for came, (before, full_stop, _) in zip(answers, whole, strict=True) if full_stop]
    if beyond := [came for came, _ in pairs if "." in came]:
        hint = "What stops one answer need not stand in the next. What ends the first sentence of every answer?"
        if ". " in my_params["stop"]:
            hint = "The full stop at the very end of an answer has no space after it."
        if any("<|" in stop for stop in my_params["stop"]):
            hint = "`<|end|>` ends every answer anyway. Stop the model earlier, at something that you can read."
        raise Wrong(shown(beyond[0]), expected, hint)
    yield "No answer has a full stop in it."
    for came, before in pairs:
        if came != before:
            hint = cut
            if not before.startswith(came):
                hint = "This is another answer, and not only a shorter one: leave the other params as they were."
            elif before.removeprefix(came).startswith(tuple(my_params["stop"])):
                hint = "One of your stops stands within this sentence: take it out."
            raise Wrong(shown(came), before, hint)
    yield "Every first sentence is whole."


@exercise(of=4)
def deadline(my_deadline: Any) -> Iterator[str]:
    """A function of an iterator of texts and of seconds gives the text that came in time, and closes the iterator."""
    in_time = "Whoever waits wants the text so far, and no error: leave the loop and return it."
    ended = "`next` raises this when the answer has ended; `for` ends with it."
    hints: dict[type[Exception], str] = {TimeoutError: in_time, StopIteration: ended}
    none = "Nothing came back: is there a `return`, and does an answer that ends before its time reach it?"
    taken: list[str] = []
    expected = "all 20 pieces of an answer that has an hour, as one text"
    came = called(my_deadline, _pieces(taken, 20), 3600.0, expected=expected, hints=hints)
    if len(taken) < 20 or came != "".join(taken):
        hint = "Return one text." if not isinstance(came, str) else "The answer had an hour: leave it the time it has."
        raise Wrong(shown(came), expected, none if came is None else hint)
    yield "With time enough, the whole answer comes."
    taken, expected, began = [], f"what came of an endless answer within {_DEADLINE} s", time.monotonic()
    came = called(my_deadline, endless := _pieces(taken, _ENOUGH), _DEADLINE, expected=expected, hints=hints)
    waited = time.monotonic() - began
    # Each piece took its pause at least, on a slow machine more: who looks at the clock has left long before.
    if len(taken) == _ENOUGH:
        hint = "Look at the clock after each piece: an endless answer has no afterwards."
        raise Wrong(f"still reading after {_ENOUGH} pieces, four times the deadline", expected, hint)
    if waited < 0.9 * _DEADLINE:  # a clock may be coarse
        raise Wrong(f"it left after {waited:.2f} s", expected, "It left too early: `seconds` are seconds.")
    yield "An endless answer is left when its time is over."
    if came != "".join(taken):
        lost = "The last piece was taken, and is lost: add it to the text before you look at the clock."
        raise Wrong(shown(came), "every piece that was taken", lost if came == "".join(taken[:-1]) else in_time)
    yield "No piece that came is lost."
    if inspect.getgeneratorstate(endless) != inspect.GEN_CLOSED:
        endless.close()
        hint = (
            "Who only leaves the loop leaves the model in the middle of its answer, with its memory: such an iterator "
            "has a method that ends it."
        )
        raise Wrong("the iterator, still open", "the iterator closed", hint)
    yield "The iterator is closed, so that the model stops."


def _pieces(taken: list[str], count: int) -> Any:
    for number in range(count):
        time.sleep(_PAUSE)
        taken.append(f"piece {number} ")
        yield taken[-1]
