"""What makes a folder a checkpoint or an ONNX model, judged by its files and without reading the weights."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.system import folders


def checkpoint_lacks(folder: Path) -> str | None:
    """What `folder` lacks to be a whole Hugging Face checkpoint, in words; None when it is whole.

    Every shard that the index names must exist and be as long as its own header says. Any architecture is accepted.
    """
    if not (folder / "config.json").is_file():
        return "config.json"
    weight_map = folders.entry(_json(folder / "model.safetensors.index.json"), "weight_map")
    shards = {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else {}
    for shard in sorted(shards) or ["model.safetensors"]:
        if missing := _content_lacks(folder / shard):
            return missing
        if not _is_whole(folder / shard):
            return f"a part of {shard}, which is cut short or damaged"
    names = [name for name in ("tokenizer.json", "tokenizer.model") if (folder / name).is_file()]
    return _content_lacks(folder / names[0]) if names else "tokenizer.json"


def onnx_lacks(folder: Path) -> str | None:
    """What `folder` lacks to be a model for onnxruntime-genai, in words; None when it is whole.

    The files in which the graph keeps its weights must exist and be as long as the graph says.
    """
    if not (folder / "genai_config.json").is_file():
        return "genai_config.json"
    model = folders.entry(_json(folder / "genai_config.json"), "model.decoder.filename")
    for name in (model, "tokenizer.json"):
        if isinstance(name, str) and (missing := _content_lacks(folder / name)):
            return missing
    for name, size in (_external_data(folder / model) if isinstance(model, str) else {}).items():
        if missing := _content_lacks(folder / name):
            return missing
        if (folder / name).stat().st_size < size:
            return f"a part of {name}, which is cut short"
    return None


def _content_lacks(path: Path) -> str | None:
    if not path.is_file():
        return path.name
    problem = folders.placeholder(path)
    return problem and f"the content of {path.name}, which {problem}"


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
    """The content of a JSON file; empty where it cannot be read, as `folders.verify` reports."""
    with contextlib.suppress(WeightsError):
        return folders.read_json(path)
    return {}
