"""Compute targets: the packages of each, and whether those are installed.

onnxruntime-genai and onnxruntime come in one package for each target. The packages of different targets hold modules
of the same names, so only one of each can be installed.
"""

from __future__ import annotations

import contextlib
import sys
from enum import StrEnum
from importlib import metadata
from itertools import chain

from phi3kit.errors import InvalidRequest, WeightsError


class Target(StrEnum):
    """What an ONNX model computes on, by onnxruntime-genai's name of the execution provider."""

    CPU = "cpu"
    CUDA = "cuda"  # GPUs of NVIDIA
    DML = "dml"  # DirectML: GPUs under Windows

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise InvalidRequest("target", value, ", ".join(cls))


PACKAGES = {
    Target.CPU: ("onnxruntime-genai", "onnxruntime"),
    Target.CUDA: ("onnxruntime-genai-cuda", "onnxruntime-gpu"),
    Target.DML: ("onnxruntime-genai-directml", "onnxruntime-directml"),
}
PROVIDERS = {Target.CUDA: "CUDAExecutionProvider", Target.DML: "DmlExecutionProvider"}  # onnxruntime's names

EXTRAS = {"onnxruntime-gpu": "[cuda,cudnn]"}  # NVIDIA's libraries, from PyPI as well
DML_VERSION = "0.13.1"  # later ones require an onnxruntime-directml that is not on PyPI


def installed() -> dict[str, str]:
    """The installed packages and versions; if there are more than two, they have overwritten each other's files."""
    found = {}
    for name in chain(*PACKAGES.values()):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name).partition("+")[0]
    return found


def versions() -> dict[str, str]:
    """The installed package of onnxruntime-genai, then that of onnxruntime, with its version; a GPU's counts first."""
    found = installed()
    families = ([name for name in names if name in found] for names in zip(*PACKAGES.values(), strict=True))
    return {names[-1]: found[names[-1]] for names in families if names}


def installation(target: Target) -> str:
    """The commands that put the packages of a target in the place of the installed ones."""
    genai, runtime = PACKAGES[target]
    version = DML_VERSION if target is Target.DML else next(iter(versions().values()))
    if runtime in EXTRAS:
        runtime = f'"{runtime}{EXTRAS[runtime]}"'
    return f"`pip uninstall -y {' '.join(installed())}`, then `pip install {genai}=={version} {runtime}`"


def need(what: str, provider: str) -> None:
    """Make sure that the installed packages have an execution provider, and load the libraries that it needs.

    A provider that is none of a `Target` is left to onnxruntime-genai.

    Raises:
        WeightsError: naming the provider, and the package that has it.
    """
    if provider not in PROVIDERS:
        return
    import onnxruntime
    import onnxruntime_genai

    target, name = Target(provider), PROVIDERS[Target(provider)]
    built = getattr(onnxruntime_genai, f"is_{provider}_available")()
    if not built or name not in onnxruntime.get_available_providers():
        raise WeightsError(
            f"{what} computes with {provider} ({name}), which the installed {' and '.join(versions())} do not have: "
            f"put {PACKAGES[target][0]} in their place ({installation(target)}), or give a folder for the CPU."
        )
    if target is Target.CUDA:
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()  # NVIDIA's libraries, where pip put them
