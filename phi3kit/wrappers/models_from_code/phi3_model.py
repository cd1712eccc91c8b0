"""The model as code, which MLflow stores and runs at load: nothing is pickled."""

from mlflow.models import set_model

from phi3kit.wrappers import Phi3Model

set_model(Phi3Model())
