"""The kernel that a notebook runs in when nobody watches: this very Python's, quiet, in the notebook's folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

# Bars redraw themselves: in a file they become a heap of half-drawn lines, a different heap each time.
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "TQDM_DISABLE": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the kernel's debugger warns on stderr at each start
}


def environment(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment variables of a kernel.

    Args:
        given: the environment to start from.
        folder: where that environment's relative paths start.

    Returns:
        the same without progress bars, without the sign of a person at JupyterLab (`JPY_SESSION_NAME`), and with a
        relative SQLite file in `MLFLOW_TRACKING_URI` made absolute: the kernel's working directory is another.
    """
    variables = {**given, **_QUIET}
    variables.pop("JPY_SESSION_NAME", None)
    scheme, slashes, file = variables.get("MLFLOW_TRACKING_URI", "").partition(":///")
    if scheme == "sqlite" and slashes and not Path(file).is_absolute():
        variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{(folder / file).resolve()}"
    return variables


def manager(folder: Path, log: IO[str]) -> Any:
    """A class of kernel managers that start this very Python, whatever kernelspec the user has under its name.

    Args:
        folder: the kernel's working directory.
        log: gets what the kernel's process itself says, which is no cell's output.

    Returns:
        a subclass of `jupyter_client.manager.AsyncKernelManager`.
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
