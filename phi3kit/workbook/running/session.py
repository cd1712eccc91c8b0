"""The first cells of a notebook: which versions are installed, and how much the libraries may print."""

import logging
import os
import platform
import warnings
from importlib.metadata import version

import pandas as pd

from phi3kit.system import requirements


def versions(*packages: str) -> pd.DataFrame:
    """Return the versions of Python and of some packages, one row each."""
    rows = {"python": platform.python_version()} | {package: version(package) for package in packages}
    return pd.DataFrame({"version": rows}).rename_axis("package")


def quiet() -> None:
    """Let the libraries report errors only, and draw no progress bars.

    A notebook is read long after it ran, and warnings about future defaults hide its results. Leave the call out to see
    all of them.

    Raises:
        MissingExtra: a package that the notebooks work with is missing.
    """
    requirements.need_extra("The workbook", "checkpoint")
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


def is_interactive() -> bool:
    """Whether a person may be at this notebook: Jupyter's server names the session to the kernels it starts."""
    return "JPY_SESSION_NAME" in os.environ
