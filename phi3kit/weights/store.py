"""The folders that the kit builds itself. Such a folder is either whole or absent.

A folder is built under a temporary name in the same file system, sealed with a manifest of SHA-256 hashes, and renamed
to its final name, all under a lock. The final name holds a digest of the recipe: another recipe is another folder.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from phi3kit.errors import WeightsError
from phi3kit.system import folders

TEMPORARY = "aside-"  # how the names of unfinished and discarded folders begin


def root() -> Path:
    """The kit's cache folder: `PHI3KIT_CACHE`, else the platform's place for caches. It may not exist yet."""
    from platformdirs import user_cache_path

    folder = os.environ.get("PHI3KIT_CACHE")
    return Path(folder).expanduser().absolute() if folder else user_cache_path("phi3kit", appauthor=False)


def get_or_build(name: str, recipe: Mapping[str, str], build: Callable[[Path], None]) -> Path:
    """The folder that `build` makes; it is built only if it is missing or damaged.

    Args:
        name: a folder name, for example `tiny-onnx`. Only one process of the machine builds a name at a time.
        recipe: everything that the result depends on; the manifest records it.
        build: writes its files into an empty folder. It may also write beside that folder, under names that begin with
            the folder's name: they are removed afterwards. It announces what it does, and about how long it takes.

    Returns:
        `root()/name/<digest of recipe>`. After a kill at any moment, that folder is absent or whole.

    Raises:
        WeightsError: the disk is full or cannot be written. Errors of `build` are raised unchanged.
    """
    folder = root() / name / folders.digest(recipe)
    try:
        if folder.is_dir() and not folders.damage(folder):  # needs neither the lock nor permission to write
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.parent):
            temporary = temporary_name(folder.parent)
            if folder.is_dir():
                if not (damage := folders.damage(folder)):  # another process has built it meanwhile
                    return folder
                say(f"{folder} is damaged ({damage}) and is built again")
                folder.rename(temporary.with_name(f"{temporary.name}-damaged"))
            _remove_temporary(folder.parent)
            temporary.mkdir()
            try:
                build(temporary)
                folders.seal(temporary, recipe)
                temporary.rename(folder)
            finally:
                _remove_temporary(folder.parent)
    except Exception as error:
        if explanation := explain_write_error(error, folder.parent):
            raise explanation from error
        raise
    return folder


def temporary_name(parent: Path) -> Path:
    """A free name in `parent` that the next build removes."""
    return parent / f"{TEMPORARY}{secrets.token_hex(4)}"


def _lock(folder: Path) -> AbstractContextManager[Any]:
    """Let one process of the machine build in `folder`; the system releases the lock of a killed process."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=1)
    except Timeout:
        say(f"waiting for another process that builds {folder.name}")
        return lock.acquire()


def _remove_temporary(folder: Path) -> None:
    """Remove the temporary folders in `folder`. The caller holds the lock, so no build is using them."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def say(line: str) -> None:
    """Print one line for the person at the terminal, on stderr."""
    print(f"phi3kit: {line}", file=sys.stderr, flush=True)


def is_disk_full(error: Exception) -> bool:
    """Whether `error` reports a full disk; safetensors and the exporter report it in their message only."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def explain_write_error(error: Exception, folder: Path) -> WeightsError | None:
    """The error to show when `folder` is full or not writable; None when `error` is about something else."""
    variables = "HF_HOME for files of the hub, PHI3KIT_CACHE for what is built here"
    if is_disk_full(error):
        return WeightsError(f"The disk of {folder} is full. Free some space, or name a larger place: {variables}.")
    unwritable = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
    if isinstance(error, OSError) and error.errno in unwritable:
        return WeightsError(f"{folder} may not be written. Name another place: {variables}.")
    return None
