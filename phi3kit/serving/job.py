"""One request on its way through a server, what it yields, and how it may end without an answer."""

import time
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
    """One request on its way through the slots.

    Attributes:
        ids: the prompt.
        max_tokens: of the answer.
        options: how to generate.
        emit: takes each `Piece`, or the exception that ended the request; called in the thread of the slots.
        deadline: when the request ends unanswered, by `time.monotonic`.
        owner: only requests with the same owner share what a slot still holds.
        matcher: the `llguidance.LLMatcher` that the answer must follow.
        top_logprobs: how many likeliest tokens to report for each token; None reports nothing.
        cached: tokens of the prompt that a slot still held.
        is_cancelled: set it, and the request ends before the next step.
    """

    ids: list[int]
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
    row: Any = None
    random: Any = None
    prompt: Any = None
    read: int = 0
    next_token: int = -1
