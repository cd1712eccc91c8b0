"""What a step requires, checked before it begins: disk, memory, and the packages of an extra."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from phi3kit.errors import InsufficientResources, MissingExtra
from phi3kit.system import machine

FORCE = "PHI3KIT_FORCE"  # set by `--force`: disk and memory are then not checked

# The extras of pyproject.toml, each with modules that prove it is installed.
EXTRAS = {
    "checkpoint": ("torch", "transformers", "accelerate", "gguf"),
    "export": ("onnx", "onnx_ir"),
    "serve": ("fastapi", "llguidance", "prometheus_client", "uvicorn"),
    "notebooks": ("ipykernel", "ipywidgets", "nbclient", "nbconvert", "papermill"),
}


def need_disk(what: str, folder: Path, size: int, variable: str) -> None:
    """Make sure that `size` bytes fit on the disk of `folder`.

    Args:
        what: the step, as the subject of a sentence: `Fetching x`.
        folder: where the bytes are to be written; it need not exist yet.
        size: bytes.
        variable: the environment variable that names another place.

    Raises:
        InsufficientResources: the disk has fewer bytes left.
    """
    free = machine.disk_free(folder)
    if size > free and not os.environ.get(FORCE):
        remedy = f"free some at {folder}, or name a larger place with {variable}"
        raise InsufficientResources(what, "disk", size, free, remedy)


def need_memory(what: str, size: int, smaller: str = "a smaller model") -> None:
    """Make sure that `size` bytes of memory are available.

    Args:
        what: the step, as the subject of a sentence.
        size: bytes.
        smaller: what would take less memory.

    Raises:
        InsufficientResources: less memory is available.
    """
    _, free = machine.memory()
    if size > free and not os.environ.get(FORCE):
        remedy = f"close other programs and notebooks, or take {smaller}"
        raise InsufficientResources(what, "memory", size, free, remedy)


def need_extra(what: str, *extras: str) -> None:
    """Make sure that the packages of some extras are installed.

    Args:
        what: the step, as the subject of a sentence.
        extras: names of extras, as `EXTRAS` lists them.

    Raises:
        MissingExtra: a package is missing; the message holds the command that installs it.
    """
    for extra in extras:
        for module in EXTRAS[extra]:
            if importlib.util.find_spec(module) is None:
                raise MissingExtra(what, module, extras)
