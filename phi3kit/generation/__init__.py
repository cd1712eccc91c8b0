"""onnxruntime-genai made safe: text, streams and batches. Knows nothing of MLflow."""

from phi3kit.generation.answer import Completion
from phi3kit.generation.engine import Engine, Stream
from phi3kit.generation.options import Options

__all__ = ["Completion", "Engine", "Options", "Stream"]
