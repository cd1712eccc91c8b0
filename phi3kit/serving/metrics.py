"""What Prometheus may read: OpenTelemetry's names for generative models, and vLLM's for the queue."""

from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from phi3kit.generation import Answer

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384)


class Metrics:
    """Counts requests. One for each server.

    Args:
        queue: has `running` and `waiting`.
    """

    def __init__(self, queue: Any) -> None:
        self._registry = CollectorRegistry()

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self._registry)

        seconds = (*_SECONDS, float("inf"))
        self._duration = histogram(
            "gen_ai_server_request_duration_seconds", "From arrival to the end, by HTTP status.", ("status",), seconds
        )
        self._first = histogram(
            "gen_ai_server_time_to_first_token_seconds", "From arrival to the first token.", (), seconds
        )
        self._token = histogram(
            "gen_ai_server_time_per_output_token_seconds", "Between tokens, of whole answers.", (), seconds
        )
        self._usage = histogram("gen_ai_client_token_usage", "Tokens of a request.", ("token_type",), _TOKENS)
        for name, text in (("running", "have a slot"), ("waiting", "wait for one")):
            gauge = Gauge(f"num_requests_{name}", f"Requests that {text}.", registry=self._registry)
            gauge.set_function(lambda name=name: getattr(queue, name))

    def ended(self, status: int, seconds: float, answer: Answer | None = None) -> None:
        """Count a request; 499 is the status of one whose client went away."""
        self._duration.labels(str(status)).observe(seconds)
        if answer:
            self._first.observe(answer.seconds_to_first_token)
            if answer.tokens_per_second:
                self._token.observe(1 / answer.tokens_per_second)
            self._usage.labels("input").observe(answer.prompt_tokens)
            self._usage.labels("output").observe(answer.completion_tokens)

    def page(self) -> bytes:
        """Return what `/metrics` answers."""
        return generate_latest(self._registry)
