"""The checks of CustomPythonWrapper that need no stored model: rows, a stop sequence, a deadline."""

import inspect
import time
from collections.abc import Iterator
from typing import Any

from phi3kit.workbook.exercises.check.verdict import Wrong, call, exercise, shorten

_QUESTIONS = ("What does a baker do?", "Why is the sky blue?", "What is the capital of Italy?", "Who wrote Hamlet?")
_QUESTIONS += ("What is water made of?", "What is the sun?", "How do birds fly?")
_PAUSE, _DEADLINE = 0.02, 0.5  # seconds
_MANY = 100  # pieces of the "endless" answer: reading all of them takes four times the deadline


@exercise(steps=5)
def every_row(my_predict: Any) -> Iterator[str]:
    """A function of `answer` and a table returns a list with the answer to each row's prompt, in order."""
    _check_table(my_predict, ["Name a sea.", "Name a lake.", "Name a bay."], "The column's name is `prompt`.")
    yield "Three rows get three answers, in order."
    numbers = "The rows of this table are numbered from 7, as after filtering: loop over the values of the column."
    _check_table(my_predict, ["Name a hill.", "Name an alp."], numbers, first=7)
    yield "Rows that are numbered from 7 get their answers too."
    _check_table(
        my_predict, ["Sing!", "Hum!", "Sing!"], "A repeated prompt gets an answer each time: keep repetitions."
    )
    yield "A repeated prompt is answered each time."
    _check_table(my_predict, ["Name a cape."], "One row is a table too: return a list with one answer.")
    yield "One row gets a list with one answer."
    _check_table(my_predict, [], "This table has no rows, so it has no first row either: return an empty list.")
    yield "A table without rows gets an empty list."


def _check_table(my_predict: Any, prompts: list[str], hint: str, first: int = 0) -> None:
    import pandas as pd

    table = pd.DataFrame({"prompt": prompts}, index=range(first, first + len(prompts)), dtype=object)
    answers = [_answer(prompt) for prompt in prompts]
    expected = f"{answers} for {prompts}"
    one = "`answer` takes one prompt, a text: call it once for each row."
    got = call(my_predict, _answer, table, expected=expected, hints={TypeError: one, LookupError: hint})
    if not isinstance(got, list):
        raise Wrong(shorten(got) or "an empty text", expected, _not_a_list(got, answers))
    if got != answers:
        if sorted(map(str, got)) == sorted(answers):
            hint = "All answers are there, but in another order. The order says which row an answer belongs to."
        elif got == [_answer(column) for column in table]:
            hint = "A loop over a table gives the names of its columns. Loop over its column `prompt`."
        elif len(got) < len(set(answers)):
            hint = "Some rows got no answer: go through the whole column."
        raise Wrong(shorten(got), expected, hint)


def _answer(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise TypeError(f"answer takes one prompt, a text, but got a {type(prompt).__name__}")
    return f"<{prompt}>"


def _not_a_list(got: object, answers: list[str]) -> str:
    if got is None:
        return "Your function returned nothing: is there a `return`?"
    if isinstance(got, str):
        if len(answers) == 1:
            return "One row is a table too: return a list with one answer."
        if all(text in got for text in answers):
            return "Joined into one text, the answers can no longer be separated: a list has a place for each."
        return "`[0]` takes the row numbered 0 and drops the others without an error: go through the whole column."
    if isinstance(got, set | dict):
        return "A set or a dict keeps only one of two equal answers: a list has a place for each row."
    return f"A {type(got).__name__} is not a list: convert it with `list(...)`, or build a list in square brackets."


@exercise(steps=3)
def stop_sequence(my_params: Any, prompts: Any) -> Iterator[str]:
    """With these params, `Phi3Model` (loaded with MLflow) ends each answer before its first full stop."""
    from mlflow.exceptions import MlflowException

    expected = "answers that end before their first full stop"
    length = "`max_tokens` counts tokens, so it may cut a sentence in half. Leave it at 40, and stop at a text instead."
    if not isinstance(my_params, dict) or "stop" not in my_params:
        shortened = isinstance(my_params, dict) and my_params.get("max_tokens", 40) != 40
        name = "One of the params in the signature above ends an answer at a text of your choice. Copy its spelling."
        raise Wrong(shorten(my_params), expected, length if shortened else name)
    requests = [{"prompt": f"<|user|>{question}<|end|><|assistant|>"} for question in _QUESTIONS]
    shape = "The signature says `(shape: (-1,))` for `stop`: it is a list of texts, even if it holds only one."
    hints: dict[type[Exception], str] = {} if isinstance(my_params["stop"], list) else {MlflowException: shape}
    answers = call(prompts.predict, requests, my_params, expected=expected, hints=hints)
    yield "MLflow accepts it: `stop` is a list of texts."
    # A sentence that ends within 32 tokens is the same with the 40 tokens of the stub.
    sentences = [text.partition(".") for text in prompts.predict(requests, {"max_tokens": 32})]
    pairs = [(answer, sentence) for answer, (sentence, dot, _) in zip(answers, sentences, strict=True) if dot]
    if too_long := [answer for answer, _ in pairs if "." in answer]:
        hint = "A text that stops one answer may be missing in the next. What ends the first sentence of every answer?"
        if ". " in my_params["stop"]:
            hint = "The full stop at the very end of an answer has no space after it."
        if any("<|" in stop for stop in my_params["stop"]):
            hint = "`<|end|>` ends every answer anyway. Stop earlier, at a text that you can see in the answers."
        raise Wrong(shorten(too_long[0]), expected, hint)
    yield "No answer contains a full stop."
    for answer, sentence in pairs:
        if answer != sentence:
            hint = length
            if not sentence.startswith(answer):
                hint = "This is a different answer, not only a shorter one: leave the other params as they were."
            elif sentence.removeprefix(answer).startswith(tuple(my_params["stop"])):
                hint = "One of your stop sequences is inside this sentence: remove it."
            raise Wrong(shorten(answer), sentence, hint)
    yield "Every first sentence is complete."


@exercise(steps=4)
def deadline(my_deadline: Any) -> Iterator[str]:
    """A function of an iterator of texts and of seconds returns the text so far, and closes the iterator."""
    no_error = "The caller wants the text so far, not an error: leave the loop and return the text."
    exhausted = "`next` raises this error when the answer has ended; a `for` loop ends without an error."
    hints: dict[type[Exception], str] = {TimeoutError: no_error, StopIteration: exhausted}
    pieces: list[str] = []
    expected = "all 20 pieces of an answer, as one text: the deadline is an hour away"
    got = call(my_deadline, _stream(pieces, 20), 3600.0, expected=expected, hints=hints)
    if len(pieces) < 20 or got != "".join(pieces):
        hint = (
            "The deadline was an hour away: wait for the whole answer." if isinstance(got, str) else "Return one text."
        )
        if got is None:
            hint = "Your function returned nothing: is there a `return`, also for an answer that ends in time?"
        raise Wrong(shorten(got), expected, hint)
    yield "With enough time, the whole answer is returned."
    pieces, expected = [], f"the text that an endless answer has after {_DEADLINE} s"
    start = time.monotonic()
    got = call(my_deadline, endless := _stream(pieces, _MANY), _DEADLINE, expected=expected, hints=hints)
    seconds = time.monotonic() - start
    # On a slow machine a piece takes longer than its pause, so code that looks at the clock reads even fewer pieces.
    if len(pieces) == _MANY:
        hint = "Look at the clock after each piece: an endless answer never reaches the code behind the loop."
        raise Wrong(f"still reading after {_MANY} pieces, four times the deadline", expected, hint)
    if seconds < 0.9 * _DEADLINE:  # a clock may be coarse
        raise Wrong(f"a return after {seconds:.2f} s", expected, "That is too early: `seconds` is a number of seconds.")
    yield "An endless answer is ended at its deadline."
    if got != "".join(pieces):
        lost = "The last piece was read but is not in the text: add it before you look at the clock."
        raise Wrong(shorten(got), "every piece that was read", lost if got == "".join(pieces[:-1]) else no_error)
    yield "No piece is lost."
    if inspect.getgeneratorstate(endless) != inspect.GEN_CLOSED:
        endless.close()
        hint = (
            "Leaving the loop is not enough: the model stops in the middle of its answer and keeps its memory. The "
            "iterator has a method that ends it."
        )
        raise Wrong("the iterator, still open", "the iterator closed", hint)
    yield "The iterator is closed, so that the model stops."


def _stream(pieces: list[str], count: int) -> Any:
    """Yield `count` pieces of an answer, and append each to `pieces`."""
    for number in range(count):
        time.sleep(_PAUSE)
        pieces.append(f"piece {number} ")
        yield pieces[-1]
