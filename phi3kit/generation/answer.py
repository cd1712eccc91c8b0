"""One answer: while it is generated, token by token, and when it is complete."""

import time
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: without the end token and without the stop string.
        finish_reason: `stop` when the model or a stop string ended it, `length` when `max_tokens` did.
        prompt_tokens: tokens read.
        completion_tokens: tokens generated, the end token included.
        seconds_to_first_token: from the start of this request's computation, waiting in a batch included.
        tokens_per_second: decode speed after the first token; of a batch, this row's own.
        token_ids: what was generated, as ids.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    seconds_to_first_token: float
    tokens_per_second: float
    token_ids: tuple[int, ...]


class Row:
    """One answer while it is generated: its tokens, its text so far, and whether it has ended."""

    def __init__(
        self, tokenizer: Any, end_ids: frozenset[int], stop: tuple[str, ...], prompt_tokens: int, max_tokens: int
    ) -> None:
        self._decoder = tokenizer.create_stream()
        self._end_ids, self._prompt_tokens, self._max_tokens, self._stop = end_ids, prompt_tokens, max_tokens, stop
        self._ids: list[int] = []
        self._text = ""
        self._held = ""  # may be the beginning of a stop string
        self._first = self._last = 0.0
        self.finish_reason: Literal["stop", "length"] | None = None

    def push(self, token: int) -> str:
        """Take the next token and return the text that no later token can change."""
        if self.finish_reason:
            return ""
        self._ids.append(token)
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if token in self._end_ids:
            return self._end("stop", self._held)
        text = self._held + self._decoder.decode(token)
        # The stop string that is complete first counts, however the tokens cut the text.
        ends = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            return self._end("stop", text[: min(ends)[1]])
        if len(self._ids) == self._max_tokens:
            return self._end("length", text)
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        sure, self._held = (text[:-held], text[-held:]) if held else (text, "")
        self._text += sure
        return sure

    def end(self) -> str:
        """End the answer here, as complete, and return the text that was held back."""
        return self._end("stop", self._held)

    def _end(self, reason: Literal["stop", "length"], text: str) -> str:
        self.finish_reason = reason
        self._text += text
        return text

    def answer(self, start: float) -> Answer:
        """Return the ended answer; `start` is when its request began, by `time.perf_counter`."""
        assert self.finish_reason
        decoding = self._last - self._first
        return Answer(
            text=self._text,
            finish_reason=self.finish_reason,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self._ids),
            seconds_to_first_token=self._first - start,
            tokens_per_second=(len(self._ids) - 1) / decoding if decoding else 0.0,
            token_ids=tuple(self._ids),
        )


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
