"""A model from code that holds no weights: it answers every row with the params that arrived, as JSON."""

import json
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Echo(PythonModel):
    """Whatever the signature it is stored with, it tells what MLflow let through."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[str]:
        """Answer each row with the params, as JSON."""
        return [json.dumps(params or {})] * len(model_input)


set_model(Echo())
