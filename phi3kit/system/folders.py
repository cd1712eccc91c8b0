"""Folders with a manifest of hashes: seal one, and find out later whether any of its files has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3kit.errors import WeightsError

MANIFEST = "manifest.json"

_verified: dict[Path, tuple[str, int]] = {}  # hash and modification time of each file that this process has hashed


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    """Return the text of a model's file.

    Raises:
        WeightsError: naming the file, when it is missing, empty, a pointer of git-lfs, or not in UTF-8.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{path.parent} has no {path.name}: give a complete model folder.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    problem = "is empty" if not content.strip() else ""
    if content.startswith(b"version https://git-lfs"):
        problem = "is a pointer of git-lfs, not the file itself: run `git lfs pull` in its repository"
    elif content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        problem = "begins with a byte order mark: save it as UTF-8 without one"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = problem or f"is no text in UTF-8 (at byte {error.start})"
    if problem:
        raise WeightsError(f"{path} {problem}.")
    return text


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a model's file.

    Raises:
        WeightsError: naming the file, when it is missing, damaged, or holds something else.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path} is no JSON: {error}. Copy or fetch it again.") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds no JSON object. Copy or fetch it again.")
    return value


def digest(recipe: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits that change when any key or value of `recipe` changes."""
    return hashlib.sha256(json.dumps(dict(recipe), sort_keys=True).encode()).hexdigest()[:12]


def weights_size(folder: Path) -> int:
    """Bytes of the weights in a checkpoint or an ONNX model."""
    kinds = ("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data")
    return sum(path.stat().st_size for kind in kinds for path in folder.glob(kind))


def seal(folder: Path, recipe: Mapping[str, str]) -> None:
    """Write the manifest of `folder`, and flush every file to disk before the folder can be used.

    Args:
        folder: with all its files.
        recipe: everything that the files depend on; it is kept in the manifest.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[path.relative_to(folder).as_posix()] = (file_hash(path), path.stat().st_size)
    manifest = json.dumps({"recipe": dict(recipe), "files": files}, indent=1)
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    for name in (*files, MANIFEST):
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())


def damage(folder: Path, files: Mapping[str, Sequence[Any]] | None = None) -> str | None:
    """What is wrong with a folder, in words; None when its files are as they were sealed.

    Hashing runs at about 1.4 GB/s here, 0.3 s for both forms of `tiny`, so it is done once per process; later calls
    compare sizes and modification times, and hash again only when one of those changed.

    Args:
        folder: where the files lie.
        files: SHA-256 and size of each file, by its name; by default those of the folder's own manifest.
    """
    try:
        if files is None:
            files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, (sealed, size) in files.items():
            stat = (folder / name).stat()
            if stat.st_size != size:
                return f"{name} has {stat.st_size} bytes instead of {size}"
            state = (sealed, stat.st_mtime_ns)
            if _verified.get(folder / name) != state and file_hash(folder / name) != sealed:
                return f"{name} has changed"
            _verified[folder / name] = state
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def verify(folder: Path) -> None:
    """Refuse a sealed folder, or a copy of one, in which a file has changed. A folder without a manifest passes.

    Raises:
        WeightsError: naming the file.
    """
    if (folder / MANIFEST).is_file() and (problem := damage(folder.absolute())):
        raise WeightsError(
            f"{folder} is not used, since it is not as it was made: {problem}. Copy or log it again from a whole one; "
            f"if the change is meant, remove its {MANIFEST}."
        )
