"""The model files on this machine: list them, check every byte of them, remove them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.system import folders
from phi3kit.system.targets import Target
from phi3kit.weights import export, hub, store, tiny_recipe
from phi3kit.weights.catalog import CATALOG, Form, Source
from phi3kit.weights.layout import checkpoint_lacks, onnx_lacks


@dataclass(frozen=True)
class Cached:
    """The files of one model in one folder.

    Attributes:
        name: the model's catalog name, its hub id, or the local folder from which it was exported.
        form: None if the files do not tell.
        folder: a built folder, or a repository in the hub's cache with all its revisions.
        size: bytes on disk.
        lacks: what it lacks to be whole, judged by names and sizes; None when it is whole.
        obsolete: the kit no longer uses it: its recipe is not today's, a newer export replaced it, or a killed build
            left it behind.
        targets: what its ONNX models are for.
    """

    name: str
    form: Form | None
    folder: Path
    size: int
    lacks: str | None = None
    obsolete: bool = False
    targets: tuple[str, ...] = (Target.CPU,)

    def __str__(self) -> str:
        unused = ", no longer used" if self.obsolete else ""
        kind = f"{self.form or 'files'}{'' if self.targets == (Target.CPU,) else ' for ' + ' and '.join(self.targets)}"
        return f"{self.name}, {kind}, {self.size / 1e9:.2f} GB{unused}"

    @property
    def fetch(self) -> str:
        """The command that obtains it."""
        target = f" --target {self.targets[-1]}" if self.targets[-1] != Target.CPU else ""
        return f'phi3kit weights fetch "{self.name}"{target}'

    @property
    def from_hub(self) -> bool:
        """Whether it lies in the hub's cache."""
        return self.folder.name.startswith("models--")


def list_cached() -> list[Cached]:
    """Everything that the kit built, the newest of each model first, and every model in the hub's cache."""
    from huggingface_hub import constants

    # Not `scan_cache_dir`: it omits repositories with a missing file, which are to be listed, completed and removed.
    repositories = sorted(Path(constants.HF_HUB_CACHE).glob("models--*"))
    return [*_built(), *(_fetched(folder) for folder in repositories)]


def damage(item: Cached) -> str | None:
    """What is wrong with an item, after hashing every byte; None when it is whole.

    This needs no network, since the hub's cache names files by their hashes. Where it cannot use links (on some
    Windows), the receipts hold the hashes. 1.4 GB take about a second.
    """
    from huggingface_hub.utils.sha import git_hash

    if not item.from_hub:
        return folders.damage(item.folder)
    for folder, files in filter(None, map(hub.read_receipt, hub.receipts(item.folder))):
        if item.folder in folder.parents and (problem := folders.damage(folder, files)):
            return problem
    paths = sorted(item.folder.glob("snapshots/**/*"))
    for path in paths:
        if path.is_symlink() and not path.is_file():
            return f"{path.name} is missing"
    for blob in sorted((item.folder / "blobs").glob("*")):
        hash_function = {64: folders.file_hash, 40: lambda blob: git_hash(blob.read_bytes())}.get(len(blob.name))
        if hash_function and hash_function(blob) != blob.name:
            changed = [path.name for path in paths if path.is_file() and path.samefile(blob)]
            return f"{', '.join(changed) or blob.name} has changed"
    return item.lacks and f"it lacks {item.lacks}"


def remove(item: Cached) -> None:
    """Remove the files of an item.

    Raises:
        WeightsError: another process is building or fetching it, or its files cannot be removed.
    """
    from filelock import FileLock, Timeout

    parent = item.folder.parent
    locks = (parent / ".locks" / item.folder.name).glob("*.lock") if item.from_hub else [parent / ".lock"]
    try:
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(FileLock(lock, timeout=0))
            if item.from_hub:
                _remove_repository(item)
            else:  # after the rename it is out of use at once; if the removal is killed, the next build completes it
                shutil.rmtree(item.folder.rename(store.temporary_name(parent)))
    except Timeout:
        step = "fetched" if item.from_hub else "built"
        raise WeightsError(f"{item.name} is being {step} just now: wait for that, or end it, and try again.") from None
    except OSError as error:
        raise WeightsError(f"{item.folder} could not be removed ({error}): close what uses it, try again.") from error


def _built() -> Iterator[Cached]:
    times: dict[Path, float] = {}
    for path in store.root().glob("*/*"):
        if re.fullmatch(rf"[0-9a-f]{{12}}|{store.TEMPORARY}.*", path.name):
            with contextlib.suppress(FileNotFoundError):  # a build removes its temporary folders
                times[path] = path.stat().st_mtime
    current = set()
    for folder in sorted(times, key=lambda path: (path.parent.name, -times[path])):
        kind, recipe = folder.parent.name, {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            recipe = json.loads((folder / folders.MANIFEST).read_text(encoding="utf-8"))["recipe"]
        name, _, form = kind.rpartition("-")
        name = recipe.get("checkpoint", f"{name or kind} ").rpartition(" ")[0]  # the recipe has name and version
        temporary = folder.name.startswith(store.TEMPORARY)
        obsolete = temporary or (kind, name) in current or recipe != _recipe_today(recipe)
        if not obsolete:
            current.add((kind, name))
        form = Form(form) if form in list(Form) else None
        target = recipe.get("target", Target.CPU)
        yield Cached(name, form, folder, _size(folder), None if recipe else folders.MANIFEST, obsolete, (target,))


def _recipe_today(recipe: dict[str, str]) -> dict[str, str]:
    """The recipe by which the same folder would be built today."""
    tiny = tiny_recipe()
    if "checkpoint" not in recipe:
        return tiny
    is_tiny = recipe["checkpoint"].startswith("tiny ")
    checkpoint = f"tiny {folders.digest(tiny)}" if is_tiny else recipe["checkpoint"]
    return export.recipe(checkpoint, Target(recipe.get("target", Target.CPU)))


def _fetched(repository: Path) -> Cached:
    repo, size = hub.repo_id(repository), _size(repository)

    def snapshot(source: Source) -> Path:
        ref = repository / "refs" / source.revision
        commit = ref.read_text(encoding="utf-8") if ref.is_file() else source.revision
        return repository / "snapshots" / commit / source.subfolder

    for entry in CATALOG.values():
        if repo == entry.checkpoint.repo:
            return Cached(entry.name, Form.CHECKPOINT, repository, size, checkpoint_lacks(snapshot(entry.checkpoint)))
        if repo == entry.onnx.repo:
            models = {target: snapshot(entry.onnx_for(target)) for target in Target}
            here = tuple(target for target, folder in models.items() if folder.is_dir()) or (Target.CPU,)
            lacks = next(filter(None, (onnx_lacks(models[target]) for target in here)), None)
            return Cached(entry.name, Form.ONNX, repository, size, lacks, targets=here)
    whole = any(not checkpoint_lacks(snapshot) for snapshot in repository.glob("snapshots/*"))
    return Cached(repo, Form.CHECKPOINT if whole else None, repository, size)


def _remove_repository(item: Cached) -> None:
    from huggingface_hub import scan_cache_dir

    # `delete_revisions` also frees the store that repositories share, where `hf download` puts the bytes of Xet files.
    cache = scan_cache_dir(item.folder.parent)
    repos = [repo for repo in cache.repos if repo.repo_path.name == item.folder.name]
    cache.delete_revisions(*(revision.commit_hash for repo in repos for revision in repo.revisions)).execute()
    shutil.rmtree(item.folder, ignore_errors=not item.folder.exists())  # the scan omits damaged repositories
    for receipt in hub.receipts(item.folder):
        receipt.unlink()


def _size(folder: Path) -> int:
    sizes = {}
    for path in (Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        with contextlib.suppress(FileNotFoundError):  # a build in progress removes files
            stat = path.stat()
            sizes[stat.st_dev, stat.st_ino] = stat.st_size  # a file may have several names
    return sum(sizes.values())
