"""The checks of CustomPythonWrapper that need no stored model: rows, a stop sequence, a deadline."""

import inspect
import time
from collections.abc import Iterator
from typing import Any

from phi3kit.workbook.exercises.check.verdict import Wrong, call, exercise, shorten

_QUESTIONS = ("What does a baker do?", "Why is the sky blue?", "What is the capital of Italy?", "Who wrote Hamlet?")
_QUESTIONS += ("What is water made of?", "What is the sun?", "How do birds fly?")
_PAUSE, _DEADLINE, _HOUR = 0.02, 0.5, 3600.0  # seconds
_LATE = 6.0  # seconds after which a call has to be back: three times as long as reading every piece takes
_MANY = 100  # pieces of the "endless" answer: reading all of them takes four times the deadline


@exercise(steps=5)
def every_row(my_predict: Any) -> Iterator[str]:
    """A function of `answer` and a table returns a list with the answer to each row's prompt, in order."""
    _check_table(my_predict, ["Name a sea.", "Name a lake.", "Name a bay."], "The column's name is `prompt`.")
    yield "Three rows get three answers, in order."
    hint = "The rows of this table are numbered from 7, as after filtering: loop over the values of the column."
    _check_table(my_predict, ["Name a hill.", "Name an alp."], hint, [7, 8])
    hint = "A row's number is a label, and says nothing about its place: answer the rows in the order of the table."
    _check_table(my_predict, ["Name a fen.", "Name a pond.", "Name a bog."], hint, [2, 0, 1])
    hint = "Two rows of this table have the same number, as after `concat`: loop over the values of the column."
    _check_table(my_predict, ["Name a dune.", "Name a cliff.", "Name a cave."], hint, [0, 1, 0])
    yield "However the rows are numbered, they get their answers, in the order of the table."
    hint = "A repeated prompt gets an answer each time: keep repetitions."
    _check_table(my_predict, ["Sing!", "Hum!", "Sing!"], hint)
    hint = "An empty prompt gets an answer too: with a row left out, the answers below it belong to other rows."
    _check_table(my_predict, ["Whistle!", "", "Clap!"], hint)
    yield "A repeated prompt is answered each time, and an empty one too."
    _check_table(my_predict, ["Name a cape."], "One row is a table too: return a list with one answer.")
    yield "One row gets a list with one answer."
    _check_table(my_predict, [], "This table has no rows, so it has no first row either: return an empty list.")
    yield "A table without rows gets an empty list."


def _check_table(my_predict: Any, prompts: list[str], hint: str, numbers: list[int] | None = None) -> None:
    import pandas as pd

    table = pd.DataFrame({"prompt": prompts}, index=numbers, dtype=object)
    answers = [_answer(prompt) for prompt in prompts]
    expected = f"{answers} for {prompts}" + (f", in rows numbered {numbers}" if numbers else "")
    hints: dict[type[Exception], str] = {
        TypeError: hint if numbers else "`answer` takes one prompt, a text: call it once for each row.",
        LookupError: hint,
    }
    by_row = "Without rows, `.apply(..., axis=1)` returns a table and no column: work on the column `prompt` instead."
    if not prompts:
        hints |= {AttributeError: by_row}
    got = call(my_predict, _answer, table, expected=expected, hints=hints)
    if not isinstance(got, list):
        raise Wrong(shorten(got) or "an empty text", expected, _not_a_list(got, answers))
    if got != answers:
        usual = not numbers and "" not in prompts  # otherwise `hint` says what is special about this table
        if usual and sorted(map(str, got)) == sorted(answers):
            hint = "All answers are there, but in another order. The order says which row an answer belongs to."
        elif got == list(table):
            hint = by_row
        elif got == [_answer(column) for column in table]:
            hint = "A loop over a table gives the names of its columns. Loop over its column `prompt`."
        elif usual and len(got) < len(set(answers)):
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

    expected = "answers that end before their first full stop, and `max_tokens` of 40"
    if not isinstance(my_params, dict) or my_params.get("max_tokens") != 40:
        length = (
            "Leave `max_tokens` at 40: it counts tokens, and may cut a sentence in half. Another param stops at a text."
        )
        raise Wrong(shorten(my_params), expected, length)
    if "stop" not in my_params:
        name = "One of the params in the signature above ends an answer at a text of your choice. Copy its spelling."
        raise Wrong(shorten(my_params), expected, name)
    requests = [{"prompt": f"<|user|>{question}<|end|><|assistant|>"} for question in _QUESTIONS]
    shape = "The signature says `(shape: (-1,))` for `stop`: it is a list of texts, even if it holds only one."
    hints: dict[type[Exception], str] = {} if isinstance(my_params["stop"], list) else {MlflowException: shape}
    answers = call(prompts.predict, requests, my_params, expected=expected, hints=hints, seconds=None)
    yield "MLflow accepts it: `stop` is a list of texts."
    sentences = [text.partition(".") for text in prompts.predict(requests, {"max_tokens": 40})]
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
            hint = "This is a different answer, not only a shorter one: leave the other params as they were."
            if sentence.startswith(answer):
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
    late = "The answer had ended: wait for its next piece, not for the clock. A `for` loop ends when the pieces do."
    got = call(my_deadline, _stream(pieces, 20), _HOUR, expected=expected, hints=hints, seconds=_LATE, late=late)
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
    endless = _stream(pieces, _MANY)
    got = call(my_deadline, endless, _DEADLINE, expected=expected, hints=hints, seconds=_LATE)
    seconds = time.monotonic() - start
    read = len(pieces)
    time.sleep(5 * _PAUSE)
    if len(pieces) > read:
        hint = "Another thread still reads the iterator, so that nothing can close it: read the pieces in this thread."
        raise Wrong("a thread that still reads", "the iterator closed", hint)
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
