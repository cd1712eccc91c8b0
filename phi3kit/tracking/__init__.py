"""Where runs and registered models are recorded: one store, and MLflow's model registry in it.

It knows MLflow, and nothing of what a model is or does.
"""

from phi3kit.tracking.address import UnusableStore, sqlite_address, sqlite_file
from phi3kit.tracking.registry import register
from phi3kit.tracking.store import ROOT, create, uri, use, verify

__all__ = ["ROOT", "UnusableStore", "create", "register", "sqlite_address", "sqlite_file", "uri", "use", "verify"]
