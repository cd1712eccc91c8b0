"""The chat contract over the ONNX model: chat messages in, one chat completion for each request out."""

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
from phi3kit.wrappers.inputs import Request, answers, bad_request, checked, only_row, rows
from phi3kit.wrappers.prompt import ARTIFACT
from phi3kit.wrappers.schema import option_columns

# Fields that MLflow would drop if the signature did not name them. The last is transformers' own name, and is refused.
_FURTHER = ("max_completion_tokens", "params", "max_new_tokens")


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

        Options stand in a request, beside `messages` or in an object `params`. The argument `params` counts where
        Python calls this method: MLflow drops it, because the signature declares no params.

        Raises:
            MlflowException: a bad request (400), naming the field that was refused, and its row if there are several.
        """
        with bad_request():
            requests = checked(rows(model_input), params, self._request)
            return [self._completion(answer) for answer in answers(self.engine, requests)]

    def predict_stream(
        self, context: Any, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Answer one request as chat completion chunks; the last carries `finish_reason` and `usage`."""
        with bad_request():
            request = only_row(model_input) | {"stream": False}
            stream = self.engine.stream(*checked([request], params, self._request)[0])
        chunks = openai.Chunks(self.model_name)
        with stream:
            for text in stream:
                yield chunks.piece(text)
        assert stream.answer
        yield chunks.end(stream.answer.finish_reason, _usage(stream.answer))

    def _request(self, fields: dict[str, Any]) -> Request:
        """Check one request and return its prompt's token ids and its options."""
        openai.refuse_other_than(openai.NEUTRAL, fields)
        limit = openai.rename_max_tokens(fields)
        ids = self.template.encode(fields.pop("messages", None))
        try:
            options = Options(**fields)
            return self.engine.check_prompt("messages", ids, options), options
        except InvalidRequest as refused:
            raise refused.renamed("max_tokens", limit) from None

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
        others = [ColSpec(AnyType(), name, required=False) for name in (*_FURTHER, *openai.NEUTRAL)]
        # Without params: MLflow's server would move options out of a request into them, and refuse null for `stop`, a
        # single text, and 2.0 for a whole number.
        inputs = [ColSpec(Array(message), "messages"), *option_columns(), *others]
        return ModelSignature(Schema(inputs), CHAT_MODEL_OUTPUT_SCHEMA)

    @staticmethod
    def input_example() -> dict[str, Any]:
        """Return a request; MLflow runs it once while logging, so it is short."""
        return {"messages": [{"role": "user", "content": "What is the capital of Spain?"}], "max_tokens": 16}


def _usage(answer: Answer) -> dict[str, int]:
    return openai.usage(answer.prompt_tokens, answer.completion_tokens)
