"""Whether there is room for something large, asked before it is begun."""

from __future__ import annotations

import os
from pathlib import Path

from phi3kit import machine
from phi3kit.errors import NoRoom
from phi3kit.weights import store

FORCE = "PHI3KIT_FORCE"  # set by `--force`, for those who know that it will fit


def need_disk(what: str, folder: Path, size: int) -> None:
    """Make sure that `size` bytes fit where `folder` is, or will be.

    Args:
        what: what is about to happen, as the beginning of a sentence: `Fetching x`.
        folder: where it is to be written; it need not exist yet.
        size: bytes.

    Raises:
        NoRoom: they do not.
    """
    free = machine.disk_free(folder)
    if size > free and not os.environ.get(FORCE):
        place = "PHI3KIT_CACHE" if folder.is_relative_to(store.root()) else "HF_HOME"
        raise NoRoom(what, "disk", size, free, f"free some at {folder}, or name a larger place with {place}")


def need_memory(what: str, size: int, smaller: str = "a smaller model") -> None:
    """Make sure that `size` bytes of memory are to be had.

    Args:
        what: what is about to happen, as the beginning of a sentence.
        size: bytes.
        smaller: what would do with less.

    Raises:
        NoRoom: they are not.
    """
    _, free = machine.memory()
    if size > free and not os.environ.get(FORCE):
        raise NoRoom(what, "memory", size, free, f"close other programs and notebooks, or take {smaller}")
