"""The chat contract over the ONNX model: chat messages in, one chat completion out."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.llm import CHAT_MODEL_OUTPUT_SCHEMA
from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

from phi3kit.chat import ChatTemplate, response
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Completion, Engine, Options
from phi3kit.wrappers.prompt import ARTIFACT
from phi3kit.wrappers.requests import refused_as_bad_request, rows


class Phi3Chat(mlflow.pyfunc.PythonModel):
    """`{"messages": [...], "max_tokens": 64, ...}` in, one chat completion out; every option it names counts."""

    def load_context(self, context: Any) -> None:
        """Open the ONNX folder that the artifact `phi3-mini-onnx` names, and its chat template."""
        folder = Path(context.artifacts[ARTIFACT])
        self.engine, self.template = Engine(folder), ChatTemplate(folder)
        self.model_name = context.model_config["model"]

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer one request with one completion, several requests (rows) with a list of them, in order.

        Raises:
            MlflowException: a bad request (400), naming the field that was refused.
        """
        with refused_as_bad_request():
            requests = [self._request(row) for row in rows(model_input)]
            answers: list[Any] = [None] * len(requests)
            for options in {options for _, options in requests}:  # requests with equal options share a batch
                indices = [i for i, request in enumerate(requests) if request[1] == options]
                batch = self.engine.generate([requests[i][0] for i in indices], options)
                for i, answer in zip(indices, batch, strict=True):
                    answers[i] = self._response(answer)
        return answers[0] if len(answers) == 1 else answers

    def predict_stream(
        self, context: Any, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answer one request as chat completion chunks; the last carries `finish_reason` and `usage`."""
        with refused_as_bad_request():
            requests = rows(model_input)
            if len(requests) != 1:
                raise InvalidRequest("request", requests, "one request: predict_stream streams one answer")
            stream = self.engine.stream(*self._request(requests[0] | {"stream": False}))
        chunk = {"id": str(uuid.uuid4()), "object": "chat.completion.chunk", "created": int(time.time())}
        chunk["model"] = self.model_name
        delta = {"role": "assistant"}
        with stream:
            for text in stream:
                yield chunk | {"choices": [{"index": 0, "delta": delta | {"content": text}, "finish_reason": None}]}
                delta = {}
        assert stream.completion
        end = self._response(stream.completion)
        choice = {"index": 0, "delta": {}, "finish_reason": stream.completion.finish_reason}
        yield chunk | {"choices": [choice], "usage": end["usage"]}

    def _request(self, fields: dict[str, Any]) -> tuple[list[int], Options]:
        """Check one request and return its prompt's token ids and its options."""
        fields = dict(fields)
        if (n := fields.pop("n", 1)) != 1:
            raise InvalidRequest("n", n, "1: one answer for each request")
        if stream := fields.pop("stream", False):
            raise InvalidRequest("stream", stream, "false: predict gives the whole answer, predict_stream streams")
        ids, options = self.template.encode(fields.pop("messages", None)), Options(**fields)
        return self.engine.checked("messages", ids, options), options

    def _response(self, answer: Completion) -> dict[str, Any]:
        return response(
            model=self.model_name,
            text=answer.text,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    @staticmethod
    def signature() -> ModelSignature:
        """Return the chat contract; MLflow drops silently whatever a signature does not name, so it names all."""
        message = Object([Property("role", DataType.string), Property("content", DataType.string)])
        options = [
            ColSpec("long", "max_tokens", required=False),
            ColSpec("double", "temperature", required=False),
            ColSpec("double", "top_p", required=False),
            ColSpec("long", "top_k", required=False),
            ColSpec(Array(DataType.string), "stop", required=False),
            ColSpec("long", "seed", required=False),
            ColSpec("double", "repetition_penalty", required=False),
            ColSpec("long", "n", required=False),
            ColSpec("boolean", "stream", required=False),
        ]
        return ModelSignature(
            inputs=Schema([ColSpec(Array(message), "messages"), *options]), outputs=CHAT_MODEL_OUTPUT_SCHEMA
        )

    @staticmethod
    def input_example() -> dict[str, Any]:
        """Return a request; MLflow runs it once while logging, so it is short."""
        return {"messages": [{"role": "user", "content": "What is the capital of Spain?"}], "max_tokens": 16}
