"""What makes a folder a checkpoint or an ONNX model, judged by its files and without reading the weights."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path


def checkpoint_lacks(folder: Path) -> str | None:
    """What `folder` lacks to be a whole Hugging Face checkpoint, in words; None when it is whole.

    Every shard that the index names must exist and be as long as its own header says. Any architecture is accepted.
    """
    if not (folder / "config.json").is_file():
        return "config.json"
    index = folder / "model.safetensors.index.json"
    shards = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    for shard in sorted(shards) or ["model.safetensors"]:
        if not (folder / shard).is_file():
            return shard
        if not _is_whole(folder / shard):
            return f"a part of {shard}, which is cut short or damaged"
    return None if any((folder / f"tokenizer.{kind}").is_file() for kind in ("json", "model")) else "tokenizer.json"


def onnx_lacks(folder: Path) -> str | None:
    """What `folder` lacks to be a model for onnxruntime-genai, in words; None when it is whole.

    The files in which the graph keeps its weights must exist and be as long as the graph says.
    """
    if not (folder / "genai_config.json").is_file():
        return "genai_config.json"
    model = _json(folder / "genai_config.json").get("model", {}).get("decoder", {}).get("filename")
    for name in (model, "tokenizer.json"):
        if name and not (folder / name).is_file():
            return name
    for name, size in (_external_data(folder / model) if model else {}).items():
        if not (folder / name).is_file():
            return name
        if (folder / name).stat().st_size < size:
            return f"a part of {name}, which is cut short"
    return None


def _external_data(graph: Path) -> dict[str, int]:
    """The files beside `graph` that hold its weights, and how many bytes of each the graph reads.

    The result is empty without the package onnx (extra `export`), and for a file that is no graph; onnxruntime then
    reports what is wrong when it opens the model.
    """
    sizes: dict[str, int] = {}
    with contextlib.suppress(Exception):
        import onnx

        for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
            location = {entry.key: entry.value for entry in tensor.external_data}
            if name := location.get("location"):
                sizes[name] = max(sizes.get(name, 0), int(location.get("offset", 0)) + int(location.get("length", 0)))
    return sizes


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file (8 bytes of header length, header, tensors) is as long as its header says."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 0 < length <= size - 8:
            return False
        header = file.read(length)
    try:
        tensors = [tensor for name, tensor in json.loads(header).items() if name != "__metadata__"]
        return size == 8 + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    except (ValueError, LookupError, TypeError, AttributeError):  # no JSON, or not the JSON of a header
        return False


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
