"""The first cell of a notebook: what is installed, and how much the libraries may say."""

import logging
import os
import platform
import warnings
from importlib.metadata import version

import pandas as pd


def versions(*packages: str) -> pd.DataFrame:
    """Return Python's version and the packages', one row each."""
    found = {"python": platform.python_version()} | {package: version(package) for package in packages}
    return pd.DataFrame({"version": found}).rename_axis("package")


def quiet() -> None:
    """Let the libraries report errors only, and draw no progress bars.

    A notebook is read long after it ran: hints about next year's defaults hide what matters there. Leave the call
    out to see all of it.
    """
    import mlflow  # noqa: F401  it sets its logger's level at import, so import first
    import transformers
    from huggingface_hub.utils import disable_progress_bars

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bars()
    warnings.filterwarnings("ignore")


def somebody_watches() -> bool:
    """Whether a person may be at this notebook: Jupyter's server names the session to the kernels it starts."""
    return "JPY_SESSION_NAME" in os.environ
