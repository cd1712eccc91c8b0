"""Where runs and registered models are recorded: one store, and MLflow's model registry in it.

It knows MLflow, and nothing of what a model is or does.
"""

from phi3kit.tracking.registry import register
from phi3kit.tracking.store import ROOT, StoreMismatch, create, mismatch, sqlite_address, sqlite_file, uri, use

__all__ = ["ROOT", "StoreMismatch", "create", "mismatch", "register", "sqlite_address", "sqlite_file", "uri", "use"]
