"""One answer in the making, with a decoder that needs no model: token N is the N-th of some pieces of text."""

import random

import pytest

from phi3kit.generation import Options
from phi3kit.generation.answer import Row

END = 999


class Pieces:
    """A tokenizer whose token ids are positions in a list of texts."""

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces

    def create_stream(self) -> "Pieces":
        return self

    def decode(self, token: int) -> str:
        return self.pieces[token]


def answer(pieces: list[str], end: bool = True, **options: object):
    """Push every piece and, if wanted, the end token; return the released texts and the completion."""
    row = Row(Pieces(pieces), frozenset({END}), Options(**options).stop, 5, options.get("max_tokens", 256))
    released = [row.push(token) for token in [*range(len(pieces)), *([END] if end else [])]]
    return released, row.answer(0.0) if row.finish_reason else None


def test_an_answer_without_stop_strings_is_released_at_once():
    released, done = answer(["The ", "capital", "."])
    assert released == ["The ", "capital", ".", ""]
    assert (done.text, done.finish_reason) == ("The capital.", "stop")
    assert (done.prompt_tokens, done.completion_tokens) == (5, 4)
    assert done.token_ids == (0, 1, 2, END)


@pytest.mark.parametrize("pieces", [["a STOP b"], ["a ST", "OP b"], ["a S", "TO", "P b"], list("a STOP b")])
def test_a_stop_string_ends_the_answer_across_tokens(pieces):
    released, done = answer([*pieces, " never"], stop="STOP")
    assert "".join(released) == done.text == "a "
    assert done.finish_reason == "stop"
    cut = next(n for n in range(len(pieces) + 1) if "STOP" in "".join(pieces[:n]))
    assert done.completion_tokens == cut, "nothing is counted after the token that completed the stop string"


@pytest.mark.parametrize("cut", range(1, 8))
def test_the_stop_string_completed_first_counts(cut):
    text = "x abcd y"
    for stop, expected in [
        (["cd", "ab"], "x "),
        (["abcd y", "bc"], "x a"),
        (["abcd", "cd"], "x "),
        (["d", "cd"], "x ab"),
    ]:
        for pieces in ([text], [text[:cut], text[cut:]], list(text)):
            released, done = answer(pieces, stop=stop)
            assert ("".join(released), done.finish_reason) == (expected, "stop"), (stop, pieces)


def test_held_text_is_released_if_it_is_no_stop_string():
    released, done = answer(["a S", "T", "RAW", " end"], stop="STOP")
    assert released == ["a ", "", "STRAW", " end", ""]
    assert done.text == "a STRAW end"


def test_no_more_than_needed_is_held():
    assert answer(["aab"], end=False, stop="aaab")[0] == ["aab"]
    assert answer(["aaa"], end=False, stop="aaab")[0] == [""]
    assert answer(["aaaa"], end=False, stop="aaab")[0] == ["a"]


@pytest.mark.parametrize(("ends", "reason"), [({"end": True}, "stop"), ({"end": False, "max_tokens": 2}, "length")])
def test_held_text_is_released_at_the_end(ends, reason):
    released, done = answer(["a S", "TO"], stop="STOP", **ends)
    assert "".join(released) == done.text == "a STO"
    assert done.finish_reason == reason


def test_the_end_token_in_the_last_place_is_a_stop():
    assert answer(["a"], max_tokens=2)[1].finish_reason == "stop"
    assert answer(["a", "b"], max_tokens=2)[1].finish_reason == "length"


def test_a_stop_string_in_the_last_place_is_a_stop():
    _, done = answer(["a", "X"], max_tokens=2, stop="X")
    assert (done.text, done.finish_reason) == ("a", "stop")


def test_after_its_end_a_row_takes_nothing_more():
    # In a batch a finished row is still given tokens until the last one has finished.
    row = Row(Pieces(["a", "b"]), frozenset({END}), (), 1, 256)
    assert [row.push(t) for t in (0, END, 1, 1)] == ["a", "", "", ""]
    assert row.answer(0.0).token_ids == (0, END)


def test_speeds():
    _, done = answer(["a", "b", "c"])
    assert done.seconds_to_first_token > 0
    assert done.tokens_per_second > 0
    assert answer(["a"], max_tokens=1)[1].tokens_per_second == 0


def test_any_text_any_cut_any_stop_strings():
    rolls = random.Random(7)
    stopped = 0
    for _ in range(4000):
        text = "".join(rolls.choices("ab ", k=rolls.randint(0, 14)))
        stops = ["".join(rolls.choices("ab ", k=rolls.randint(1, 4))) for _ in range(rolls.randint(0, 3))]
        cuts = sorted(rolls.choices(range(len(text) + 1), k=rolls.randint(0, 6)))
        pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        released, done = answer(pieces, stop=stops)
        ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)]
        expected = text
        if ends:
            stopped += 1
            expected = text[: ends[0] - max(len(stop) for stop in stops if text[: ends[0]].endswith(stop))]
        assert "".join(released) == done.text == expected, (text, stops, pieces)
    assert 1000 < stopped < 3900, "the sample holds both kinds"
