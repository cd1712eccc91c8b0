"""What we build ourselves, kept so that it is either whole or not there.

A folder is made aside in the same file system, sealed with a manifest of SHA-256 hashes and moved into place by one
rename, all under a lock. Its name holds a digest of the recipe: change the recipe and the old build is not found.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3kit.errors import WeightsError

MANIFEST = "manifest.json"

_checked: dict[Path, tuple[str, int]] = {}  # hash and modification time of what this process has read


def root() -> Path:
    """The cache folder of the kit: `PHI3KIT_CACHE`, else where the platform keeps caches. It may not exist yet."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("PHI3KIT_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("phi3kit", appauthor=False)


def built(name: str, recipe: Mapping[str, str], build: Callable[[Path], None]) -> Path:
    """The folder that `build` makes, made now unless it is there and undamaged.

    Args:
        name: a folder name, for example `tiny-onnx`. Only one builder of a name runs at a time, on the whole machine.
        recipe: everything that the outcome depends on. It is written into the manifest.
        build: writes its files into the empty folder it is given; what it puts beside it, under a name that begins
            with that folder's, goes away with it. It says what it does, and about how long that takes.

    Returns:
        `root()/name/<digest of recipe>`. A kill at any moment leaves no such folder, or all of it.

    Raises:
        WeightsError: the disk is full or may not be written. Whatever `build` raises goes through unchanged.
    """
    place = root() / name / digest(recipe)
    try:
        if place.is_dir() and not damage(place):  # needs no lock, and no right to write
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone(place.parent):
            aside = place.parent / f"aside-{secrets.token_hex(4)}"
            if place.is_dir():
                if not (found := damage(place)):
                    return place
                say(f"{place} is damaged ({found}) and is built again")
                place.rename(aside.with_name(f"{aside.name}-damaged"))
            _sweep(place.parent)
            aside.mkdir()
            try:
                build(aside)
                _seal(aside, recipe)
                aside.rename(place)
            finally:
                _sweep(place.parent)
    except Exception as error:
        if explained := unwritable(error, place.parent):
            raise explained from error
        raise
    return place


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One builder at a time in `folder`, on the whole machine; the system frees the lock of one that is killed."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        say(f"waiting for another process that builds {folder.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(folder: Path) -> None:
    """Remove what a builder left in `folder`. Whoever holds the lock does so: nobody else is building there."""
    for left in folder.glob("aside-*"):
        shutil.rmtree(left, ignore_errors=True)


def digest(recipe: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits that change when anything in `recipe` does."""
    return hashlib.sha256(json.dumps(dict(recipe), sort_keys=True).encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path, files: Mapping[str, Sequence[Any]] | None = None) -> str | None:
    """What is wrong with a folder, in words; None when it is as it was sealed.

    Hashing runs at about 1.4 GB/s here, 0.3 s for both forms of `tiny`, so it is done once per process; later calls
    compare sizes and modification times, and hash again only when one of those changed.

    Args:
        folder: where the files lie.
        files: SHA-256 and size of each file, by its name; without them, those of the folder's own manifest.
    """
    try:
        if files is None:
            files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, (sealed, size) in files.items():
            stat = (folder / name).stat()
            if stat.st_size != size:
                return f"{name} has {stat.st_size} bytes instead of {size}"
            seen = (sealed, stat.st_mtime_ns)
            if _checked.get(folder / name) != seen and file_hash(folder / name) != sealed:
                return f"{name} has changed"
            _checked[folder / name] = seen
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def verify(folder: Path) -> None:
    """Refuse a sealed folder, or a copy of one, that is not as it was sealed. One without a manifest passes.

    Raises:
        WeightsError: naming the file.
    """
    if (folder / MANIFEST).is_file() and (found := damage(folder.absolute())):
        raise WeightsError(
            f"{folder} is not used, since it is not as it was made: {found}. Copy or log it again from a whole one; "
            f"if the change is meant, remove its {MANIFEST}."
        )


def say(line: str) -> None:
    """Tell the person at the terminal one thing, on stderr."""
    print(f"phi3kit: {line}", file=sys.stderr, flush=True)


def full(error: Exception) -> bool:
    """Whether `error` is about a full disk; safetensors, and the tools that we start, say so in words only."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def unwritable(error: Exception, folder: Path) -> WeightsError | None:
    """The error to show when `folder` is full or closed to us; None when `error` is about something else."""
    places = "HF_HOME for what the hub gives, PHI3KIT_CACHE for what is built here"
    if full(error):
        return WeightsError(f"No room is left at {folder}. Free some, or name a larger place: {places}.")
    closed = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
    if isinstance(error, OSError) and error.errno in closed:
        return WeightsError(f"{folder} may not be written. Name another place: {places}.")
    return None


def _seal(folder: Path, recipe: Mapping[str, str]) -> None:
    """Write the manifest of `folder`, and have the disk hold all of it before anybody can find it."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[path.relative_to(folder).as_posix()] = (file_hash(path), path.stat().st_size)
    manifest = json.dumps({"recipe": dict(recipe), "files": files}, indent=1)
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    for name in (*files, MANIFEST):
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
