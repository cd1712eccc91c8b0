"""What answers the requests of the server: slots over an ONNX folder, or the `predict` of a logged pipeline."""

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phi3kit.chat import ChatTemplate
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Answer, Engine, Options
from phi3kit.generation.model import Model
from phi3kit.serving.body import ChatRequest
from phi3kit.serving.job import Job, Piece
from phi3kit.serving.schemas import Grammars
from phi3kit.serving.slots import Slots

Emit = Callable[[Piece | Exception], None]


class SlotEngine(Engine):
    """An engine for the wrappers' `predict`, whose answers come from the slots.

    Args:
        slots: the rows.
        tokenizer: an `onnxruntime_genai.Tokenizer`.
        seconds: that a request may take.
    """

    def __init__(self, slots: Slots, tokenizer: Any, seconds: float) -> None:
        graph = slots.decoder.graph
        super().__init__(Model(graph.folder, slots.decoder.context, graph.vocab_size, 1, None), tokenizer)
        self.slots, self._seconds = slots, seconds

    def token_text(self, token: int) -> str:
        """Return the text of one token."""
        return str(self._tokenizer.decode([token]))

    def job(self, ids: list[int], options: Options, emit: Emit, deadline: float, owner: str = "") -> Job:
        """Return the job of a prompt that `check_prompt` returned."""
        return Job(ids, self._limit(ids, options), options, emit, deadline, owner)

    def generate(self, prompts: Sequence[str | Sequence[int]], options: Options | None = None) -> list[Answer]:
        """Answer every prompt, in order, as `Engine.generate` does; as many together as there are slots."""
        options = options or Options()
        checked = [self.check_prompt(f"prompts[{i}]", prompt, options) for i, prompt in enumerate(prompts)]
        deadline = time.monotonic() + self._seconds
        started: list[tuple[Job, queue.SimpleQueue[Piece | Exception]]] = []
        answers: list[Answer] = []
        try:
            for i in range(len(checked)):
                while len(started) < min(len(checked), i + self.slots.decoder.slots):
                    events: queue.SimpleQueue[Piece | Exception] = queue.SimpleQueue()
                    job = self.job(checked[len(started)], options, events.put, deadline)
                    self.slots.submit(job)
                    started.append((job, events))
                answers.append(_last(started[i][1]))
        except BaseException:
            for job, _ in started:
                self.slots.cancel(job)
            raise
        return answers


def _last(events: "queue.SimpleQueue[Piece | Exception]") -> Answer:
    while True:
        event = events.get()
        if isinstance(event, Exception):
            raise event
        if event.answer:
            return event.answer


class SlotBackend:
    """Answers chat messages in slots.

    Args:
        engine: over the slots.
        folder: of the model, with its tokenizer and chat template.
    """

    def __init__(self, engine: SlotEngine, folder: Path) -> None:
        self.engine, self.template = engine, ChatTemplate(folder)
        graph = engine.slots.decoder.graph
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self._grammars = Grammars(tokenizer_json, graph.vocab_size, graph.end_ids)

    def start(self, request: ChatRequest, emit: Emit, deadline: float, owner: str) -> Job:
        """Check a request and begin to answer it; `emit` takes its pieces, in the thread of the slots.

        Raises:
            InvalidRequest: it is refused.
            Busy: too many wait.
            Draining: no more are taken.
        """
        ids = self.template.encode(request.messages)
        try:
            self.engine.check_prompt("messages", ids, request.options)
        except InvalidRequest as refused:
            raise refused.renamed("max_tokens", request.limit_name) from None
        job = self.engine.job(ids, request.options, emit, deadline, owner)
        job.matcher, job.top_logprobs = self._grammars.matcher(request.response_format), request.top_logprobs
        self.engine.slots.submit(job)
        return job

    @property
    def queue(self) -> Slots:
        """What counts, cancels and drains its requests."""
        return self.engine.slots

    def token_text(self, token: int) -> str:
        """Return the text of one token, for `logprobs`."""
        return self.engine.token_text(token)
