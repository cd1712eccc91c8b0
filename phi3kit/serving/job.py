"""Requests on their way through a server: what they yield, how they may end without an answer, and where they wait."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from phi3kit.errors import Phi3KitError
from phi3kit.generation import Answer, Options


class Busy(Phi3KitError):
    """The queue is full."""


class Draining(Phi3KitError):
    """The server takes no more requests."""


class TimedOut(Phi3KitError):
    """The answer was not complete at its deadline."""

    def __init__(self) -> None:
        super().__init__("The answer was not complete in the time that this server allows.")


@dataclass(frozen=True)
class Logprob:
    """How likely one token of an answer was: its id, the logarithm of its probability, and the likeliest tokens'."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one token added to an answer.

    Attributes:
        text: that no later token can change; often empty.
        logprob: of the token, where it was asked for.
        answer: the complete answer, in the last piece.
    """

    text: str
    logprob: Logprob | None = None
    answer: Answer | None = None


@dataclass(eq=False)
class Job:
    """One request.

    Attributes:
        prompt: what the model reads: token ids, or the fields for a pipeline's `predict`.
        max_tokens: of the answer.
        options: how to generate.
        emit: takes each `Piece`, or the exception that ended the request; called in the thread that answers.
        deadline: when the request ends unanswered, by `time.monotonic`.
        owner: only requests with the same owner share what a slot still holds.
        matcher: the `llguidance.LLMatcher` that the answer must follow.
        top_logprobs: how many likeliest tokens to report for each token; None reports nothing.
        cached: tokens of the prompt that a slot still held.
        is_cancelled: set by `RequestQueue.cancel`.
    """

    prompt: Any
    max_tokens: int
    options: Options
    emit: Callable[[Piece | Exception], None]
    deadline: float
    owner: str = ""
    matcher: Any = None
    top_logprobs: int | None = None
    cached: int = 0
    is_cancelled: bool = False
    arrived: float = field(default_factory=time.perf_counter)
    # What the slots keep of it: the answer so far, its random numbers, the tokens read, and the one to be read next.
    row: Any = None
    random: Any = None
    read: int = 0
    next_token: int = -1

    def is_over(self) -> bool:
        """Whether the request was cancelled or is over its deadline; then its client is told so."""
        if not self.is_cancelled and time.monotonic() > self.deadline:
            self.tell(TimedOut())
            self.is_cancelled = True
        return self.is_cancelled

    def tell(self, event: Piece | Exception) -> None:
        """Hand on a piece or an error; a client that cannot be told counts as gone."""
        try:
            self.emit(event)
        except Exception:  # such as: its event loop is closed
            self.is_cancelled = True


class RequestQueue:
    """Requests that wait for the one thread that answers them; a subclass is that thread's work.

    Args:
        max_queue: requests that may wait while every place is taken.
        places: requests that are answered together.
    """

    def __init__(self, max_queue: int, places: int) -> None:
        self._max_queue, self._places = max_queue, places
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self.is_draining = self._is_closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def running(self) -> int:
        """Requests that have a place."""
        raise NotImplementedError

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._queue)

    def submit(self, job: Job) -> None:
        """Queue a request that was checked.

        Raises:
            Busy: too many wait.
            Draining: after `drain`.
        """
        with self._changed:
            if self.is_draining:
                raise Draining("The server is shutting down: ask another one.")
            if self.waiting >= self._max_queue + self._places - self.running:
                raise Busy(f"{self.waiting} requests wait already: try again later.")
            self._queue.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """End a request; what it generated is lost."""
        job.is_cancelled = True
        with self._changed:
            self._changed.notify()

    def drain(self) -> None:
        """Take no more requests; those that were taken go on."""
        with self._changed:
            self.is_draining = True

    def close(self) -> None:
        """End the thread; requests that are not answered end with an error."""
        with self._changed:
            self.is_draining = self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout=5)  # a pipeline's `predict` cannot be stopped

    def _run(self) -> None:
        while self._wait():
            try:
                self._turn()
            except Exception as error:  # it ends the requests that have a place, not the server
                self._end(error)
        self._end(Draining("The server was stopped before the answer was complete."))
        for job in self._take_all():
            job.tell(Draining("The server was stopped before the answer was begun."))

    def _wait(self) -> bool:
        """Wait for something to do; False when the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self.running or self._is_closed)
            return not self._is_closed

    def _take_all(self) -> list[Job]:
        with self._changed:
            jobs = list(self._queue)
            self._queue.clear()
        return jobs

    def _turn(self) -> None:
        """Do the next piece of work."""
        raise NotImplementedError

    def _end(self, error: Exception) -> None:
        """End the requests that have a place."""
        raise NotImplementedError
