"""The chat contract over the ONNX model: chat messages in, one chat completion for each request out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.llm import CHAT_MODEL_OUTPUT_SCHEMA
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Object, Property, Schema

from phi3kit.chat import ChatTemplate, openai
from phi3kit.chat.messages import OPENAI_FIELDS
from phi3kit.errors import InvalidRequest
from phi3kit.generation import Answer, Engine, Options
from phi3kit.wrappers.inputs import answers, bad_request, only_row, rows
from phi3kit.wrappers.prompt import ARTIFACT
from phi3kit.wrappers.schema import option_columns

# OpenAI's options without an effect here, each with the value that asks for none. MLflow silently drops fields that a
# signature does not name; these are named, so that any other value is refused.
_NEUTRAL: dict[str, Any] = {
    "n": 1,
    "stream": False,  # `predict_stream` streams
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "response_format": {"type": "text"},
    "tools": [],
}


class Phi3Chat(mlflow.pyfunc.PythonModel):
    """`{"messages": [...], "max_tokens": 64, ...}` in, a list of chat completions out, one for each request."""

    def load_context(self, context: Any) -> None:
        """Open the ONNX folder that the artifact `phi3-mini-onnx` names, and its chat template."""
        folder = Path(context.artifacts[ARTIFACT])
        self.engine, self.template = Engine.open(folder), ChatTemplate(folder)
        self.model_name = context.model_config["model"]

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer every request (row) with one completion, in order.

        The result is a list for a single request too: MLflow hands a dict, a list of one and a table of one row over
        as the same table.

        Raises:
            MlflowException: a bad request (400), naming the field that was refused.
        """
        with bad_request():
            requests = [self._request(row) for row in rows(model_input)]
            return [self._completion(answer) for answer in answers(self.engine, requests)]

    def predict_stream(
        self, context: Any, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answer one request as chat completion chunks; the last carries `finish_reason` and `usage`."""
        with bad_request():
            stream = self.engine.stream(*self._request(only_row(model_input) | {"stream": False}))
        chunks = openai.Chunks(self.model_name)
        with stream:
            for text in stream:
                yield chunks.piece(text)
        assert stream.answer
        yield chunks.end(stream.answer.finish_reason, _usage(stream.answer))

    def _request(self, fields: dict[str, Any]) -> tuple[list[int], Options]:
        """Check one request and return its prompt's token ids and its options."""
        for name, neutral in _NEUTRAL.items():
            if (value := fields.pop(name, neutral)) != neutral:
                raise InvalidRequest(name, value, f"{json.dumps(neutral)}, or leave it out: there is no other")
        if newer := "max_completion_tokens" in fields:
            if "max_tokens" in fields:
                raise InvalidRequest("max_tokens", fields["max_tokens"], "either this or max_completion_tokens")
            fields["max_tokens"] = fields.pop("max_completion_tokens")
        ids = self.template.encode(fields.pop("messages", None))
        try:
            options = Options(**fields)
            return self.engine.check_prompt("messages", ids, options), options
        except InvalidRequest as refused:  # by the name that the caller wrote
            name = "max_completion_tokens" if newer and refused.field == "max_tokens" else refused.field
            raise InvalidRequest(name, refused.value, refused.allowed) from None

    def _completion(self, answer: Answer) -> dict[str, Any]:
        return openai.chat_completion(
            model=self.model_name, text=answer.text, finish_reason=answer.finish_reason, usage=_usage(answer)
        )

    @staticmethod
    def signature() -> ModelSignature:
        """Return the chat contract."""
        unused = [Property(name, AnyType(), required=False) for name in OPENAI_FIELDS]
        content = Property("content", DataType.string, required=False)
        message = Object([Property("role", DataType.string), content, *unused])
        others = [ColSpec(AnyType(), name, required=False) for name in ("max_completion_tokens", *_NEUTRAL)]
        inputs = Schema([ColSpec(Array(message), "messages"), *option_columns(), *others])
        return ModelSignature(inputs, CHAT_MODEL_OUTPUT_SCHEMA)

    @staticmethod
    def input_example() -> dict[str, Any]:
        """Return a request; MLflow runs it once while logging, so it is short."""
        return {"messages": [{"role": "user", "content": "What is the capital of Spain?"}], "max_tokens": 16}


def _usage(answer: Answer) -> dict[str, int]:
    return openai.usage(answer.prompt_tokens, answer.completion_tokens)
