"""The slots over a session without weights: who waits, who shares, who ends, and that no row mixes with another."""

import queue
import random
import threading
import time

import pytest
from fake_og import END
from fake_session import FakeSession, open_slots

from phi3kit.generation import Options
from phi3kit.serving.decoder import SLICE
from phi3kit.serving.job import Busy, Draining, Job, Piece, TimedOut


class Gate(FakeSession):
    """A session that waits at each run until it is let on."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def run_with_iobinding(self, binding):
        self.entered.release()
        assert self.allowed.acquire(timeout=10)
        super().run_with_iobinding(binding)

    def open(self) -> None:
        self.allowed.release(10**6)


@pytest.fixture
def session():
    return FakeSession()


@pytest.fixture
def slots(session):
    slots = open_slots(session, max_queue=1000)
    yield slots
    slots.close()


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def held(gate):
    """Two slots and a queue of one, over a session that waits."""
    slots = open_slots(gate, slots=2, max_queue=1)
    yield slots
    gate.open()
    slots.close()


class Request:
    """A request and what it was given."""

    def __init__(self, slots, text: str, *, owner: str = "", seconds: float = 60, max_tokens: int = 400, **options):
        self.events: queue.SimpleQueue[Piece | Exception] = queue.SimpleQueue()
        ids = [ord(character) for character in f"{text}|"]
        deadline = time.monotonic() + seconds
        self.job = Job(ids, max_tokens, Options(**options), self.events.put, deadline, owner)
        slots.submit(self.job)

    def pieces(self) -> list[Piece]:
        pieces: list[Piece] = []
        while not pieces or pieces[-1].answer is None:
            event = self.events.get(timeout=10)
            if isinstance(event, Exception):
                raise event
            pieces.append(event)
        return pieces

    def answer(self):
        return self.pieces()[-1].answer


def test_an_answer_is_given_piece_by_piece(slots):
    pieces = Request(slots, "abc").pieces()
    assert "".join(piece.text for piece in pieces) == pieces[-1].answer.text == "abc"


def test_an_answer_ends_at_its_limit(slots):
    answer = Request(slots, "abc", max_tokens=2).answer()
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == ("ab", "length", 2)


def test_an_answer_ends_before_its_stop_string(slots):
    assert Request(slots, "one two three", stop=["tw"]).answer().text == "one "


def test_a_long_prompt_is_read_in_slices(session, slots):
    Request(slots, "x" * (2 * SLICE), max_tokens=1).answer()
    assert session.reads[:3] == [(1, SLICE), (1, SLICE), (1, 1)]


def test_rows_are_computed_together(held, gate):
    requests = [Request(held, "aaaa"), Request(held, "bbbb")]
    gate.open()
    assert [request.answer().text for request in requests] == ["aaaa", "bbbb"]
    assert (2, 1) in gate.reads


def test_a_short_prompt_does_not_wait_for_a_long_one(held, gate):
    long = Request(held, "x" * (6 * SLICE), max_tokens=1)
    assert gate.entered.acquire(timeout=10)
    short = Request(held, "short", max_tokens=1)
    gate.open()
    assert short.answer() and long.answer()
    assert short.job.row.answer(0).seconds_to_first_token < long.job.row.answer(0).seconds_to_first_token


def test_many_requests_of_any_length_are_not_mixed(slots):
    """Planted markers, random lengths and options, a third of the clients gone at some time."""
    chance = random.Random(7)
    stayed = []
    for i in range(300):
        text = f"<{i}>" * chance.randint(1, 60)
        limit = chance.choice([1, 5, 400])
        request = Request(slots, text[:250], owner=chance.choice("ab"), max_tokens=limit)
        if chance.random() < 1 / 3:
            if chance.random() < 0.5:
                request.events.get(timeout=10)
            slots.cancel(request.job)
        else:
            stayed.append((request, text[: min(250, limit)]))
    wrong = [(got, text) for request, text in stayed if (got := request.answer().text) != text]
    assert wrong == []


def test_a_shared_beginning_is_not_read_again(slots):
    Request(slots, "the same beginning, one").answer()
    second = Request(slots, "the same beginning, two")
    assert (second.answer().text, second.job.cached) == ("the same beginning, two", len("the same beginning, "))


def test_the_same_prompt_is_read_from_its_last_token(slots):
    Request(slots, "again").answer()
    second = Request(slots, "again")
    assert (second.answer().text, second.job.cached) == ("again", len("again"))


def test_another_owner_shares_nothing(slots):
    Request(slots, "the same beginning", owner="a").answer()
    second = Request(slots, "the same beginning", owner="b")
    assert (second.answer().text, second.job.cached) == ("the same beginning", 0)


def test_a_cancelled_request_frees_its_slot(held, gate):
    first, second = Request(held, "a" * 300), Request(held, "b" * 300)
    assert gate.entered.acquire(timeout=10)
    held.cancel(first.job)
    held.cancel(second.job)
    gate.open()
    assert Request(held, "third").answer().text == "third"


def test_over_the_queue_a_request_is_refused(held, gate):
    for text in ("running", "running", "waiting"):
        Request(held, text)
    with pytest.raises(Busy):
        Request(held, "one too many")


def test_over_its_deadline_a_running_request_ends(held, gate):
    late = Request(held, "late" * 50, seconds=0.05)
    assert gate.entered.acquire(timeout=10)
    time.sleep(0.06)
    gate.open()
    with pytest.raises(TimedOut):
        late.answer()


def test_over_its_deadline_a_waiting_request_ends(held, gate):
    Request(held, "a" * 100)
    Request(held, "b" * 100)
    late = Request(held, "late", seconds=-1)
    gate.open()
    with pytest.raises(TimedOut):
        late.answer()


def test_an_exception_ends_the_requests_in_flight(session, slots):
    session.fails = ord("!")
    with pytest.raises(RuntimeError, match="the session failed"):
        Request(slots, "boom!").answer()


def test_after_an_exception_the_next_request_is_right(session, slots):
    session.fails = ord("!")
    with pytest.raises(RuntimeError):
        Request(slots, "again, boom!").answer()
    next_one = Request(slots, "again, right")
    assert (next_one.answer().text, next_one.job.cached) == ("again, right", 0)


def test_a_client_that_cannot_be_told_changes_no_other(slots):
    def broken(event):
        raise RuntimeError("the loop is closed")

    slots.submit(Job([ord("x"), ord("|")], 400, Options(), broken, time.monotonic() + 60))
    assert Request(slots, "fine").answer().text == "fine"


def test_draining_slots_take_no_more(slots):
    slots.drain()
    with pytest.raises(Draining):
        Request(slots, "late")


def test_draining_slots_finish_what_they_took(held, gate):
    taken = Request(held, "taken")
    held.drain()
    gate.open()
    assert taken.answer().text == "taken"


def test_closed_slots_end_what_waits_with_an_error():
    gate = Gate()
    slots = open_slots(gate, slots=1)
    running, waiting = Request(slots, "running"), Request(slots, "waiting")
    assert gate.entered.acquire(timeout=10)
    closing = threading.Thread(target=slots.close)
    closing.start()
    gate.open()
    closing.join()
    for request in (running, waiting):
        with pytest.raises(Draining):
            request.answer()


def test_the_models_own_ngram_limit_holds(session):
    slots = open_slots(session, no_repeat_ngram_size=3)
    assert Request(slots, "abcabc", max_tokens=6).answer().token_ids[0] != ord("c")
    slots.close()


def test_logprobs_name_the_token_and_the_likeliest(slots):
    job = Job([ord("a"), ord("|")], 5, Options(), (events := queue.SimpleQueue()).put, time.monotonic() + 60)
    job.top_logprobs = 2
    slots.submit(job)
    first = events.get(timeout=10).logprob
    assert (first.token, first.top[0]) == (ord("a"), (ord("a"), first.logprob))


def test_the_end_token_has_no_logprob(slots):
    job = Job([ord("|")], 5, Options(), (events := queue.SimpleQueue()).put, time.monotonic() + 60)
    job.top_logprobs = 0
    slots.submit(job)
    last = events.get(timeout=10)
    assert (last.answer.token_ids, last.logprob) == ((END,), None)
