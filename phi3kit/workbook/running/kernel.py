"""The kernel of a notebook that runs without a person: this Python, without progress bars, in the notebook's folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from phi3kit.tracking.store import absolute

# A file keeps every redrawing of a progress bar, and no two runs redraw it equally often.
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "TQDM_DISABLE": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the kernel's debugger warns on stderr at each start
}


def environment(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment variables of a kernel.

    Args:
        variables: the environment to start from.
        folder: where that environment's relative paths start.

    Returns:
        The same without progress bars, without the variable by which JupyterLab names its session
        (`JPY_SESSION_NAME`), and with a relative SQLite file in `MLFLOW_TRACKING_URI` made absolute, since the kernel
        has another working directory.
    """
    variables = {**variables, **_QUIET}
    variables.pop("JPY_SESSION_NAME", None)
    if address := variables.get("MLFLOW_TRACKING_URI"):
        variables["MLFLOW_TRACKING_URI"] = absolute(address, folder)
    return variables


def manager(folder: Path, log: IO[str]) -> Any:
    """Make a class of kernel managers that start this Python, whichever kernelspec the user has under its name.

    Args:
        folder: the kernel's working directory.
        log: the file for what the kernel's process prints, which is no cell's output.

    Returns:
        A subclass of `jupyter_client.manager.AsyncKernelManager`.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

        async def start_kernel(self, **options: Any) -> None:
            variables = environment(os.environ, Path.cwd())
            await super().start_kernel(
                **{"cwd": str(folder), "env": variables, "stdout": log, "stderr": log, **options}
            )

    return ThisPython
