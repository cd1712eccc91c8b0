"""MLflow's own scoring routes over the slots: `/invocations`, `/ping` and `/version`, with one copy of the weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

from phi3kit.serving.backends import SlotBackend
from phi3kit.serving.job import Busy, Draining, TimedOut
from phi3kit.serving.pipeline import PipelineBackend
from phi3kit.serving.served import Served
from phi3kit.wrappers import Phi3Chat, Phi3Model

_STATUS = {Busy: "RESOURCE_EXHAUSTED", Draining: "TEMPORARILY_UNAVAILABLE", TimedOut: "DEADLINE_EXCEEDED"}


class _Predictor:
    """What MLflow calls in place of a model that it loaded itself.

    Args:
        predict: takes the input and the params.
    """

    def __init__(self, predict: Callable[[Any, Any], Any]) -> None:
        self._predict = predict

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._predict(model_input, params)
        except tuple(_STATUS) as error:
            raise MlflowException(str(error), error_code=_STATUS[type(error)]) from None


def scoring_app(served: Served, backend: SlotBackend | PipelineBackend) -> Any:
    """Return MLflow's scoring server, a FastAPI app, for a model that the backend answers for."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    predict = backend.predict if isinstance(backend, PipelineBackend) else _wrapped(served, backend)
    return scoring_server.init(mlflow.pyfunc.PyFuncModel(served.meta, _Predictor(predict)))


def _wrapped(served: Served, backend: SlotBackend) -> Callable[[Any, Any], Any]:
    """Return the `predict` of the wrapper that has the model's contract, with the slots as its engine."""
    wrapper: Any = Phi3Chat() if "messages" in served.meta.signature.inputs.input_names() else Phi3Model()
    wrapper.engine, wrapper.template = backend.engine, backend.template
    wrapper.model_name = (served.meta.flavors["python_function"].get("config") or {}).get("model", served.id)
    return partial(wrapper.predict, None)
