"""The prompt contract of the 2024 walkthrough: N prompts in, N answers out, with options per call."""

from collections.abc import Iterator
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema

from phi3kit.generation import Engine, Options
from phi3kit.wrappers.inputs import Request, answers, bad_request, checked, only_row, rows
from phi3kit.wrappers.schema import option_columns, option_object, option_params

ARTIFACT = "phi3-mini-onnx"


class Phi3Model(mlflow.pyfunc.PythonModel):
    """`{"prompt": text}` in, text out. Control tokens in a prompt count as such: the caller writes the chat format."""

    def load_context(self, context: Any) -> None:
        """Open the ONNX folder that the artifact `phi3-mini-onnx` names."""
        self.engine = Engine.open(context.artifacts[ARTIFACT])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[str]:
        """Answer every row's `prompt`, in order.

        Options stand in `params`, for all rows, or in a row, under their names or in an object `params`: those of a
        row win. MLflow takes the object `params` in all rows of a table or in none of them; an option under its name
        may stand in any row.

        Raises:
            MlflowException: a bad request (400), naming the prompt or option that was refused, and its row if there
                are several.
        """
        with bad_request():
            requests = checked(rows(model_input), params, self._request)
            return [answer.text for answer in answers(self.engine, requests)]

    def predict_stream(
        self, context: Any, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[str]:
        """Answer one prompt piece by piece; closing the iterator ends the generation."""
        with bad_request():
            stream = self.engine.stream(*checked([only_row(model_input)], params, self._request)[0])
        with stream:
            yield from stream

    def _request(self, fields: dict[str, Any]) -> Request:
        """Check one request and return its prompt's token ids and its options."""
        prompt, options = fields.pop("prompt", None), Options(**fields)
        return self.engine.check_prompt("prompt", prompt, options), options

    @staticmethod
    def signature() -> ModelSignature:
        """Return the prompt contract, with every generation option as a param and as an optional field of a row."""
        # MLflow silently drops fields that a signature does not name.
        inputs = [ColSpec("string", "prompt"), *option_columns(), ColSpec(option_object(), "params", required=False)]
        return ModelSignature(Schema(inputs), Schema([ColSpec("string")]), option_params())

    @staticmethod
    def input_example() -> tuple[dict[str, str], dict[str, Any]]:
        """Return a request and its params; MLflow runs it once while logging, so it is short."""
        prompt = "<|system|>You are a stand-up comedian.<|end|><|user|>Tell me a joke about atom<|end|><|assistant|>"
        return {"prompt": prompt}, {"max_tokens": 16}
