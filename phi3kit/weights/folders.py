"""What makes a folder a checkpoint or an ONNX model, told from its files alone and without reading the weights."""

from __future__ import annotations

import contextlib
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
            return f"a part of {shard}, which is cut short or damaged"
    return None if any((folder / f"tokenizer.{kind}").is_file() for kind in ("json", "model")) else "tokenizer.json"


def onnx_lacks(folder: Path) -> str | None:
    """What `folder` lacks to be a model for onnxruntime-genai, in words; None when it lacks nothing.

    The files that the graph names for its weights must be there, and as long as it says.
    """
    if not (folder / "genai_config.json").is_file():
        return "genai_config.json"
    model = _json(folder / "genai_config.json").get("model", {}).get("decoder", {}).get("filename")
    for name in (model, "tokenizer.json"):
        if name and not (folder / name).is_file():
            return name
    for name, end in (_external(folder / model) if model else {}).items():
        if not (folder / name).is_file():
            return name
        if (folder / name).stat().st_size < end:
            return f"a part of {name}, which is cut short"
    return None


def weights_size(folder: Path) -> int:
    """Bytes of the weights in a checkpoint or an ONNX model."""
    kinds = ("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data")
    return sum(path.stat().st_size for kind in kinds for path in folder.glob(kind))


def _external(graph: Path) -> dict[str, int]:
    """The files beside `graph` that hold its weights, and the bytes of each that it reads."""
    import onnx

    ends: dict[str, int] = {}
    with contextlib.suppress(Exception):  # no graph, in whatever way: onnxruntime will say so in its own words
        for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
            where = {entry.key: entry.value for entry in tensor.external_data}
            if name := where.get("location"):
                ends[name] = max(ends.get(name, 0), int(where.get("offset", 0)) + int(where.get("length", 0)))
    return ends


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file (8 bytes of header length, header, tensors) has the length its header gives."""
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
