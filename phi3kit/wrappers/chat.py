"""The chat contract over the ONNX model: chat messages in, one chat completion out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.llm import CHAT_MODEL_OUTPUT_SCHEMA
from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

from phi3kit.chat import ChatTemplate, openai
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Answer, Engine, Options
from phi3kit.wrappers.inputs import bad_request, rows
from phi3kit.wrappers.prompt import ARTIFACT
from phi3kit.wrappers.schema import option_columns


class Phi3Chat(mlflow.pyfunc.PythonModel):
    """`{"messages": [...], "max_tokens": 64, ...}` in, one chat completion out; no option is ignored."""

    def load_context(self, context: Any) -> None:
        """Open the ONNX folder that the artifact `phi3-mini-onnx` names, and its chat template."""
        folder = Path(context.artifacts[ARTIFACT])
        self.engine, self.template = Engine.open(folder), ChatTemplate(folder)
        self.model_name = context.model_config["model"]

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer one request with one completion, several requests (rows) with a list of them, in order.

        Raises:
            MlflowException: a bad request (400), naming the field that was refused.
        """
        with bad_request():
            requests = [self._request(row) for row in rows(model_input)]
            answers: list[Any] = [None] * len(requests)
            for options in {options for _, options in requests}:  # requests with equal options share a batch
                indices = [i for i, request in enumerate(requests) if request[1] == options]
                batch = self.engine.generate([requests[i][0] for i in indices], options)
                for i, answer in zip(indices, batch, strict=True):
                    answers[i] = self._completion(answer)
        return answers[0] if len(answers) == 1 else answers

    def predict_stream(
        self, context: Any, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answer one request as chat completion chunks; the last carries `finish_reason` and `usage`."""
        with bad_request():
            requests = rows(model_input)
            if len(requests) != 1:
                raise InvalidRequest("request", requests, "one request: predict_stream streams one answer")
            stream = self.engine.stream(*self._request(requests[0] | {"stream": False}))
        chunks = openai.Chunks(self.model_name)
        with stream:
            for text in stream:
                yield chunks.piece(text)
        assert stream.answer
        yield chunks.end(stream.answer.finish_reason, _usage(stream.answer))

    def _request(self, fields: dict[str, Any]) -> tuple[list[int], Options]:
        """Check one request and return its prompt's token ids and its options."""
        fields = dict(fields)
        if (n := fields.pop("n", 1)) != 1:
            raise InvalidRequest("n", n, "1: one answer for each request")
        if stream := fields.pop("stream", False):
            raise InvalidRequest("stream", stream, "false: predict gives the whole answer, predict_stream streams")
        ids, options = self.template.encode(fields.pop("messages", None)), Options(**fields)
        return self.engine.check_prompt("messages", ids, options), options

    def _completion(self, answer: Answer) -> dict[str, Any]:
        return openai.chat_completion(
            model=self.model_name, text=answer.text, finish_reason=answer.finish_reason, usage=_usage(answer)
        )

    @staticmethod
    def signature() -> ModelSignature:
        """Return the chat contract; MLflow silently drops fields that a signature does not name, so it names all."""
        message = Object([Property("role", DataType.string), Property("content", DataType.string)])
        others = [ColSpec("long", "n", required=False), ColSpec("boolean", "stream", required=False)]
        inputs = Schema([ColSpec(Array(message), "messages"), *option_columns(), *others])
        return ModelSignature(inputs, CHAT_MODEL_OUTPUT_SCHEMA)

    @staticmethod
    def input_example() -> dict[str, Any]:
        """Return a request; MLflow runs it once while logging, so it is short."""
        return {"messages": [{"role": "user", "content": "What is the capital of Spain?"}], "max_tokens": 16}


def _usage(answer: Answer) -> dict[str, int]:
    return openai.usage(answer.prompt_tokens, answer.completion_tokens)
