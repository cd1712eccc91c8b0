"""Phi-3 as an MLflow model: the helper library of the workbook.

Importing it loads nothing heavy and turns off the telemetry of MLflow, ONNX Runtime and huggingface_hub, which read
their switches once, at their own first import. Set a variable yourself to decide otherwise.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
