"""A model from code without weights: it answers each row with the params that MLflow passed on, as JSON."""

import json
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Echo(PythonModel):
    """Shows which params the signature of the stored model lets through."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[str]:
        """Answer each row with the params, as JSON."""
        return [json.dumps(params or {})] * len(model_input)


set_model(Echo())
