"""Failures of a download that no hub can be made to show; the rest is asked of a hub in `integration/test_hub.py`."""

import errno
import os

import pytest

from phi3kit.errors import WeightsError
from phi3kit.weights import hub


def test_a_full_disk_says_which_variables_name_another(monkeypatch, tmp_path):
    import huggingface_hub

    def snapshot_download(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(WeightsError, match=r"No room is left at .*HF_HOME"):
        hub.fetch("someone/something", "0" * 40, ["*.json"])
