"""Files from a model hub, through huggingface_hub and its own cache.

After a download every file is hashed and compared with the hub's hashes, and a receipt records the SHA-256 of each. The
receipt lets each later process check the files without a network (7.6 GB take 5 s here).
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phi3kit.errors import WeightsError
from phi3kit.system import folders, requirements
from phi3kit.weights import store
from phi3kit.weights.hub_errors import explain

# Safetensors and the tokenizer in any form; no pickles, no code, no copies in subfolders or in Mistral's format.
CHECKPOINT = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt")
NOT_CHECKPOINT = ("*/*", "consolidated*")


def fetch(repo: str, revision: str, include: Sequence[str], exclude: Sequence[str] = ()) -> Path:
    """The snapshot folder of `repo` with all files that the patterns select; only missing files are downloaded.

    `HF_HUB_OFFLINE=1` forbids the network. If the hub cannot be reached, the files in the cache are used.

    Args:
        repo: hub id, for example `microsoft/Phi-3-mini-4k-instruct`.
        revision: commit, tag or branch. A commit that is in the cache needs no request.
        include: patterns of the files to fetch, as `fnmatch` reads them.
        exclude: patterns of the files to leave out of those.

    Raises:
        InsufficientResources: the missing files do not fit on the disk.
        WeightsError: the files could not be fetched, or differ from what the hub publishes.
    """
    import httpx
    from huggingface_hub import constants, is_offline_mode, resolve_revision
    from huggingface_hub.errors import RevisionResolutionError

    offline, damage = is_offline_mode(), None
    patterns = {"allow_patterns": list(include), "ignore_patterns": list(exclude)}
    try:
        _limit_silence()
        commit = resolve_revision(repo, revision=revision, local_files_only=offline).resolved
        request = {"cache": constants.HF_HUB_CACHE, "repo": repo, "commit": commit, "files": repr(patterns)}
        receipt = store.root() / "hub" / f"{repo.replace('/', '--')}-{folders.digest(request)}.json"
        if content := read_receipt(receipt):
            folder, files = content
            if not (damage := folders.damage(folder, files)):
                return folder
            store.say(f"{folder} is damaged: {damage}")
        if offline:
            return _from_cache(repo, commit, patterns, damage)
        if damage:
            _remove_mismatches(repo, commit, folder)
        folder, names = _download(repo, commit, patterns)
        if _verify(repo, commit, folder, damage):
            _write_receipt(receipt, folder, names)
        return folder
    except (OSError, ValueError, RuntimeError, RevisionResolutionError, httpx.HTTPError) as error:
        raise explain(error, repo, revision, patterns, offline) from error


def revision(folder: Path) -> str:
    """The revision of a model's files, in one line to record with a model.

    Args:
        folder: as `checkpoint` or `onnx` returned it.

    Returns:
        `owner/name@commit` for files of a hub; this is also a model name for exactly these files. For a folder that the
        kit built, its kind and the digest of its recipe, which are the last two names of its path.
    """
    for path in (folder, *folder.parents):
        if path.parent.name == "snapshots":
            return f"{repo_id(path.parents[1])}@{path.name}"
    return "/".join(folder.parts[-2:])


def repo_id(repository: Path) -> str:
    """The hub id, `owner/name`, of a repository's folder in the hub's cache."""
    return repository.name.removeprefix("models--").replace("--", "/", 1)


def read_receipt(receipt: Path) -> tuple[Path, dict[str, Any]] | None:
    """The folder that a receipt is for, and the SHA-256 and size of each file; None if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(receipt.read_text(encoding="utf-8"))
        return Path(content["folder"]), content["files"]
    return None


def receipts(repository: Path) -> Iterator[Path]:
    """The receipts of a repository in the hub's cache: one for each commit and set of patterns."""
    return (store.root() / "hub").glob(f"{repository.name.removeprefix('models--')}-*.json")


def _from_cache(repo: str, commit: str, patterns: dict[str, list[str]], damage: str | None) -> Path:
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repo, revision=commit, local_files_only=True, **patterns))
    if damage:
        raise WeightsError(
            f"{folder} is damaged ({damage}), and HF_HUB_OFFLINE=1 forbids fetching that again. "
            "Run this where there is a network, or unset the variable."
        )
    _replace_links(folder)
    return folder


def _verify(repo: str, commit: str, folder: Path, damage: str | None) -> bool:
    """Compare every file with the hub's hash. Return False if the hub does not answer and nothing was damaged.

    Raises:
        WeightsError: a file has another hash; it is removed.
    """
    import httpx

    try:
        mismatches = _remove_mismatches(repo, commit, folder)
    except httpx.TransportError:
        if damage:
            raise
        store.say(f"the hub does not answer: {folder} is used as it is, and is checked another time")
        return False
    if mismatches:
        raise WeightsError(
            f"{', '.join(mismatches)} did not have the hash that {repo} publishes, and is deleted. Run this again to "
            "fetch it anew; if that fails twice, something between here and the hub changes what you download."
        )
    return True


def _download(repo: str, commit: str, patterns: dict[str, list[str]]) -> tuple[Path, list[str]]:
    """Download the files of a commit that the cache lacks; return the snapshot folder and the names of all files.

    The files are downloaded one after the other in this thread: in huggingface_hub's pool of threads, Ctrl-C would wait
    for gigabytes.
    """
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.utils import tqdm

    cache, silent = Path(constants.HF_HUB_CACHE), functools.partial(tqdm, disable=True)
    _remove_partial_files(cache, repo)
    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)  # its warnings show signed addresses
    # Xet, the hub's default, is switched off. Ctrl-C, silence and broken connections are tested over plain HTTP only,
    # and a file from the store that repositories share over Xet may be damaged.
    with _true("HF_HUB_DISABLE_XET"):
        # This fetches no file but stores the list of files, which tells huggingface_hub offline what is missing.
        folder = Path(snapshot_download(repo, revision=commit, allow_patterns=[], tqdm_class=silent))
        files = snapshot_download(repo, revision=commit, dry_run=True, tqdm_class=silent, **patterns)
        if size := sum(file.file_size or 0 for file in files if file.will_download):
            requirements.need_disk(f"Fetching {repo}", cache, size, "HF_HOME")
            time = f", {size / 6e8:.0f} min at 10 MB/s" if size > 6e8 else ""
            store.say(f"fetching {size / 1e6:,.1f} MB of {repo} into {cache}{time}. Ctrl-C is safe: whole files stay.")
        for file in files:
            hf_hub_download(repo, file.filename, revision=commit)
    _replace_links(folder)
    return folder, [file.filename for file in files]


def _remove_mismatches(repo: str, commit: str, folder: Path) -> list[str]:
    """Remove cached files whose hash differs from the hub's, and return their names."""
    from huggingface_hub import HfApi

    if not folder.is_dir():
        return []
    _limit_silence()
    mismatches = HfApi().verify_repo_checksums(repo, revision=commit).mismatches
    for mismatch in mismatches:
        (folder / mismatch["path"]).unlink(missing_ok=True)
        (folder.parents[1] / "blobs" / mismatch["expected"]).unlink(missing_ok=True)
    return [mismatch["path"] for mismatch in mismatches]


def _write_receipt(receipt: Path, folder: Path, names: Sequence[str]) -> None:
    files = {name: (folders.file_hash(folder / name), (folder / name).stat().st_size) for name in names}
    with contextlib.suppress(OSError):  # without a receipt the next call asks the hub again
        receipt.parent.mkdir(parents=True, exist_ok=True)
        temporary = receipt.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"folder": str(folder), "files": files}), encoding="utf-8")
        temporary.replace(receipt)


def _remove_partial_files(cache: Path, repo: str) -> None:
    """Remove the partial files that killed downloads left in the cache; huggingface_hub does not resume them."""
    from filelock import FileLock, Timeout

    name = f"models--{repo.replace('/', '--')}"
    for path in (cache / name / "blobs").glob("*.incomplete"):
        lock = FileLock(cache / ".locks" / name / f"{path.name.partition('.')[0]}.lock", blocking=False)
        with contextlib.suppress(OSError, Timeout), lock:  # a process that still writes the file holds its lock
            path.unlink()


def _replace_links(folder: Path) -> None:
    """Replace huggingface_hub's symbolic links by hard links; nothing is copied.

    MLflow does not store an artifact that is a link to a place outside its folder.
    """
    for link in (path for path in folder.rglob("*") if path.is_symlink() and path.is_file()):
        blob, name = link.resolve(), link.with_name(f"{link.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # the cache is read-only
            try:
                os.link(blob, name)
                name.replace(link)
            except OSError:  # the file system has no hard links
                blob.replace(link)


def _limit_silence() -> None:
    """Set a time limit for every request to the hub; huggingface_hub sets none for lists of files."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["request"]
    if _set_timeouts not in hooks:  # huggingface_hub may have made a new session
        hooks.append(_set_timeouts)


def _set_timeouts(request: Any) -> None:
    from huggingface_hub import constants

    limits = request.extensions["timeout"].items()
    request.extensions["timeout"] = {kind: limit or constants.HF_HUB_DOWNLOAD_TIMEOUT for kind, limit in limits}


def offline() -> contextlib.AbstractContextManager[None]:
    """Keep huggingface_hub off the network inside the block, as `HF_HUB_OFFLINE=1` does for a whole process.

    MLflow asks a hub for the card and the licence of every model that it logs, even of `tiny`, which is on no hub.
    """
    return _true("HF_HUB_OFFLINE")


@contextlib.contextmanager
def _true(constant: str) -> Iterator[None]:
    """Set a constant of huggingface_hub inside the block; the environment is read only when it is imported."""
    from huggingface_hub import constants

    before = getattr(constants, constant)
    setattr(constants, constant, True)
    try:
        yield
    finally:
        setattr(constants, constant, before)
