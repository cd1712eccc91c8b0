"""onnxruntime-genai made safe: answers, streams and batches from one open model.

It knows nothing of MLflow, of hubs or of chat messages.
"""

from phi3kit.generation.answer import Answer
from phi3kit.generation.engine import Engine, Stream
from phi3kit.generation.options import Options

__all__ = ["Answer", "Engine", "Options", "Stream"]
