"""Requests that are answered together: each takes a slot when one is free and leaves it when it ends.

One thread reads a slice of one newcomer's prompt, then computes one token for every row, and so on. What a finished
row leaves in its slot serves a later request that begins with the same tokens and comes with the same key.
"""

from collections import deque
from typing import Any

import numpy as np

from phi3kit.generation.answer import Row
from phi3kit.serving import sampling
from phi3kit.serving.decoder import SLICE, Decoder
from phi3kit.serving.job import Job, Logprob, Piece, RequestQueue


class Slots(RequestQueue):
    """The queue, the rows and the thread that computes them.

    Args:
        decoder: the model.
        tokenizer: an `onnxruntime_genai.Tokenizer`, which turns tokens into text.
        max_queue: requests that may wait while every slot is taken.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any, max_queue: int) -> None:
        super().__init__(max_queue, decoder.slots)
        self.decoder, self._tokenizer = decoder, tokenizer
        search = decoder.graph.search
        self._penalty = float(search.get("repetition_penalty") or 1)
        self._ngram = int(search.get("no_repeat_ngram_size") or 0)
        self._end_ids = frozenset(decoder.graph.end_ids)
        # Job i of the active ones has slot i; the slots of those whose prompt is being read follow.
        self._active: list[Job] = []
        self._reading: list[Job] = []
        self._owners = [""] * decoder.slots
        self._used = [0] * decoder.slots
        self._turns = 0
        self._thread.start()

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return len(self._active) + len(self._reading)

    def submit(self, job: Job) -> None:
        """Queue a request whose token ids were checked; see `RequestQueue.submit`."""
        job.row = Row(self._tokenizer, self._end_ids, job.options.stop, len(job.prompt), job.max_tokens)
        job.prompt = np.array(job.prompt, np.int64)
        job.random = np.random.default_rng(job.options.seed)
        super().submit(job)

    def _turn(self) -> None:
        self._turns += 1
        self._drop()
        self._admit()
        if self._reading:
            # The shortest rest first answers most requests soonest; every other turn, the one that came first.
            oldest = min(range(len(self._reading)), key=lambda i: self._reading[i].arrived)
            shortest = min(
                range(len(self._reading)), key=lambda i: len(self._reading[i].prompt) - self._reading[i].read
            )
            self._read_slice(oldest if self._turns % 2 else shortest)
        if self._active:
            self._step()

    def _drop(self) -> None:
        """Take out what was cancelled, and what is over its deadline."""
        for job in [job for job in self._reading + self._active if job.is_over()]:
            self._remove(job)
        with self._changed:
            self._queue = deque(job for job in self._queue if not job.is_over())

    def _admit(self) -> None:
        with self._changed:
            while self._queue and self.running < self.decoder.slots:
                self._take_slot(self._queue.popleft())

    def _take_slot(self, job: Job) -> None:
        """Give a request the idle slot that holds most of its prompt, else the one that was used longest ago."""
        first = self.running
        idle = range(first, self.decoder.slots)
        shared = {i: self.decoder.shared(i, job.prompt[:-1]) * (self._owners[i] == job.owner) for i in idle}
        best = max(idle, key=lambda i: (shared[i], -self._used[i]))
        job.cached = job.read = shared[best]
        self._swap(first, best)
        self.decoder.cut(first, job.cached)
        self._owners[first] = job.owner
        self._reading.append(job)

    def _read_slice(self, index: int) -> None:
        job, slot = self._reading[index], len(self._active) + index
        logits = self.decoder.read(slot, job.prompt[None, job.read : job.read + SLICE])
        job.read = min(job.read + SLICE, len(job.prompt))
        if job.read < len(job.prompt):
            return
        self._swap(len(self._active), slot)
        self._reading[0], self._reading[index] = self._reading[index], self._reading[0]
        self._active.append(self._reading.pop(0))
        self._pick(len(self._active) - 1, logits[0])
        if job.row.finish_reason:
            self._remove(job)

    def _step(self) -> None:
        tokens = np.array([[job.next_token] for job in self._active], np.int64)
        logits = self.decoder.read(0, tokens)
        for i in range(len(self._active)):
            self._pick(i, logits[i])
        for job in [job for job in self._active if job.row.finish_reason]:
            self._remove(job)

    def _pick(self, slot: int, logits: sampling.Array) -> None:
        """Choose the next token of an active row and hand on what it adds."""
        job, options = self._active[slot], self._active[slot].options
        penalty = options.repetition_penalty or self._penalty
        ngram = 0 if job.matcher else self._ngram  # a schema may demand a repetition
        scores = sampling.scores(logits, self.decoder.tokens(slot), penalty, ngram)
        if job.matcher is not None:
            self._forbid(job.matcher, scores)
        token = job.next_token = sampling.draw(scores, options, job.random)
        logprob = self._logprob(job, token, logits)
        text = job.row.push(token)
        if job.matcher is not None and not job.row.finish_reason:
            job.matcher.consume_token(token)
            if job.matcher.is_stopped():
                text += job.row.end()
        if job.row.finish_reason:
            job.tell(Piece(text, logprob, job.row.answer(job.arrived)))
        elif text or logprob:
            job.tell(Piece(text, logprob))

    def _forbid(self, matcher: Any, scores: sampling.Array) -> None:
        """Make the tokens impossible that a schema does not allow next."""
        import llguidance.numpy as guidance

        mask = guidance.allocate_token_bitmask(1, len(scores))
        guidance.fill_next_token_bitmask(matcher, mask, 0)
        allowed = np.unpackbits(mask[0].view(np.uint8), bitorder="little")[: len(scores)]
        scores[allowed == 0] = -np.inf

    def _logprob(self, job: Job, token: int, logits: sampling.Array) -> Logprob | None:
        if job.top_logprobs is None or token in self._end_ids:
            return None
        values = sampling.log_probabilities(logits)
        top = np.argsort(-values, kind="stable")[: job.top_logprobs]
        return Logprob(token, float(values[token]), tuple((int(i), float(values[i])) for i in top))

    def _remove(self, job: Job) -> None:
        """Free the slot of a request; the active rows stay neighbours, and the reading ones after them."""
        if job in self._active:
            index, last = self._active.index(job), len(self._active) - 1
            self._swap(index, last)
            self._active[index] = self._active[last]
            self._active.pop()
            if self._reading:
                self._swap(last, last + len(self._reading))
                self._reading.insert(0, self._reading.pop())
        else:
            index, last = self._reading.index(job), len(self._reading) - 1
            self._swap(len(self._active) + index, len(self._active) + last)
            self._reading[index] = self._reading[last]
            self._reading.pop()
        self._used[self.running] = self._turns

    def _swap(self, one: int, other: int) -> None:
        self.decoder.swap(one, other)
        for values in (self._owners, self._used):
            values[one], values[other] = values[other], values[one]  # type: ignore[index]

    def _end(self, error: Exception) -> None:
        jobs, self._active, self._reading = self._active + self._reading, [], []
        for slot in range(self.decoder.slots):  # a cache may be half-written
            self.decoder.cut(slot, 0)
        for job in jobs:
            job.tell(error)
