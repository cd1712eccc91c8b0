"""What makes a folder a checkpoint or an ONNX model, told from its files alone and without reading the weights."""

from __future__ import annotations

import json
from pathlib import Path


def checkpoint_lacks(folder: Path) -> str | None:
    """What `folder` lacks to be a whole Hugging Face checkpoint, in words; None when it lacks nothing.

    Every shard that the index names must be there and as long as its own header says. Any architecture will do.
    """
    if not (folder / "config.json").is_file():
        return "config.json"
    index = folder / "model.safetensors.index.json"
    shards = set(_json(index).get("weight_map", {}).values()) if index.is_file() else {"model.safetensors"}
    for shard in sorted(shards) or ["model.safetensors"]:
        if not (folder / shard).is_file():
            return shard
        if not _is_whole(folder / shard):
            return f"a part of {shard}, which is cut short"
    return None if any((folder / f"tokenizer.{kind}").is_file() for kind in ("json", "model")) else "tokenizer.json"


def onnx_lacks(folder: Path) -> str | None:
    """What `folder` lacks to be a model for onnxruntime-genai, in words; None when it lacks nothing."""
    if not (folder / "genai_config.json").is_file():
        return "genai_config.json"
    model = _json(folder / "genai_config.json").get("model", {}).get("decoder", {}).get("filename")
    return next((name for name in (model, "tokenizer.json") if name and not (folder / name).is_file()), None)


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file (8 bytes of header length, header, tensors) has the length its header gives."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 0 < length <= size - 8:
            return False
        header = json.loads(file.read(length))
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
