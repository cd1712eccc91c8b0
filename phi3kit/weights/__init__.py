"""Where a model's files come from: `checkpoint(name)` and `onnx(name)` return folders that are whole and verified.

It knows nothing of MLflow or of generation.

`name` is a catalog name (`tiny` is the default), a local folder or a hub id. Only what is missing is fetched or built.
"""

from __future__ import annotations

from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.system import folders, requirements, targets
from phi3kit.system.targets import Target
from phi3kit.weights import export, hub, store
from phi3kit.weights.catalog import CATALOG, Entry, Form, resolve
from phi3kit.weights.hub import offline, revision
from phi3kit.weights.layout import checkpoint_lacks, onnx_lacks

__all__ = ["CATALOG", "Entry", "Form", "Target", "checkpoint", "offline", "onnx", "resolve", "revision"]


def checkpoint(name: str | Path = "tiny") -> Path:
    """The folder with the Hugging Face checkpoint of a model, for transformers.

    Raises:
        InsufficientResources: memory or disk is too small.
        WeightsError: there is no such model, or its files are not complete and could not be fetched or built.
    """
    entry = resolve(name)
    step, smaller = f"Loading the checkpoint of {entry.name}", "a smaller model, or its ONNX form (--form onnx)"
    requirements.need_memory(step, entry.checkpoint.disk or 0, smaller)  # before the download
    folder = _checkpoint(entry)
    requirements.need_memory(step, folders.weights_size(folder), smaller)
    return folder


def onnx(name: str | Path = "tiny", target: str | None = None) -> Path:
    """The folder with the int4 ONNX model, for onnxruntime-genai.

    A published model is fetched if the catalog names one; otherwise the kit exports the checkpoint, once.

    Args:
        name: as for `checkpoint`, or a folder with an ONNX model.
        target: `cpu`, `cuda` or `dml` (DirectML); by default `cpu`, or what a folder was made for.

    Raises:
        InsufficientResources: memory or disk is too small.
        InvalidRequest: there is no such target.
        WeightsError: there is no such model, its files are not complete and could not be fetched, or the export failed.
    """
    entry, wanted = resolve(name), Target(target or "cpu")
    source = entry.onnx_for(wanted)
    if entry.folder and (entry.folder / "genai_config.json").is_file():
        folder = entry.folder
        provider = _provider(folder)
        if target not in (None, provider):
            raise WeightsError(
                f"{folder} is made for {provider}, not for {target}: give its checkpoint, to export that."
            )
    elif source.repo:
        published = hub.fetch(source.repo, source.revision, [f"{source.subfolder}/*"]) / source.subfolder
        # A folder that is published for any GPU names no provider.
        folder = published if _provider(published) == wanted else _with_provider(entry, published, wanted)
    else:
        folder = _exported(entry, wanted)
    if wanted is not Target.CPU and targets.PACKAGES[wanted][0] not in targets.versions():
        store.say(f"to run it, put {targets.PACKAGES[wanted][0]} in the place of ours: {targets.installation(wanted)}")
    return folder


def _provider(folder: Path) -> str:
    """The execution provider of an ONNX model that is whole."""
    folders.verify(folder)
    if missing := onnx_lacks(folder):
        raise WeightsError(f"{folder} is no whole ONNX model: it lacks {missing}. Fetch or export it again.")
    return folders.GenaiConfig.read(folder).provider


def check(folder: Path) -> None:
    """Refuse a local folder in which there is no whole model.

    Raises:
        WeightsError: naming the file that is missing or damaged.
    """
    if (folder / "genai_config.json").is_file():
        _provider(folder)
    else:
        _checkpoint(Entry(folder.name, folder=folder))


def tiny_recipe() -> dict[str, str]:
    """Hashes of the two files that decide every byte of `tiny`."""
    from phi3kit.weights.tiny import build

    return {path.name: folders.file_hash(path) for path in (Path(build.__file__), build.LEARNED)}


def _checkpoint(entry: Entry) -> Path:
    source = entry.checkpoint
    if entry.folder is None and source.repo is None:
        from phi3kit.weights.tiny import build

        return store.get_or_build("tiny-checkpoint", tiny_recipe(), build.build)
    folder = entry.folder or hub.fetch(source.repo, source.revision, hub.CHECKPOINT, hub.NOT_CHECKPOINT)
    folders.verify(folder)
    if not (missing := checkpoint_lacks(folder)):
        export.defaults(folder)
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


def _with_provider(entry: Entry, published: Path, target: Target) -> Path:
    version = f"{entry.name} {revision(published).rpartition('@')[2]}"
    return store.get_or_build(
        f"{entry.name}-{target}-onnx",
        export.recipe(version, target),
        lambda folder: export.with_provider(published, folder, target),
    )


def _exported(entry: Entry, target: Target) -> Path:
    source = _checkpoint(entry)
    # The folder of a built or fetched checkpoint is named after its recipe or commit. A local folder is identified by
    # the names, sizes and times of its files: hashing 7 GB on every call costs more than a needless export.
    stats = {path.name: path.stat() for path in sorted(source.iterdir()) if path.is_file()}
    times = {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}
    version = f"{source} {folders.digest(times)}" if entry.folder else f"{entry.name} {source.name}"
    name = source.name if entry.folder else entry.name.replace("/", "--")
    return store.get_or_build(
        f"{name}-onnx" if target is Target.CPU else f"{name}-{target}-onnx",
        export.recipe(version, target),
        lambda folder: export.export(entry.name, source, folder, target),
    )
