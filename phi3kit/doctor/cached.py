"""What lies on this machine of which model: find it, check every byte of it, remove it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.weights import export, store, tiny_recipe
from phi3kit.weights.catalog import CATALOG
from phi3kit.weights.folders import checkpoint_lacks, onnx_lacks
from phi3kit.weights.hub import repo_id


@dataclass(frozen=True)
class Cached:
    """The files of one model in one place.

    Attributes:
        name: what it is asked for by: a catalog name, a hub id, or the local folder that it was exported from.
        form: `checkpoint` or `ONNX`; `files` when nobody can tell, `left over` for what a killed build left.
        folder: where it lies: a built folder, or a repository in the hub's cache with all its revisions.
        size: bytes on disk.
        lacks: what it lacks to be whole, told from names and sizes; None when nothing.
        old: no longer used: of another recipe than today's, or left over.
    """

    name: str
    form: str
    folder: Path
    size: int
    lacks: str | None = None
    old: bool = False

    def __str__(self) -> str:
        size = f"{self.size / 1e9:.2f} GB"
        of = ", of an older version" if self.old and self.form != "left over" else ""
        return f"{self.name}, {self.form}, {size}{of}"

    @property
    def from_hub(self) -> bool:
        """Whether it lies in the hub's cache."""
        return self.folder.name.startswith("models--")


def found() -> list[Cached]:
    """Everything that was built here, the newest of each first, and every model in the hub's cache."""
    from huggingface_hub import constants

    fetched = sorted(Path(constants.HF_HUB_CACHE).glob("models--*"))
    return [*_built(), *(_fetched(folder) for folder in fetched)]


def damage(item: Cached) -> str | None:
    """What is wrong with it, every byte hashed; None when it is whole.

    The hub's cache names files by their hashes, and `hub` keeps a receipt of them where files cannot be links (on some
    Windows), so this needs no network; 1.4 GB take about a second.
    """
    from huggingface_hub.utils.sha import git_hash

    if not item.from_hub:
        return store.damage(item.folder)
    for receipt in _receipts(item.folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(receipt.read_text(encoding="utf-8"))
            folder = Path(kept["folder"])
            if item.folder in folder.parents and (wrong := store.damage(folder, kept["files"])):
                return wrong
    names = sorted(item.folder.glob("snapshots/**/*"))
    for name in names:
        if name.is_symlink() and not name.is_file():
            return f"{name.name} is missing"
    for blob in sorted((item.folder / "blobs").glob("*")):
        hashed = {64: store.file_hash, 40: lambda blob: git_hash(blob.read_bytes())}.get(len(blob.name))
        if hashed and hashed(blob) != blob.name:
            changed = [name.name for name in names if name.is_file() and name.samefile(blob)]
            return f"{', '.join(changed) or blob.name} has changed"
    return item.lacks and f"it lacks {item.lacks}"


def remove(item: Cached) -> None:
    """Remove it, unless it is being made at this moment.

    Raises:
        WeightsError: it is being built or fetched, or may not be removed.
    """
    from filelock import FileLock, Timeout

    beside = item.folder.parent
    locks = (beside / ".locks" / item.folder.name).glob("*.lock") if item.from_hub else [beside / ".lock"]
    try:
        with contextlib.ExitStack() as held:
            for lock in locks:
                held.enter_context(FileLock(lock, timeout=0))
            if item.from_hub:
                _remove_repository(item.folder)
            else:  # out of sight in one step: what a kill leaves from here on, the next build sweeps away
                shutil.rmtree(item.folder.rename(beside / f"aside-{secrets.token_hex(4)}"))
    except Timeout:
        doing = "fetched" if item.from_hub else "built"
        raise WeightsError(f"{item.name} is being {doing} just now: wait for that, or end it, and try again.") from None
    except OSError as error:
        raise WeightsError(f"{item.folder} could not be removed ({error}): close what uses it, try again.") from error


def _built() -> Iterator[Cached]:
    seen, made = set(), {}
    for path in store.root().glob("*/*"):
        if re.fullmatch(r"[0-9a-f]{12}|aside-.*", path.name):
            with contextlib.suppress(FileNotFoundError):  # a build sweeps away what is aside
                made[path] = path.stat().st_mtime
    for place in sorted(made, key=lambda path: (path.parent.name, -made[path])):
        kind, recipe = place.parent.name, {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            recipe = json.loads((place / store.MANIFEST).read_text(encoding="utf-8"))["recipe"]
        name, _, form = kind.rpartition("-")
        name = recipe.get("checkpoint", f"{name or kind} ").rpartition(" ")[0]  # as `weights` writes it: name, version
        form = {"checkpoint": "checkpoint", "onnx": "ONNX"}.get(form, "files")
        aside = place.name.startswith("aside")
        old = aside or (kind, name) in seen or recipe != _today(recipe)
        if not old:
            seen.add((kind, name))
        lacks = None if recipe else store.MANIFEST
        yield Cached(name, "left over" if aside else form, place, _size(place), lacks, old)


def _today(recipe: dict[str, str]) -> dict[str, str]:
    """The recipe by which the same thing would be built today."""
    tiny = tiny_recipe()
    if "checkpoint" not in recipe:
        return tiny
    own = recipe["checkpoint"].startswith("tiny ")
    return export.recipe(f"tiny {store.digest(tiny)}" if own else recipe["checkpoint"])


def _fetched(repository: Path) -> Cached:
    repo, size = repo_id(repository), _size(repository)
    for entry in CATALOG.values():
        if repo == entry.checkpoint:
            lacks = checkpoint_lacks(_snapshot(repository, entry.revision))
            return Cached(entry.name, "checkpoint", repository, size, lacks)
        if repo == entry.onnx_repo:
            lacks = onnx_lacks(_snapshot(repository, entry.onnx_revision) / entry.onnx_folder)
            return Cached(entry.name, "ONNX", repository, size, lacks)
    whole = any(not checkpoint_lacks(snapshot) for snapshot in repository.glob("snapshots/*"))
    return Cached(repo, "checkpoint" if whole else "files", repository, size)


def _snapshot(repository: Path, revision: str) -> Path:
    ref = repository / "refs" / revision
    return repository / "snapshots" / (ref.read_text(encoding="utf-8") if ref.is_file() else revision)


def _remove_repository(folder: Path) -> None:
    from huggingface_hub import scan_cache_dir

    # Not the folder alone: of what `hf download` brought over Xet, the bytes lie in a store that repositories share.
    cache = scan_cache_dir(folder.parent)
    repos = [repo for repo in cache.repos if repo.repo_path.name == folder.name]
    cache.delete_revisions(*(revision.commit_hash for repo in repos for revision in repo.revisions)).execute()
    shutil.rmtree(folder, ignore_errors=not folder.exists())  # one that the scan could not read
    for receipt in _receipts(folder):
        receipt.unlink()


def _receipts(repository: Path) -> Iterator[Path]:
    return (store.root() / "hub").glob(f"{repository.name.removeprefix('models--')}-*.json")


def _size(folder: Path) -> int:
    sizes = {}
    for path in (Path(place, name) for place, _, names in os.walk(folder) for name in names):
        with contextlib.suppress(FileNotFoundError):  # a build under way takes its files along
            stat = path.stat()
            sizes[stat.st_dev, stat.st_ino] = stat.st_size  # a file may have several names
    return sum(sizes.values())
