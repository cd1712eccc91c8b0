"""One open model and the requests it answers, for many threads at once.

Every request is checked before the model sees it, owns its own generator, and reserves memory for its prompt and
its `max_tokens` only, not for the model's whole context window.
"""

import re
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Self

from phi3kit.errors import InvalidRequest
from phi3kit.generation.answer import Answer, Row
from phi3kit.generation.model import Model
from phi3kit.generation.options import Options

# og holds Python's lock while it reads a slice of a prompt: 32 tokens froze the other threads for 0.11 s on two
# cores, the whole prompt of 1,200 for 4.3 s, in the same total time.
PREFILL_SLICE = 32
# Throughput on two cores grew up to here (170 tokens/s alone, 404 for eight).
BATCH_SIZE = 8
# Where a request gives no limit: what is usual for a chat, and OpenAI's clients seldom give one.
MAX_TOKENS = 256
# og reads the prompts of a batch in one go, without a slice's pause for other threads, so they must be short together.
BATCH_TOKENS = 512

# og's tokenizer ends a text at a NUL, and takes no half of a UTF-16 pair; a byte that it cannot spell becomes -1.
_UNREADABLE = re.compile("[\0\ud800-\udfff]")

# Each step: every row's new text and, in the last step, every row's answer.
Steps = Generator[tuple[list[str], list[Answer]], None, None]


class Stream(Iterator[str]):
    """An answer as the model generates it: iterate for pieces of text, then read `answer`.

    `answer` is None until the last piece was taken. `close`, or leaving a `with` block, ends the generation and
    frees its memory at once.
    """

    def __init__(self, steps: Generator[str, None, Answer]) -> None:
        self._steps = steps
        self.answer: Answer | None = None

    def __next__(self) -> str:
        try:
            return next(self._steps)
        except StopIteration as end:
            self.answer = end.value or self.answer
            raise StopIteration from None

    def close(self) -> None:
        """End the generation; further iteration yields nothing."""
        self._steps.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Engine:
    """Answers prompts with an open model.

    Args:
        model: the open model.
        tokenizer: the model's own, as `Model.tokenizer` returns it.
    """

    def __init__(self, model: Model, tokenizer: Any) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._end_ids = frozenset(int(i) for i in tokenizer.eos_token_ids)

    @classmethod
    def open(cls, folder: Path | str, threads: int | None = None) -> Self:
        """Open an ONNX model folder and return an engine for it; see `Model.open` for arguments and errors."""
        model = Model.open(folder, threads)
        return cls(model, model.tokenizer())

    def generate(self, prompts: Sequence[str | Sequence[int]], options: Options | None = None) -> list[Answer]:
        """Answer every prompt, in order.

        Short prompts are computed together, up to `BATCH_SIZE` at a time. They are computed one by one where an answer
        would depend on its neighbours: when the answers are sampled with a seed, or a prompt ends with the token that
        og pads with.

        Args:
            prompts: texts, in which control tokens count as such, or token ids as `chat.ChatTemplate` makes them.
            options: one set for all; greedy when None.

        Raises:
            InvalidRequest: any prompt or option is refused; then nothing was computed.
        """
        options = options or Options()
        if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
            raise InvalidRequest("prompts", prompts, "a list of prompts")
        ids = [self.check_prompt(f"prompts[{i}]", prompt, options) for i, prompt in enumerate(prompts)]
        longest = max(map(len, ids), default=1)
        seeded = options.temperature > 0 and options.seed is not None
        padded = any(one[-1] == self._tokenizer.pad_token_id for one in ids)
        full = any(longest + self._limit(one, options) > self.model.context_length for one in ids)
        size = 1 if seeded or padded or full else max(1, min(BATCH_SIZE, BATCH_TOKENS // longest))
        answers: list[Answer] = []
        for start in range(0, len(ids), size):
            *_, (_, complete) = self._decode(ids[start : start + size], options)
            answers += complete
        return answers

    def stream(self, prompt: str | Sequence[int], options: Options | None = None) -> Stream:
        """Answer one prompt piece by piece.

        Raises:
            InvalidRequest: here, before the first piece is asked for.
        """
        options = options or Options()
        return Stream(self._stream(self.check_prompt("prompt", prompt, options), options))

    def check_prompt(self, field: str, prompt: str | Sequence[int], options: Options) -> list[int]:
        """Return the token ids of a prompt that may be answered with these options.

        Raises:
            InvalidRequest: naming `field`, or the option that is wrong for this prompt.
        """
        if not isinstance(options, Options):
            raise InvalidRequest("options", options, "Options(...)")
        ids = self._token_ids(field, prompt)
        window = self.model.context_length
        remaining = window - len(ids)
        if remaining < 1:
            raise InvalidRequest(field, prompt, f"a prompt of less than {window} tokens (this one has {len(ids)})")
        if options.max_tokens and options.max_tokens > remaining:
            allowed = f"at most {remaining}: the prompt takes {len(ids)} of the model's {window} tokens"
            raise InvalidRequest("max_tokens", options.max_tokens, allowed)
        return ids

    def _limit(self, ids: list[int], options: Options) -> int:
        """The most tokens that the answer to a prompt may have."""
        return options.max_tokens or min(MAX_TOKENS, self.model.context_length - len(ids))

    def prefill(self, batch: list[list[int]], options: Options) -> Any:
        """Read prompts, as `check_prompt` returned them, and return the `og.Generator` that goes on from there."""
        generator = self.model.generator(**self._search(batch, options))
        if len(batch) > 1:  # og takes the prompts of a batch only whole, padded on the right
            longest = max(map(len, batch))
            padding = self._tokenizer.pad_token_id
            generator.append_tokens([ids + [padding] * (longest - len(ids)) for ids in batch])
            return generator
        for first in range(0, len(batch[0]), PREFILL_SLICE):
            generator.append_tokens(batch[0][first : first + PREFILL_SLICE])
        return generator

    def _token_ids(self, field: str, prompt: str | Sequence[int]) -> list[int]:
        vocabulary = range(self.model.vocab_size)
        if isinstance(prompt, str):
            allowed = "a text in characters that the model's tokenizer knows"
            readable = not _UNREADABLE.search(prompt)
            ids = [int(i) for i in self._tokenizer.encode(prompt)] if prompt.strip() and readable else []
        else:
            allowed = f"a text, or a list of token ids below {len(vocabulary)}"
            readable = isinstance(prompt, list | tuple) and all(type(i) is int for i in prompt)
            ids = list(prompt) if readable else []
        if not readable or not all(i in vocabulary for i in ids):
            raise InvalidRequest(field, prompt, allowed)
        if not ids:
            raise InvalidRequest(field, prompt, "a prompt that is not empty")
        return ids

    def _search(self, batch: list[list[int]], options: Options) -> dict[str, Any]:
        """The options under og's names. og allocates its cache for `max_length` tokens at once."""
        sampled = options.temperature > 0
        search: dict[str, Any] = {
            "batch_size": len(batch),
            "max_length": max(map(len, batch)) + max(self._limit(ids, options) for ids in batch),
            "do_sample": sampled,
        }
        if sampled:
            search |= {"temperature": options.temperature, "top_p": options.top_p}
            search["top_k"] = min(options.top_k, self.model.vocab_size)  # og refuses more
        if sampled and options.seed is not None:
            search["random_seed"] = options.seed
        if options.repetition_penalty is not None:
            search["repetition_penalty"] = options.repetition_penalty
        return search

    def _stream(self, ids: list[int], options: Options) -> Generator[str, None, Answer]:
        with closing(self._decode([ids], options)) as steps:  # closing frees the model's memory at once
            for pieces, answers in steps:
                if pieces[0]:
                    yield pieces[0]
                if answers:
                    return answers[0]
        raise AssertionError("a decoding ends with its answers")

    def _decode(self, batch: list[list[int]], options: Options) -> Steps:
        start = time.perf_counter()
        row = partial(Row, self._tokenizer, self._end_ids, options.stop)
        rows = [row(len(ids), self._limit(ids, options)) for ids in batch]
        generator = self.prefill(batch, options)
        while True:
            generator.generate_next_token()
            pieces = [row.push(int(t)) for row, t in zip(rows, generator.get_next_tokens(), strict=True)]
            if all(row.finish_reason for row in rows):
                yield pieces, [row.answer(start) for row in rows]
                return
            yield pieces, []
