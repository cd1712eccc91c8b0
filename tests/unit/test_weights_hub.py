"""What a hub cannot be made to do in a test; the rest is tested with one in `integration/test_hub*.py`."""

import errno
import os
from pathlib import Path

import httpx
import pytest

from phi3kit.errors import WeightsError
from phi3kit.weights import hub, revision
from phi3kit.weights.hub_errors import explain

PATTERNS = {"allow_patterns": ["*.json"], "ignore_patterns": []}


def explained(error: Exception) -> str:
    return str(explain(error, "someone/something", "main", PATTERNS, offline=False))


def test_a_full_disk_names_the_variable(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import constants

    def snapshot_download(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(WeightsError, match=r"is full.*HF_HOME"):
        hub.fetch("someone/something", "0" * 40, ["*.json"])


def test_a_certificate_of_a_company_names_the_variable():
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    assert "SSL_CERT_FILE" in explained(error)


@pytest.mark.parametrize("error", [httpx.ProxyError("407 Proxy Authentication Required"), httpx.ConnectError("no")])
@pytest.mark.parametrize("scheme", ["", "http://", "socks5://"])
def test_a_proxy_is_named_without_its_password(monkeypatch, scheme, error):
    from huggingface_hub import constants

    for name in ("https_proxy", "no_proxy"):  # they take precedence over the upper-case names
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}me:pass@phrase@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    message = explained(error)
    assert (f"proxy {scheme}proxy:3128" in message, "phrase" in message) == (True, False)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (f"hub/models--microsoft--Phi-4/snapshots/{'a' * 40}", f"microsoft/Phi-4@{'a' * 40}"),
        (f"hub/models--some--two--dashes/snapshots/{'b' * 40}/cpu/int4", f"some/two--dashes@{'b' * 40}"),
        ("kit/tiny-onnx/0123456789ab", "tiny-onnx/0123456789ab"),
    ],
)
def test_the_revision_to_record(folder, expected):
    assert revision(Path("/cache") / folder) == expected
