"""Error messages for failed downloads: what happened, and what to do next."""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from phi3kit.errors import WeightsError
from phi3kit.weights import store


def explain(error: Exception, repo: str, revision: str, patterns: dict[str, list[str]], offline: bool) -> WeightsError:
    """The same error in words that say what to do next. The message holds no address with a signature.

    Args:
        error: from huggingface_hub, httpx or the file system.
        repo: hub id.
        revision: commit, tag or branch.
        patterns: `allow_patterns` and `ignore_patterns` of the files, for the `hf download` that fetches them.
        offline: whether `HF_HUB_OFFLINE=1` forbade the network.
    """
    import httpx
    from huggingface_hub import constants, errors

    hub, page, cache = constants.ENDPOINT, f"{constants.ENDPOINT}/{repo}", constants.HF_HUB_CACHE
    unresolved = isinstance(error, (errors.LocalEntryNotFoundError, errors.RevisionResolutionError))
    error = error.__cause__ if unresolved and isinstance(error.__cause__, Exception) else error
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    proxy = _proxy(hub)
    again = "Try again: the files that are whole stay"
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
            f"{repo} is not complete in {cache}, and HF_HUB_OFFLINE=1 forbids fetching it. "
            f"Run this where there is a network, or unset the variable:\n  {_command(repo, revision, patterns)}"
        )
    if isinstance(error, OSError) and (explanation := store.explain_write_error(error, Path(cache))):
        return explanation
    if isinstance(error, httpx.ProxyError) or status == 407:
        return WeightsError(
            f"The proxy {proxy} does not let {repo} through ({status or error}). If it wants a name and a password: "
            "HTTPS_PROXY=http://name:password@host:port; if the hub is to be reached without it: NO_PROXY=host."
        )
    if isinstance(error, httpx.TimeoutException):
        return WeightsError(
            f"{hub} was silent for {constants.HF_HUB_DOWNLOAD_TIMEOUT} s. {again}; on a slow line wait longer, "
            "with HF_HUB_DOWNLOAD_TIMEOUT=60."
        )
    if isinstance(error, httpx.TransportError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return WeightsError(
            f"{hub} shows a certificate that is not trusted here, as behind the proxy of a company. Name the file "
            "with the company's certificates in SSL_CERT_FILE, and try again."
        )
    if isinstance(error, httpx.TransportError) or (unresolved and not status):
        through = f" through the proxy {proxy}" if proxy else ""
        return WeightsError(
            f"{repo} is not complete in {cache}, and {hub} cannot be reached{through}. Check the connection or the "
            "proxy and try again: the files that are whole stay. The model `tiny` needs no hub."
        )
    if status in (401, 403):
        return WeightsError(
            f"{hub} refuses to give {repo} ({status}). Run `hf auth login` with a token that may read it; if HF_TOKEN "
            "is set, it counts first."
        )
    if status == 429:
        return WeightsError(
            f"{hub} had too many requests from here (429). Wait some minutes, or run `hf auth login`, which allows "
            f"more. {again}."
        )
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    reason = f"it answered {status}" if status else re.sub(r"\?\S+", "", text)
    return WeightsError(f"{repo} could not be fetched from {hub} ({reason}). {again}.")


def _command(repo: str, revision: str, patterns: dict[str, list[str]]) -> str:
    options = [("--include", pattern) for pattern in patterns["allow_patterns"]]
    options += [("--exclude", pattern) for pattern in patterns["ignore_patterns"]]
    return shlex.join(["hf", "download", repo, "--revision", revision, *chain(*options)])


def _proxy(url: str) -> str | None:
    """The proxy for `url`, without the password it may hold; None when there is none."""
    address = urlsplit(url)
    proxies = {} if proxy_bypass(address.hostname or "") else getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    return proxy and re.sub(r"^(\w+://)?.*@", r"\1", proxy)
