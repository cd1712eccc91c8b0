"""The HTTP routes: OpenAI's, MLflow's, and those that a supervisor and Prometheus ask."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse

from phi3kit.chat import openai
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Answer
from phi3kit.serving import body
from phi3kit.serving.guard import Guard
from phi3kit.serving.job import Busy, Draining, Job, Piece, TimedOut
from phi3kit.serving.metrics import Metrics
from phi3kit.serving.served import Served

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_GONE = 499  # nginx's status for a client that went away


def create_app(
    served: Served,
    backend: Any,
    *,
    seconds: float,
    keys: Iterable[str] = (),
    origins: Iterable[str] = (),
    any_host: bool = True,
    scoring: Any,
) -> Any:
    """Return the ASGI app of a server.

    Args:
        served: the model.
        backend: answers for it, a `SlotBackend` or a `PipelineBackend`.
        seconds: that a request may take.
        keys: any of them opens; without one, no key is asked for.
        origins: of web pages that a browser may let in.
        any_host: whether requests may name any host; otherwise this machine's loopback only, so that no web page
            reaches the server under a name of its own.
        scoring: MLflow's scoring app, for every path that is not ours.
    """
    app = FastAPI(title="phi3kit", docs_url=None, redoc_url=None)
    metrics = Metrics(backend.queue)
    chat = ChatRoute(served, backend, metrics, seconds)
    json_body = {"content": {"application/json": {"schema": body.json_schema()}}, "required": True}
    app.post("/v1/chat/completions", openapi_extra={"requestBody": json_body}, responses=_RESPONSES)(chat.answer)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(served)]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready", responses={503: {}})
    async def ready() -> JSONResponse:
        is_draining = backend.queue.is_draining
        return JSONResponse({"status": "draining" if is_draining else "ready"}, 503 if is_draining else 200)

    @app.get("/metrics")
    async def metrics_page() -> Response:
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")

    app.mount("/", scoring)
    guarded: Any = Guard(app, keys)
    if origins:
        headers = ["authorization", "content-type"]
        guarded = CORSMiddleware(guarded, allow_origins=list(origins), allow_methods=["*"], allow_headers=headers)
    return guarded if any_host else TrustedHostMiddleware(guarded, allowed_hosts=list(LOOPBACK))


_ERROR = {"content": {"application/json": {"schema": {"type": "object", "required": ["error"]}}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text} | _ERROR
    for status, text in (
        (400, "The request is refused; the error names the field."),
        (401, "The key is missing or unknown."),
        (404, "There is no such model here."),
        (413, "The body is too large."),
        (429, "Too many requests wait; `Retry-After` says when to ask again."),
        (503, "The server is shutting down."),
        (504, "The answer was not complete in time."),
    )
}


class ChatRoute:
    """`POST /v1/chat/completions`.

    Args:
        served: the model.
        backend: answers for it.
        metrics: count the requests.
        seconds: that a request may take.
    """

    def __init__(self, served: Served, backend: Any, metrics: Metrics, seconds: float) -> None:
        self._served, self._backend, self._metrics, self._seconds = served, backend, metrics, seconds

    async def answer(self, request: Request) -> Response:
        """Answer one request, whole or as a stream."""
        start = time.perf_counter()
        events: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(event: Piece | Exception) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        deadline = time.monotonic() + self._seconds
        try:
            wanted = body.parse(await request.body())
            if wanted.model is not None and wanted.model not in self._served.names:
                raise _UnknownModel(wanted.model, self._served.id)
            owner = request.scope["state"]["owner"]
            job = await anyio.to_thread.run_sync(self._backend.start, wanted, emit, deadline, owner)
        except Exception as error:
            return self._error(error, start)
        if wanted.stream:
            pieces = self._stream(wanted, job, events, start)
            return StreamingResponse(pieces, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return await self._whole(request, wanted, job, events, start)

    async def _whole(
        self, request: Request, wanted: body.ChatRequest, job: Job, events: "asyncio.Queue[Any]", start: float
    ) -> Response:
        collected = asyncio.create_task(_collect(events))
        gone = asyncio.create_task(_until_gone(request))
        try:
            await asyncio.wait([collected, gone], return_when=asyncio.FIRST_COMPLETED)
            if not collected.done():
                self._metrics.ended(_GONE, time.perf_counter() - start)
                return Response(status_code=_GONE)
            pieces = collected.result()
        except Exception as error:
            return self._error(error, start)
        finally:
            collected.cancel()
            gone.cancel()
            self._backend.queue.cancel(job)
        answer = pieces[-1].answer
        self._metrics.ended(200, time.perf_counter() - start, answer)
        logprobs = None if wanted.top_logprobs is None else [e for p in pieces for e in self._logprobs(p)]
        return JSONResponse(
            openai.chat_completion(
                model=self._served.id,
                text=answer.text,
                finish_reason=answer.finish_reason,
                usage=_usage(answer, job),
                logprobs=logprobs,
            )
        )

    async def _stream(
        self, wanted: body.ChatRequest, job: Job, events: "asyncio.Queue[Any]", start: float
    ) -> AsyncIterator[str]:
        chunks, status, answer = openai.Chunks(self._served.id), _GONE, None
        try:
            yield _event(chunks.piece(""))
            while answer is None:
                piece = await events.get()
                if isinstance(piece, Exception):
                    status, content, _ = _refusal(piece)
                    yield _event(content)
                    return
                logprobs = None if wanted.top_logprobs is None else self._logprobs(piece)
                if piece.text or logprobs:
                    yield _event(chunks.piece(piece.text, logprobs))
                answer = piece.answer
            yield _event(chunks.end(answer.finish_reason))
            if wanted.include_usage:
                yield _event(chunks.usage(_usage(answer, job)))
            yield "data: [DONE]\n\n"
            status = 200
        finally:
            self._backend.queue.cancel(job)
            self._metrics.ended(status, time.perf_counter() - start, answer)

    def _logprobs(self, piece: Piece) -> list[dict[str, Any]]:
        if piece.logprob is None:
            return []
        text = self._backend.token_text
        top = [(text(token), value) for token, value in piece.logprob.top]
        return [openai.logprob(text(piece.logprob.token), piece.logprob.logprob, top)]

    def _error(self, error: Exception, start: float) -> JSONResponse:
        status, content, headers = _refusal(error)
        self._metrics.ended(status, time.perf_counter() - start)
        return JSONResponse(content, status, headers=headers)


class _UnknownModel(Exception):
    def __init__(self, name: str, served: str) -> None:
        super().__init__(f"There is no model {name:.80} here, only {served}.")


def _refusal(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, body and headers for an exception; OpenAI's client retries 429 and 5xx unless told not to."""
    if isinstance(error, InvalidRequest):
        content = openai.error(str(error), type="invalid_request_error", param=error.field, code="invalid_value")
        return 400, content, {}
    if isinstance(error, _UnknownModel):
        return 404, openai.error(str(error), type="invalid_request_error", param="model", code="model_not_found"), {}
    if isinstance(error, Busy):
        return 429, openai.error(str(error), type="rate_limit_error", code="queue_full"), {"Retry-After": "1"}
    if isinstance(error, Draining):
        return 503, openai.error(str(error), type="server_error", code="draining"), {"Retry-After": "1"}
    if isinstance(error, TimedOut):
        return 504, openai.error(str(error), type="server_error", code="timeout"), {"x-should-retry": "false"}
    message = f"The model failed: {type(error).__name__}."
    return 500, openai.error(message, type="server_error", code="internal_error"), {"x-should-retry": "false"}


def _model(served: Served) -> dict[str, Any]:
    about = {"version": served.version, "aliases": list(served.aliases), "run_id": served.run_id, "uri": served.uri}
    created = int(served.created)
    return {"id": served.id, "object": "model", "created": created, "owned_by": "phi3kit", **about}


def _usage(answer: Answer, job: Job) -> dict[str, Any]:
    return openai.usage(answer.prompt_tokens, answer.completion_tokens, job.cached)


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


async def _collect(events: "asyncio.Queue[Any]") -> list[Piece]:
    pieces: list[Piece] = []
    while not pieces or pieces[-1].answer is None:
        event = await events.get()
        if isinstance(event, Exception):
            raise event
        pieces.append(event)
    return pieces


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
