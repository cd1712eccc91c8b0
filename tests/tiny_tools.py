"""The scripts of `tools/tiny`, which trained and scored `tiny`, as modules."""

import sys

from phi3kit.tracking import ROOT

sys.path.insert(0, str(ROOT / "tools" / "tiny"))

import score
import train

__all__ = ["score", "train"]
