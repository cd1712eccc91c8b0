"""The prompt contract of the 2024 walkthrough: N prompts in, N answers out, with options per call."""

from collections.abc import Iterator
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema

from phi3kit.generation import Engine, Options
from phi3kit.wrappers.inputs import bad_request, present, rows
from phi3kit.wrappers.schema import option_params

ARTIFACT = "phi3-mini-onnx"


class Phi3Model(mlflow.pyfunc.PythonModel):
    """`{"prompt": text}` in, text out. Control tokens in a prompt count as such: the caller writes the chat format."""

    def load_context(self, context: Any) -> None:
        """Open the ONNX folder that the artifact `phi3-mini-onnx` names."""
        self.engine = Engine.open(context.artifacts[ARTIFACT])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[str]:
        """Answer every row's `prompt`, in order, all with the same `params`.

        Raises:
            MlflowException: a bad request (400), naming the prompt or param that was refused.
        """
        with bad_request():
            prompts = [row.get("prompt") for row in rows(model_input)]
            answers = self.engine.generate(prompts, Options(**present(params or {})))
        return [answer.text for answer in answers]

    def predict_stream(
        self, context: Any, model_input: dict[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[str]:
        """Answer one prompt piece by piece; closing the iterator ends the generation."""
        with bad_request():
            stream = self.engine.stream(model_input["prompt"], Options(**present(params or {})))
        with stream:
            yield from stream

    @staticmethod
    def signature() -> ModelSignature:
        """Return the prompt contract, with every generation option as a param."""
        return ModelSignature(Schema([ColSpec("string", "prompt")]), Schema([ColSpec("string")]), option_params())

    @staticmethod
    def input_example() -> tuple[dict[str, str], dict[str, Any]]:
        """Return a request and its params; MLflow runs it once while logging, so it is short."""
        prompt = "<|system|>You are a stand-up comedian.<|end|><|user|>Tell me a joke about atom<|end|><|assistant|>"
        return {"prompt": prompt}, {"max_tokens": 16}
