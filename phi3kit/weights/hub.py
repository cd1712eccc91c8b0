"""Files from a model hub, through huggingface_hub and its own cache.

A fetched file is hashed against what the hub says of it, and a receipt with the SHA-256 of each is kept. By it the
files are checked again once per process, offline as well (7.6 GB take 5 s here); a pinned commit needs no network.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phi3kit.errors import WeightsError
from phi3kit.weights import room, store
from phi3kit.weights.hub_errors import explained

if TYPE_CHECKING:
    import httpx

# Safetensors and the tokenizer in whatever form; no pickles, no code, no copies in subfolders or in Mistral's format.
CHECKPOINT = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt")
NOT_CHECKPOINT = ("*/*", "consolidated*")


def fetch(repo: str, revision: str, include: Sequence[str], exclude: Sequence[str] = ()) -> Path:
    """The snapshot folder of `repo` with every file that `include` names, fetching only what is missing.

    With `HF_HUB_OFFLINE=1` no network is touched, and when the hub cannot be reached what the cache holds is used.

    Args:
        repo: hub id, for example `microsoft/Phi-3-mini-4k-instruct`.
        revision: commit, tag or branch. A commit already in the cache is not asked for again.
        include: patterns of the files wanted, as `fnmatch` reads them.
        exclude: patterns of files not wanted after all.

    Raises:
        NoRoom: the disk has less left than what is missing takes.
        WeightsError: the files could not be had, or are not what the hub publishes.
    """
    import httpx
    from huggingface_hub import constants, is_offline_mode, resolve_revision, snapshot_download
    from huggingface_hub.errors import RevisionResolutionError

    offline, damage = is_offline_mode(), None
    patterns = {"allow_patterns": list(include), "ignore_patterns": list(exclude)}
    try:
        _limit_silence()
        commit = resolve_revision(repo, revision=revision, local_files_only=offline).resolved
        asked = {"cache": constants.HF_HUB_CACHE, "repo": repo, "commit": commit, "files": repr(patterns)}
        receipt = store.root() / "hub" / f"{repo.replace('/', '--')}-{store.digest(asked)}.json"
        with contextlib.suppress(OSError, ValueError, TypeError):
            kept = json.loads(receipt.read_text(encoding="utf-8"))
            folder = Path(kept["folder"])
            if not (damage := store.damage(folder, kept["files"])):
                return folder
            store.say(f"{folder} is damaged: {damage}")
        if offline:
            folder = Path(snapshot_download(repo, revision=commit, local_files_only=True, **patterns))
            if damage:
                raise WeightsError(
                    f"{folder} is damaged ({damage}), and HF_HUB_OFFLINE=1 forbids fetching that again. "
                    "Run this where there is a network, or unset the variable."
                )
            _unlink(folder)
            return folder
        folder, names = _bring(repo, commit, patterns)
        try:
            wrong = _expelled(repo, commit, folder)
        except httpx.TransportError:
            if damage:
                raise
            store.say(f"the hub does not answer: {folder} is used as it is, and is checked another time")
            return folder
        if wrong and damage:  # it was right once
            receipt.unlink(missing_ok=True)
            return fetch(repo, revision, include, exclude)
        if wrong:
            raise WeightsError(
                f"{', '.join(wrong)} did not have the hash that {repo} publishes, and is deleted. Run this again to "
                "fetch it anew; if it goes wrong twice, something between here and the hub changes what you download."
            )
        files = {name: (store.file_hash(folder / name), (folder / name).stat().st_size) for name in names}
    except (OSError, ValueError, RuntimeError, RevisionResolutionError, httpx.HTTPError) as error:
        command = ["hf", "download", repo, "--revision", revision]
        command += [word for pattern in include for word in ("--include", pattern)]
        command += [word for pattern in exclude for word in ("--exclude", pattern)]
        raise explained(error, repo, revision, offline, shlex.join(command)) from error
    with contextlib.suppress(OSError):  # without a receipt the next call asks the hub again, no more
        receipt.parent.mkdir(parents=True, exist_ok=True)
        new = receipt.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"folder": str(folder), "files": files}), encoding="utf-8")
        new.replace(receipt)
    return folder


def revision(folder: Path) -> str:
    """Which files these are, in one line to be recorded with a model.

    Args:
        folder: as `checkpoint` or `onnx` returned it.

    Returns:
        `owner/name@commit` for what came from a hub: as a model's name it means these very files. Else the last two
        names of the path, which for what is built here are its kind and the digest of its recipe.
    """
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots":
            return f"{repo_id(place.parents[1])}@{place.name}"
    return "/".join(folder.parts[-2:])


def repo_id(repository: Path) -> str:
    """The hub id, `owner/name`, of a repository's folder in the hub's cache."""
    return repository.name.removeprefix("models--").replace("--", "/", 1)


def _bring(repo: str, commit: str, patterns: dict[str, list[str]]) -> tuple[Path, list[str]]:
    """Bring into the cache what it lacks of a commit; return its folder, and the names of all files asked for.

    One file after the other, in this thread: huggingface_hub's pool of threads would let Ctrl-C wait for gigabytes.
    """
    from huggingface_hub import constants, get_cached_repo_tree, hf_hub_download, snapshot_download
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import filter_repo_objects, tqdm

    class Bar(tqdm):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options | {"disable": options.get("disable") or not sys.stderr.isatty()})

    cache = Path(constants.HF_HUB_CACHE)
    _sweep(cache, repo_folder_name(repo_id=repo, repo_type="model"))
    # No file yet, but the list of them: it is kept, and tells huggingface_hub offline what is missing.
    silent = functools.partial(tqdm, disable=True)
    folder = Path(snapshot_download(repo, revision=commit, allow_patterns=[], tqdm_class=silent))
    tree = get_cached_repo_tree(repo, revision=commit)
    wanted = {file.path: file.size for file in filter_repo_objects(tree, key=lambda file: file.path, **patterns)}
    missing = [path for path in wanted if not (folder / path).exists()]
    if size := sum(wanted[path] for path in missing):
        room.need_disk(f"Fetching {repo}", cache, size)
        time = f", {size / 6e8:.0f} min at 10 MB/s" if size > 6e8 else ""
        store.say(f"fetching {size / 1e6:,.1f} MB of {repo} into {cache}{time}. Ctrl-C is safe: whole files stay.")
    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)  # its warnings show signed addresses
    # Plain HTTP: there Ctrl-C, silence and a broken connection are tested; over Xet, the hub's own way, nothing is.
    # Nor is a file then taken, damage and all, from the store that repositories share with Xet.
    with _true("HF_HUB_DISABLE_XET"):
        for path in missing:
            hf_hub_download(repo, path, revision=commit, tqdm_class=Bar)
    _unlink(folder)
    return folder, list(wanted)


def _expelled(repo: str, commit: str, folder: Path) -> list[str]:
    """Delete from the cache what has not the hash that the hub gives for it; return the names of that."""
    from huggingface_hub import HfApi

    _limit_silence()
    mismatches = HfApi().verify_repo_checksums(repo, revision=commit).mismatches
    for mismatch in mismatches:
        (folder / mismatch["path"]).unlink(missing_ok=True)
        (folder.parents[1] / "blobs" / mismatch["expected"]).unlink(missing_ok=True)
    return [mismatch["path"] for mismatch in mismatches]


def _sweep(cache: Path, repo: str) -> None:
    """Remove the pieces that killed downloads left in the cache folder of `repo`; nobody takes them up again."""
    from filelock import FileLock, Timeout

    for piece in (cache / repo / "blobs").glob("*.incomplete"):
        lock = FileLock(cache / ".locks" / repo / f"{piece.name.partition('.')[0]}.lock", blocking=False)
        with contextlib.suppress(OSError, Timeout), lock:  # whoever is still writing holds it
            piece.unlink()


def _unlink(folder: Path) -> None:
    """Turn each symbolic link, as huggingface_hub makes them, into a second name of its file; nothing is copied.

    MLflow stores no artifact that leads out of its folder.
    """
    for link in (path for path in folder.rglob("*") if path.is_symlink() and path.is_file()):
        blob, name = link.resolve(), link.with_name(f"{link.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a cache that cannot be written
            try:
                os.link(blob, name)
                name.replace(link)
            except OSError:  # a file system where a file has one name
                blob.replace(link)


def _limit_silence() -> None:
    """Let no request to the hub wait for ever; huggingface_hub sets no limit to those for lists of files."""
    from huggingface_hub import get_session

    if _limited not in (hooks := get_session().event_hooks["request"]):  # a session made anew has forgotten it
        hooks.append(_limited)


def _limited(request: httpx.Request) -> None:
    from huggingface_hub import constants

    limits = request.extensions["timeout"]
    request.extensions["timeout"] = {kind: limits[kind] or constants.HF_HUB_DOWNLOAD_TIMEOUT for kind in limits}


def offline() -> contextlib.AbstractContextManager[None]:
    """Keep huggingface_hub off the network inside the block, as `HF_HUB_OFFLINE=1` does for a whole process.

    MLflow asks a hub for the card and the licence of any model that it logs, for `tiny` as well, which no hub has.
    """
    return _true("HF_HUB_OFFLINE")


@contextlib.contextmanager
def _true(constant: str) -> Iterator[None]:
    """Set a constant of huggingface_hub inside the block; it was read once from the environment."""
    from huggingface_hub import constants

    before = getattr(constants, constant)
    setattr(constants, constant, True)
    try:
        yield
    finally:
        setattr(constants, constant, before)
