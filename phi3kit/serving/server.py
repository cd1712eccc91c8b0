"""One server process: it opens a model, listens, and ends only when the answers in flight are complete."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.generation.model import check, default_threads
from phi3kit.serving.app import LOOPBACK, create_app
from phi3kit.serving.backends import SlotBackend, SlotEngine
from phi3kit.serving.decoder import Decoder
from phi3kit.serving.graph import Graph
from phi3kit.serving.guard import read_keys
from phi3kit.serving.invocations import scoring_app
from phi3kit.serving.memory import Plan, plan
from phi3kit.serving.pipeline import PipelineBackend
from phi3kit.serving.served import Served
from phi3kit.serving.slots import Slots
from phi3kit.system import folders

DRAIN_SECONDS = 25  # for the answers in flight; with the last seconds no more than the 30 that Kubernetes gives
_LAST_SECONDS = 3  # for responses that are being written


@dataclass(frozen=True)
class Settings:
    """How to serve. What is None is chosen for this machine.

    Attributes:
        host: the address to listen on.
        port: 0 takes a free one.
        api_key_file: a file with one key in a line.
        no_api_key: whether other machines may ask without a key.
        origins: of web pages that may ask.
        slots: requests that are answered together.
        context: tokens of each.
        kv_memory: bytes for the slots' caches.
        max_queue: requests that may wait.
        timeout: seconds that a request may take.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: Path | None = None
    no_api_key: bool = False
    origins: tuple[str, ...] = ()
    slots: int | None = None
    context: int | None = None
    kv_memory: int | None = None
    max_queue: int = 64
    timeout: float = 120.0


def open_slots(folder: Path, settings: Settings) -> tuple[SlotBackend, Plan]:
    """Open an ONNX folder, and the slots in which it answers.

    Raises:
        WeightsError: the folder is damaged, for a GPU, needs more memory than there is, or of a form that slots cannot
            run.
        InvalidRequest: a context that the model does not have.
    """
    import onnxruntime
    import onnxruntime_genai

    provider = check(folder).provider
    if provider != "cpu":
        raise WeightsError(f"{folder} is for {provider}, and slots are for CPUs: serve a model logged for a CPU.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    path = folder / folders.read_json(folder / "genai_config.json")["model"]["decoder"].get("filename", "model.onnx")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a type for each of its codes, without a common base
        reason = " ".join(str(error).split())
        raise WeightsError(f"onnxruntime cannot open {path}: {reason:.300}. Fetch or export it again.") from None
    graph = Graph.read(folder, session)
    chosen = plan(graph, settings.slots, settings.context, settings.kv_memory)
    tokenizer = onnxruntime_genai.Tokenizer(str(folder))
    slots = Slots(Decoder(session, graph, chosen.slots, chosen.context), tokenizer, settings.max_queue)
    return SlotBackend(SlotEngine(slots, tokenizer, settings.timeout), folder), chosen


def serve(uri: str, settings: Settings, announce: Any) -> None:
    """Serve a model until SIGTERM or Ctrl-C, then finish the answers in flight.

    Args:
        uri: as `Served.find` takes it.
        settings: how to serve.
        announce: called with each line that tells a person what is served, and where.

    Raises:
        WeightsError: the model cannot be served.
        InvalidRequest: a setting is wrong.
    """
    if settings.host not in LOOPBACK and not settings.api_key_file and not settings.no_api_key:
        allowed = "127.0.0.1, or --api-key-file with it (--no-api-key lets anyone in who reaches this machine)"
        raise InvalidRequest("host", settings.host, allowed)
    keys = read_keys(settings.api_key_file) if settings.api_key_file else []
    served = Served.find(uri)
    if served.is_pipeline:
        import mlflow

        backend: Any = PipelineBackend(mlflow.pyfunc.load_model(str(served.folder)), settings.max_queue)
        announce(f"{served.id}: a pipeline, one request at a time")
    else:
        backend, chosen = open_slots(served.onnx_folder(), settings)
        announce(f"{served.id}: {chosen.slots} slots of {chosen.context:,} tokens, up to {chosen.bytes / 1e6:,.0f} MB")
    app = create_app(
        served,
        backend,
        seconds=settings.timeout,
        keys=keys,
        origins=settings.origins,
        any_host=bool(keys) or settings.host not in LOOPBACK,
        scoring=scoring_app(served, backend),
    )
    config = uvicorn.Config(
        app,
        settings.host,
        settings.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    server = _Server(config, backend.queue, announce)
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that it cannot listen
        raise InvalidRequest("port", settings.port, f"one that is free on {settings.host}") from None
    finally:
        backend.queue.close()


class _Server(uvicorn.Server):
    """Ends when it is told to, as soon as nothing is in flight; told twice, at once."""

    def __init__(self, config: uvicorn.Config, queue: Any, announce: Any) -> None:
        super().__init__(config)
        self._queue, self._announce, self._until = queue, announce, 0.0

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._announce(f"Listening on http://{host}:{port}/v1, and /invocations beside it; Ctrl-C ends it.")

    def handle_exit(self, sig: int, frame: Any) -> None:
        # Not uvicorn's own: it would raise the signal again at the end, so that the exit code is not 0.
        if self._queue.is_draining:
            self.should_exit = self.force_exit = True
        self._queue.drain()
        self._until = time.monotonic() + DRAIN_SECONDS

    async def on_tick(self, counter: int) -> bool:
        if self._queue.is_draining:
            is_idle = not (self._queue.running or self._queue.waiting)
            self.should_exit = self.should_exit or is_idle or time.monotonic() > self._until
        return await super().on_tick(counter)
