"""What the exported graph of a model folder looks like, and whether slots can run it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from phi3kit.errors import WeightsError
from phi3kit.system import folders

# A long-rope model switches its tables for all rows when one mask is wider than the window that it was trained with:
# 4,096 tokens for every Phi-3 and Phi-4 that has them. The exporter keeps the wider tables under this name.
_LONG_ROPE, _LONG_ROPE_WINDOW = b"cos_cache_large", 4096
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


@dataclass(frozen=True)
class Graph:
    """The inputs and outputs of a decoder.

    Attributes:
        folder: of the model.
        context_length: the most tokens that a row may hold.
        vocab_size: token ids are below this.
        end_ids: the tokens that end an answer.
        search: the model's own search options, from `genai_config.json`.
        caches: the name of each cache input, and of the output that continues it.
        heads: key-value heads.
        head_size: numbers in each.
        dtype: of the caches and of the logits.
    """

    folder: Path
    context_length: int
    vocab_size: int
    end_ids: tuple[int, ...]
    search: dict[str, Any]
    caches: dict[str, str]
    heads: int
    head_size: int
    dtype: type[np.floating[Any]]

    @classmethod
    def read(cls, folder: Path, session: Any) -> Self:
        """Describe the graph of an `onnxruntime.InferenceSession`, opened from the folder.

        Raises:
            WeightsError: naming the input that slots cannot feed.
        """
        config, path = folders.GenaiConfig.read(folder), folder / "genai_config.json"
        content = folders.read_json(path)
        decoder = content["model"].get("decoder", {})
        names = {**decoder.get("inputs", {}), **decoder.get("outputs", {})}
        kinds = {node.name: node.type for node in session.get_inputs()}
        caches = {
            names[f"past_{part}_names"] % layer: names[f"present_{part}_names"] % layer
            for part in ("key", "value")
            if f"past_{part}_names" in names and f"present_{part}_names" in names
            for layer in range(folders.number(path, content, "model.decoder.num_hidden_layers"))
        }
        wanted = {"input_ids", "attention_mask", *caches}
        if strange := sorted(kinds.keys() ^ wanted):
            raise WeightsError(
                f"{folder} cannot be served in slots: its graph and slots differ in {', '.join(strange[:3])}. "
                "Export it again with `phi3kit weights fetch`, or serve it with `mlflow models serve`."
            )
        kind = kinds[next(iter(caches))]
        if kind not in _DTYPES:
            raise WeightsError(f"{folder} cannot be served in slots: its cache holds {kind}, not floating point.")
        window = config.context_length
        if _LONG_ROPE in (folder / decoder.get("filename", "model.onnx")).read_bytes():
            window = min(window, _LONG_ROPE_WINDOW)
        ends = content["model"]["eos_token_id"]
        return cls(
            folder=folder,
            context_length=window,
            vocab_size=config.vocab_size,
            end_ids=tuple(ends) if isinstance(ends, list) else (ends,),
            search=content.get("search", {}),
            caches=caches,
            heads=folders.number(path, content, "model.decoder.num_key_value_heads"),
            head_size=folders.number(path, content, "model.decoder.head_size"),
            dtype=_DTYPES[kind],
        )

    @property
    def bytes_per_token(self) -> int:
        """What one token takes in the caches of all layers: 46 kB for `tiny`, 0.8 MB for Phi-3-mini."""
        return len(self.caches) * self.heads * self.head_size * np.dtype(self.dtype).itemsize
