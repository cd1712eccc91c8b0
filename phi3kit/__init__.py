"""Phi-3 as an MLflow model: the helper library of the workbook.

Importing it loads nothing heavy and turns the telemetry of MLflow and of ONNX Runtime off, which both read
their switch once, at their own first import. Set either variable yourself to decide otherwise.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
