"""The hub and its client, and the steps that obtain files, for all tests that need them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import ONNX, ONNX_UNWANTED, ONNX_WANTED, PHI_3, UNWANTED, WANTED, Client, repository
from hub_server import Hub
from steps import copies, exported, fetched, slow_hub, small, tiny

__all__ = ["client", "copies", "exported", "fetched", "hub", "slow_hub", "small", "tiny"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    repository(tmp_path / "served" / PHI_3.checkpoint.repo, WANTED | UNWANTED)
    repository(tmp_path / "served" / PHI_3.onnx.repo, {f"{ONNX}/{name}" for name in ONNX_WANTED} | ONNX_UNWANTED)
    with Hub(tmp_path / "served") as hub:
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "home")
