"""What of a download no hub can be made to show; the rest is asked of one in `integration/test_hub*.py`."""

import errno
import os
from pathlib import Path

import httpx
import pytest

from phi3kit.errors import WeightsError
from phi3kit.weights import hub, revision
from phi3kit.weights.hub_errors import explained


def test_a_full_disk_says_which_variables_name_another(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub import constants

    def snapshot_download(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(WeightsError, match=r"No room is left at .*HF_HOME"):
        hub.fetch("someone/something", "0" * 40, ["*.json"])


def test_a_certificate_of_a_company_names_the_variable():
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    assert "SSL_CERT_FILE" in str(explained(error, "someone/something", "main", False, ""))


@pytest.mark.parametrize("scheme", ["", "http://", "socks5://"])
def test_the_password_of_a_proxy_is_not_shown(monkeypatch, scheme):
    from huggingface_hub import constants

    for name in ("https_proxy", "no_proxy"):  # they would count before those in capitals
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}me:pass@phrase@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    for error in (httpx.ProxyError("407 Proxy Authentication Required"), httpx.ConnectError("no route")):
        said = str(explained(error, "someone/something", "main", False, ""))
        assert f"proxy {scheme}proxy:3128" in said
        assert "phrase" not in said


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (f"hub/models--microsoft--Phi-4/snapshots/{'a' * 40}", f"microsoft/Phi-4@{'a' * 40}"),
        (f"hub/models--some--two--dashes/snapshots/{'b' * 40}/cpu/int4", f"some/two--dashes@{'b' * 40}"),
        ("kit/tiny-onnx/0123456789ab", "tiny-onnx/0123456789ab"),
    ],
)
def test_the_revision_that_is_recorded(folder, said):
    assert revision(Path("/cache") / folder) == said
