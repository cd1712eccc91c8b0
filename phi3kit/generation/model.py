"""An ONNX model folder, checked and opened with onnxruntime-genai."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from phi3kit.errors import InvalidSetting, WeightsError
from phi3kit.system import folders, machine, requirements, targets

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
            folder: holds the model, its tokenizer, and `genai_config.json`, which names the execution provider.
            threads: compute threads; by default `PHI3KIT_THREADS`, else the physical cores that this process may use.

        Raises:
            WeightsError: the folder is no onnxruntime-genai model, is damaged, needs more memory than is left, or an
                execution provider that is not here.
            InvalidSetting: `PHI3KIT_THREADS` is no whole number.
        """
        folder = Path(folder)
        config = check(folder)
        targets.need(str(folder), config.provider)
        import onnxruntime_genai as og

        threads = threads or default_threads()
        session = {"intra_op_num_threads": threads}
        remedy = "Fetch or export it again"
        if config.provider != "cpu":
            remedy = f"It computes with {config.provider}: `phi3kit doctor` tells what this machine has"
        with _explained(f"open {folder}", folder, remedy):
            og_config = og.Config(str(folder))
            og_config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
            opened = og.Model(og_config)
        return cls(folder, config.context_length, config.vocab_size, threads, opened)

    def tokenizer(self) -> Any:
        """Return the model's `onnxruntime_genai.Tokenizer`.

        Raises:
            WeightsError: the files of the tokenizer cannot be used.
        """
        import onnxruntime_genai as og

        what = f"use tokenizer.json and tokenizer_config.json of {self.folder}"
        with _explained(what, self.folder, "Copy or fetch them again"):
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


def check(folder: Path) -> folders.GenaiConfig:
    """Verify a folder and that memory will hold its model, and return its description.

    Raises:
        WeightsError: the folder is no onnxruntime-genai model, is damaged, or needs more memory than is left.
    """
    folders.verify(folder)
    # Random weights of Phi-3-mini's shape, 2.6 GB on disk, were measured at 3.2 GB in memory.
    requirements.need_memory(f"Opening {folder}", int(1.25 * folders.weights_size(folder)))
    return folders.GenaiConfig.read(folder)


@contextmanager
def _explained(what: str, folder: Path, remedy: str) -> Iterator[None]:
    """Turn an error of onnxruntime-genai into one sentence, which names the damaged file where there is one."""
    try:
        yield
    except RuntimeError as error:
        for path in folders.weights_files(folder):
            if problem := folders.placeholder(path):
                raise WeightsError(f"{path} {problem}.") from error
        reason = " ".join(re.sub(r"(?s).*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).split()).rstrip(".")
        raise WeightsError(f"onnxruntime-genai cannot {what}: {reason}. {remedy}.") from error


def default_threads() -> int:
    """`PHI3KIT_THREADS`, else the physical cores that this process may use."""
    # og's own default is half of the logical CPUs: one thread here, 140 tokens/s against 178 to 205 with two.
    text = os.environ.get(THREADS) or "0"
    if not text.isdecimal():
        raise InvalidSetting(THREADS, text, "a whole number, or unset it to use every physical core")
    return int(text) or machine.physical_cores()
