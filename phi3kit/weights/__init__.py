"""Where a model's files come from: `checkpoint(name)` and `onnx(name)` return folders that are whole and verified.

`name` is a catalog name (`tiny` is the default), a local folder or a hub id. Only what is missing is fetched or built.
"""

from __future__ import annotations

from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.weights import export, hub, room, store
from phi3kit.weights.catalog import CATALOG, Entry, resolve
from phi3kit.weights.folders import checkpoint_lacks, onnx_lacks, weights_size
from phi3kit.weights.hub import offline, revision

__all__ = ["CATALOG", "Entry", "checkpoint", "offline", "onnx", "resolve", "revision"]


def checkpoint(name: str | Path = "tiny") -> Path:
    """The folder with the Hugging Face checkpoint of `name`, for transformers.

    Raises:
        WeightsError: there is no such model, its files cannot be had, they are not whole, or the memory would not
            hold them.
    """
    entry = resolve(name)
    loading, smaller = f"Loading the checkpoint of {entry.name}", "a smaller model, or its ONNX form (--form onnx)"
    room.need_memory(loading, entry.checkpoint_bytes or 0, smaller)  # before it is fetched
    folder = _checkpoint(entry)
    room.need_memory(loading, weights_size(folder), smaller)
    return folder


def _checkpoint(entry: Entry) -> Path:
    if entry.folder is None and entry.checkpoint is None:
        return _tiny()
    folder = entry.folder or hub.fetch(entry.checkpoint, entry.revision, hub.CHECKPOINT, hub.NOT_CHECKPOINT)
    store.verify(folder)
    if not (missing := checkpoint_lacks(folder)):
        return folder
    if not onnx_lacks(folder):
        raise WeightsError(
            f"{folder} holds an ONNX model and no checkpoint (it lacks {missing}). onnx({str(folder)!r}) takes it; a "
            "checkpoint is a folder with config.json, safetensors and tokenizer."
        )
    raise WeightsError(
        f"{entry.name} is no whole model: {folder} lacks {missing}. A checkpoint has config.json, its weights as "
        "safetensors (pickled .bin weights are not read) and tokenizer.json; an ONNX model has genai_config.json."
    )


def onnx(name: str | Path = "tiny") -> Path:
    """The folder with the int4 ONNX model of `name`, for onnxruntime-genai.

    A published one is fetched where the catalog names it; otherwise it is exported, once, from the checkpoint.

    Raises:
        WeightsError: there is no such model, its files cannot be had or are not whole, or the export failed.
    """
    entry = resolve(name)
    if entry.onnx_repo:
        fetched = hub.fetch(entry.onnx_repo, entry.onnx_revision, [f"{entry.onnx_folder}/*"])
        folder = fetched / entry.onnx_folder
    elif entry.folder and (entry.folder / "genai_config.json").is_file():
        folder = entry.folder
    else:
        return _exported(entry)
    store.verify(folder)
    if missing := onnx_lacks(folder):
        raise WeightsError(f"{folder} is no whole ONNX model: it lacks {missing}. Fetch or export it again.")
    return folder


def tiny_recipe() -> dict[str, str]:
    """What decides every byte of `tiny`, each with its hash."""
    from phi3kit.weights.tiny import build

    return {path.name: store.file_hash(path) for path in (Path(build.__file__), build.LEARNED)}


def _tiny() -> Path:
    from phi3kit.weights.tiny import build

    return store.built("tiny-checkpoint", tiny_recipe(), build.build)


def _exported(entry: Entry) -> Path:
    source = _checkpoint(entry)
    # Ours is named by its recipe and the hub's by its commit. Of a stranger's folder we take names, sizes and times:
    # hashing 7 GB on every call would cost more than a needless export now and then.
    stats = {path.name: path.stat() for path in sorted(source.iterdir()) if path.is_file()}
    times = {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}
    which = f"{source} {store.digest(times)}" if entry.folder else f"{entry.name} {source.name}"
    return store.built(
        f"{source.name if entry.folder else entry.name.replace('/', '--')}-onnx",
        export.recipe(which),
        lambda folder: export.export(entry.name, source, folder),
    )
