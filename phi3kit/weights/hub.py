"""Files from a model hub, through huggingface_hub and its own cache.

A fetched file is hashed once, against what the hub says of it, and a receipt of sizes and modification times is kept;
later calls compare those alone (hashing 7.6 GB would cost 5 s each time), and need no network for a pinned commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.weights import store

# Safetensors and the tokenizer in whatever form; no pickles, no code, no copies in subfolders or in Mistral's format.
CHECKPOINT = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt")
NOT_CHECKPOINT = ("*/*", "consolidated*")


def fetch(
    repo: str, revision: str, include: Sequence[str], exclude: Sequence[str] = (), size: int | None = None
) -> Path:
    """The snapshot folder of `repo` with every file that `include` names, fetching only what is missing.

    With `HF_HUB_OFFLINE=1` no network is touched, and when the hub cannot be reached what the cache holds is used.

    Args:
        repo: hub id, for example `microsoft/Phi-3-mini-4k-instruct`.
        revision: commit, tag or branch. A commit already in the cache is not asked for again.
        include: patterns of the files wanted, as `fnmatch` reads them.
        exclude: patterns of files not wanted after all.
        size: bytes that all of it takes, for the line that announces a download.

    Raises:
        WeightsError: the files could not be had, or do not have the hashes that the hub publishes.
    """
    import httpx
    from huggingface_hub import HfApi, constants, is_offline_mode, resolve_revision, snapshot_download
    from huggingface_hub.errors import RevisionResolutionError
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options | {"disable": options.get("disable") or not sys.stderr.isatty()})

    offline = is_offline_mode()
    patterns = {"allow_patterns": list(include), "ignore_patterns": list(exclude)}
    try:
        commit = resolve_revision(repo, revision=revision, local_files_only=offline).resolved
        asked = {"cache": constants.HF_HUB_CACHE, "repo": repo, "commit": commit, "files": repr(patterns)}
        receipt = store.root() / "hub" / f"{repo.replace('/', '--')}-{store.digest(asked)}.json"
        with contextlib.suppress(OSError, ValueError):
            folder, sealed = json.loads(receipt.read_text(encoding="utf-8"))
            if sealed and sealed == _state(Path(folder), patterns):
                return Path(folder)
        if not offline:
            amount = f", {size / 1e9:.1f} GB in all" if size else ""
            store.say(f"getting what is missing of {repo}{amount}, into {constants.HF_HUB_CACHE}")
        folder = Path(snapshot_download(repo, revision=commit, local_files_only=offline, tqdm_class=Bar, **patterns))
        if offline:
            return folder
        try:
            checked = HfApi().verify_repo_checksums(repo, revision=commit)
        except httpx.TransportError:
            store.say(f"the hub does not answer: {folder} is used as it is, and is checked another time")
            return folder
    except (OSError, ValueError, RuntimeError, RevisionResolutionError, httpx.HTTPError) as error:
        command = ["hf", "download", repo, "--revision", revision]
        command += [word for pattern in include for word in ("--include", pattern)]
        command += [word for pattern in exclude for word in ("--exclude", pattern)]
        raise _explained(error, repo, revision, offline, shlex.join(command)) from error
    if wrong := [mismatch["path"] for mismatch in checked.mismatches]:
        for name in wrong:
            for path in ((folder / name).resolve(), folder / name):  # the file itself, and the link to it
                path.unlink(missing_ok=True)
        raise WeightsError(
            f"{', '.join(wrong)} did not have the hash that {repo} publishes, and is deleted. Run this again to fetch "
            "it anew; if it goes wrong twice, something between here and the hub changes what you download."
        )
    with contextlib.suppress(OSError):  # without a receipt the next call checks again, no more
        receipt.parent.mkdir(parents=True, exist_ok=True)
        new = receipt.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps([str(folder), _state(folder, patterns)]), encoding="utf-8")
        new.replace(receipt)
    return folder


def _state(folder: Path, patterns: dict[str, list[str]]) -> dict[str, list[int]]:
    """Size and modification time of every file in `folder` that `patterns` ask for."""
    from huggingface_hub.utils import filter_repo_objects

    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    stats = {name: (folder / name).stat() for name in filter_repo_objects(names, **patterns)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())}


def _explained(error: Exception, repo: str, revision: str, offline: bool, command: str) -> WeightsError:
    """The same error in words that say what to do next, and without any address that may hold a signature."""
    import httpx
    from huggingface_hub import constants, errors

    hub, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(f"{repo} is gated. Accept its licence at {page}, run `hf auth login`, and try again.")
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(f"{repo} has no revision {revision}. Its newest is `{repo}@main`; see {page}/commits/main.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"{hub} has no model {repo}, or does not show it to you, and there is no folder of that name here. "
            "Check the spelling; for a private model run `hf auth login` first."
        )
    if offline:
        return WeightsError(
            f"{repo} is not complete in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE=1 forbids fetching it. "
            f"Run this where there is a network, or unset the variable:\n  {command}"
        )
    if isinstance(error, OSError) and (unwritable := store.unwritable(error, Path(constants.HF_HUB_CACHE))):
        return unwritable
    unreached = (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, httpx.TransportError)
    if isinstance(error, unreached):
        return WeightsError(
            f"{repo} is not complete in {constants.HF_HUB_CACHE}, and {hub} cannot be reached. Check the connection or "
            "the proxy and try again: what has arrived is kept. The model `tiny` needs no hub."
        )
    reason = re.sub(r"\?\S+", "", f"{type(error).__name__}: {error}".partition("\n")[0])
    return WeightsError(f"{repo} could not be fetched from {hub} ({reason}). Try again: what has arrived is kept.")


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep huggingface_hub off the network inside the block, as `HF_HUB_OFFLINE=1` does for a whole process.

    MLflow asks a hub for the card and the licence of any model that it logs, for `tiny` as well, which no hub has.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE  # read once from the environment; is_offline_mode() looks here
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
