"""A logged transformers pipeline behind the same API: `predict`, one request at a time, its answer in one piece."""

import threading
import time
from collections.abc import Callable
from typing import Any

from phi3kit.chat import messages, openai
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Answer, Options
from phi3kit.serving.body import ChatRequest
from phi3kit.serving.job import Job, Piece, RequestQueue


class PipelineBackend(RequestQueue):
    """Answers chat messages with a loaded pipeline; it is its own queue.

    Args:
        model: a `mlflow.pyfunc.PyFuncModel` with `messages` and `max_tokens` in its signature.
        max_queue: requests that may wait.
    """

    def __init__(self, model: Any, max_queue: int) -> None:
        super().__init__(max_queue, places=1)
        self._model, self._computing = model, threading.Lock()
        self._job: Job | None = None
        self.queue = self
        self._thread.start()

    @property
    def running(self) -> int:
        """1 while a request is being answered."""
        return int(self._job is not None)

    def start(
        self, request: ChatRequest, emit: Callable[[Piece | Exception], None], deadline: float, owner: str
    ) -> Job:
        """Check a request and queue it.

        Raises:
            InvalidRequest: it is refused; options that the pipeline would ignore are.
            Busy: too many wait.
            Draining: no more are taken.
        """
        _refuse_ignored(request)
        fields: dict[str, Any] = {"messages": messages.check(request.messages)}
        if request.options.max_tokens:
            fields["max_tokens"] = request.options.max_tokens
        job = Job(fields, request.options.max_tokens or 0, request.options, emit, deadline, owner)
        self.submit(job)
        return job

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Call the pipeline, when no other call is running."""
        with self._computing:
            return self._model.predict(model_input, params=params)

    def _turn(self) -> None:
        with self._changed:
            self._job = self._queue.popleft()
        if not self._job.is_over():
            self._job.tell(self._answer(self._job))
        self._job = None

    def _answer(self, job: Job) -> Piece:
        completion = openai.completion(self.predict(job.prompt))
        choice, usage = completion["choices"][0], completion["usage"]
        text, seconds = choice["message"]["content"], time.perf_counter() - job.arrived
        counts = usage["prompt_tokens"], usage["completion_tokens"]
        return Piece(text, answer=Answer(text, choice["finish_reason"], *counts, seconds, 0.0, ()))

    def _end(self, error: Exception) -> None:
        if self._job:
            self._job.tell(error)
        self._job = None


def _refuse_ignored(request: ChatRequest) -> None:
    reason = "leave it out: this model is a transformers pipeline, which ignores it"
    for name in vars(Options()):
        value = getattr(request.options, name)
        if name != "max_tokens" and value != getattr(Options(), name):
            raise InvalidRequest(name, value, reason)
    if request.response_format not in (None, {"type": "text"}):
        raise InvalidRequest("response_format", request.response_format, reason)
    if request.top_logprobs is not None:
        raise InvalidRequest("logprobs", True, reason)
