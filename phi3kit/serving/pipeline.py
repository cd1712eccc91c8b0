"""A logged transformers pipeline behind the same API: `predict`, one request at a time, its answer in one piece."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from phi3kit.chat import messages, openai
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Answer, Options
from phi3kit.serving.body import ChatRequest
from phi3kit.serving.job import Busy, Draining, Job, Piece, TimedOut


class PipelineBackend:
    """Answers chat messages with a loaded pipeline; it is its own queue.

    Args:
        model: a `mlflow.pyfunc.PyFuncModel` with `messages` and `max_tokens` in its signature.
        max_queue: requests that may wait.
    """

    def __init__(self, model: Any, max_queue: int) -> None:
        self._model, self._max_queue = model, max_queue
        self._requests: deque[tuple[Job, dict[str, Any]]] = deque()
        self._changed, self._computing = threading.Condition(), threading.Lock()
        self.is_draining = self._is_closed = False
        self.running = 0
        self.queue = self
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._requests)

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
        job = Job([], request.options.max_tokens or 0, request.options, emit, deadline, owner)
        with self._changed:
            if self.is_draining:
                raise Draining("The server is shutting down: ask another one.")
            if self.waiting >= self._max_queue + 1 - self.running:
                raise Busy(f"{self.waiting} requests wait already: try again later.")
            self._requests.append((job, fields))
            self._changed.notify()
        return job

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Call the pipeline, when no other call is running."""
        with self._computing:
            return self._model.predict(model_input, params=params)

    def cancel(self, job: Job) -> None:
        """Skip a request that waits; one that is being answered goes on, since `predict` cannot be stopped."""
        job.is_cancelled = True

    def drain(self) -> None:
        """Take no more requests; those that were taken go on."""
        with self._changed:
            self.is_draining = True

    def close(self) -> None:
        """End the thread after the request that is being answered."""
        with self._changed:
            self.is_draining = self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._requests or self._is_closed):
                    self._changed.wait()
                if self._is_closed:
                    return
                job, fields = self._requests.popleft()
                self.running = 1
            if not job.is_cancelled:
                job.emit(self._answer(job, fields))
            self.running = 0

    def _answer(self, job: Job, fields: dict[str, Any]) -> Piece | Exception:
        if time.monotonic() > job.deadline:
            return TimedOut("The answer was not complete in the time that this server allows.")
        try:
            completion = openai.completion(self.predict(fields))
        except Exception as error:  # it ends this request, not the server
            return error
        choice, usage = completion["choices"][0], completion["usage"]
        text, seconds = choice["message"]["content"], time.perf_counter() - job.arrived
        counts = usage["prompt_tokens"], usage["completion_tokens"]
        return Piece(text, answer=Answer(text, choice["finish_reason"], *counts, seconds, 0.0, ()))


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
