"""The steps that the fire tests kill and repeat."""

from steps import copies, exported, fetched, slow_hub, small, tiny

__all__ = ["copies", "exported", "fetched", "slow_hub", "small", "tiny"]
