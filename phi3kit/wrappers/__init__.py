"""What MLflow stores: `Phi3Model` (prompts), `Phi3Chat` (messages), and what a transformers pipeline needs besides.

It knows nothing of tracking stores or of notebooks.
"""

from phi3kit.wrappers.chat import Phi3Chat
from phi3kit.wrappers.packaging import onnx_requirements, packaged, packaged_pipeline, transformers_requirements
from phi3kit.wrappers.prompt import ARTIFACT, Phi3Model

__all__ = [
    "ARTIFACT",
    "Phi3Chat",
    "Phi3Model",
    "onnx_requirements",
    "packaged",
    "packaged_pipeline",
    "transformers_requirements",
]
