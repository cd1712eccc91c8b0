"""The model's code as MLflow stores it: run at load, so that nothing has to be unpickled."""

from mlflow.models import set_model

from phi3kit.wrappers import Phi3Model

set_model(Phi3Model())
