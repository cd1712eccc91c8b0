"""An ONNX model folder, checked and opened with onnxruntime-genai."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from phi3kit.errors import InvalidSetting, WeightsError
from phi3kit.system import folders, machine, requirements

THREADS = "PHI3KIT_THREADS"


@dataclass(frozen=True)
class Model:
    """An open model.

    Attributes:
        folder: where it was opened.
        context_length: tokens of prompt and answer together.
        vocab_size: token ids are below this.
        threads: compute threads.
        og_model: the `onnxruntime_genai.Model`.
    """

    folder: Path
    context_length: int
    vocab_size: int
    threads: int
    og_model: Any

    @classmethod
    def open(cls, folder: Path | str, threads: int | None = None) -> Self:
        """Verify a folder, check that memory will hold it, and open it.

        Args:
            folder: holds `genai_config.json`, the model and its tokenizer.
            threads: compute threads; by default `PHI3KIT_THREADS`, else the physical cores that this process may use.

        Raises:
            WeightsError: the folder is no onnxruntime-genai model, is not as it was sealed, or needs more memory than
                is left.
            InvalidSetting: `PHI3KIT_THREADS` is no whole number.
        """
        folder = Path(folder)
        folders.verify(folder)
        # Random weights of Phi-3-mini's shape, 2.6 GB on disk, were measured at 3.2 GB in memory.
        requirements.need_memory(f"Opening {folder}", int(1.25 * folders.weights_size(folder)))
        import onnxruntime_genai as og

        try:
            described = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        except FileNotFoundError:
            raise WeightsError(f"{folder} has no genai_config.json: give an onnxruntime-genai model folder.") from None
        threads = threads or default_threads()
        session = {"intra_op_num_threads": threads}
        try:
            config = og.Config(str(folder))
            config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
            opened = og.Model(config)
        except RuntimeError as error:
            raise WeightsError(f"onnxruntime-genai cannot open {folder}: {error}. Fetch or export it again.") from error
        return cls(folder, described["context_length"], described["vocab_size"], threads, opened)

    def tokenizer(self) -> Any:
        """Return the model's `onnxruntime_genai.Tokenizer`."""
        import onnxruntime_genai as og

        return og.Tokenizer(self.og_model)

    def generator(self, **search: Any) -> Any:
        """Return a new `onnxruntime_genai.Generator`.

        Args:
            search: search options under onnxruntime-genai's names, for example `max_length`.
        """
        import onnxruntime_genai as og

        params = og.GeneratorParams(self.og_model)
        params.set_search_options(**search)
        return og.Generator(self.og_model, params)


def default_threads() -> int:
    """`PHI3KIT_THREADS`, else the physical cores that this process may use."""
    # og's own default is half of the logical CPUs: one thread here, 140 tokens/s against 178 to 205 with two.
    text = os.environ.get(THREADS) or "0"
    if not text.isdecimal():
        raise InvalidSetting(THREADS, text, "a whole number, or unset it to use every physical core")
    return int(text) or machine.physical_cores()
