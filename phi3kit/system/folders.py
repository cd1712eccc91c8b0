"""Folders of models: read their files, seal one with a manifest of hashes, notice that a file has changed since."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from phi3kit.errors import WeightsError

MANIFEST = "manifest.json"

# The files that transformers, onnxruntime-genai or the kit read as JSON objects.
_JSON = ("config.json", "generation_config.json", "genai_config.json", "model.safetensors.index.json", "tokenizer.json")
_JSON += ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")

_verified: dict[Path, tuple[str, int]] = {}  # hash and modification time of each file that this process has hashed


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def placeholder(path: Path) -> str | None:
    """What stands in a file instead of its content, as a predicate; None for a file with content.

    A clone without git-lfs has pointers in place of large files; a copy that was cut off may have empty ones.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not the file itself: run `git lfs pull` in its repository"
    return None if start.strip() else "is empty"


def read_text(path: Path) -> str:
    """Return the text of a model's file.

    Raises:
        WeightsError: naming the file, when it is missing, empty, a pointer of git-lfs, or not in UTF-8.
    """
    try:
        content, problem = path.read_bytes(), placeholder(path) or ""
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{path.parent} has no {path.name}: give a complete model folder.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
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


def number(path: Path, content: dict[str, Any], name: str) -> int:
    """Return a number from a model's JSON file.

    Args:
        path: the file, for the message.
        content: as `read_json` returned it.
        name: of the entry, with a dot before that of an inner one: `model.context_length`.

    Raises:
        WeightsError: naming file and entry, when it is missing or no whole number above 0.
    """
    value = entry(content, name)
    if type(value) is not int or value < 1:
        found = "no" if value is None else f"{json.dumps(value):.60} as"
        raise WeightsError(f"{path} has {found} `{name}`, where a whole number is needed. Copy or fetch it again.")
    return value


def entry(content: Any, name: str) -> Any:
    """Return the value of an entry, named as in `number`; None where there is none."""
    for key in name.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    return content


@dataclass(frozen=True)
class GenaiConfig:
    """What the kit reads of `genai_config.json`, by which onnxruntime-genai opens a folder.

    Attributes:
        context_length: tokens of prompt and answer together.
        vocab_size: token ids are below this.
        provider: the execution provider, in small letters; `cpu` where the file names none.
    """

    context_length: int
    vocab_size: int
    provider: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file in `folder`.

        Raises:
            WeightsError: naming the file, when it is missing, damaged, or lacks one of the two numbers.
        """
        path = folder / "genai_config.json"
        content = read_json(path)
        numbers = [number(path, content, f"model.{name}") for name in ("context_length", "vocab_size")]
        if entry(content, "model.eos_token_id") in (None, []):  # without, no answer would ever end
            raise WeightsError(f"{path} has no `model.eos_token_id`, which ends an answer. Copy or fetch it again.")
        options = entry(content, "model.decoder.session_options.provider_options")
        options = options if isinstance(options, list) else []
        names = [name for option in options if isinstance(option, dict) for name in option]
        # onnxruntime-genai accepts any case, and onnxruntime's own names.
        return cls(*numbers, names[0].lower().removesuffix("executionprovider") if names else "cpu")


def digest(recipe: Mapping[str, str]) -> str:
    """Twelve hexadecimal digits that change when any key or value of `recipe` changes."""
    return hashlib.sha256(json.dumps(dict(recipe), sort_keys=True).encode()).hexdigest()[:12]


def weights_files(folder: Path) -> list[Path]:
    """The files of the weights in a checkpoint or an ONNX model."""
    kinds = ("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data")
    return [path for kind in kinds for path in folder.glob(kind)]


def weights_size(folder: Path) -> int:
    """Bytes of the weights in a checkpoint or an ONNX model."""
    return sum(path.stat().st_size for path in weights_files(folder))


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
    """Refuse a sealed folder, or a copy of one, in which a file has changed; in any other, refuse unreadable JSON.

    Raises:
        WeightsError: naming the file.
    """
    if not (folder / MANIFEST).is_file():
        for name in _JSON:
            if (folder / name).exists():
                read_json(folder / name)
    elif problem := damage(folder.absolute()):
        raise WeightsError(
            f"{folder} is not used, since it is not as it was made: {problem}. Copy or log it again from a whole one; "
            f"if the change is meant, remove its {MANIFEST}."
        )
