"""An onnxruntime session without weights, over the caches that the slots bind: a token is a character.

A prompt ends with `|`, and the answer repeats what stands before it. The session remembers nothing itself: it reads the
row's tokens from the bound cache, so a cache that was swapped, cut or shared wrongly gives another answer.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from fake_og import END, FakeTokenizer

from phi3kit.serving.decoder import Decoder
from phi3kit.serving.graph import Graph
from phi3kit.serving.slots import Slots

BAR = ord("|")
VOCABULARY = 256


class FakeBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def bind_cpu_input(self, name: str, array: Any) -> None:
        self.inputs[name] = array

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, pointer: int) -> None:
        self.inputs[name] = _array(dtype, shape, pointer)

    def bind_output(self, name: str, device: str, number: int, dtype: Any, shape: Any, pointer: int) -> None:
        self.outputs[name] = _array(dtype, shape, pointer)


class FakeSession:
    """What a decoder calls of `onnxruntime.InferenceSession`.

    Attributes:
        reads: the shape of the tokens of each run.
        fails: a token whose reading raises.
    """

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.fails: int | None = None

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        tokens, mask = binding.inputs["input_ids"], binding.inputs["attention_mask"]
        self.reads.append(tokens.shape)
        if self.fails is not None and (tokens == self.fails).any():
            raise RuntimeError("the session failed")
        cache, logits = binding.outputs["present"], binding.outputs["logits"]
        logits[:] = 0
        for row, end in enumerate(mask.sum(axis=1)):
            cache[row, 0, end - tokens.shape[1] : end, 0] = tokens[row]
            logits[row, -1, self.next_token(cache[row, 0, :end, 0].astype(int).tolist())] = 10

    @staticmethod
    def next_token(row: list[int]) -> int:
        if BAR not in row:
            return END
        prompt, answer = row[: row.index(BAR)], row[row.index(BAR) + 1 :]
        return prompt[len(answer)] if len(answer) < len(prompt) else END


def graph(context: int = 512, **search: Any) -> Graph:
    return Graph(Path(), context, VOCABULARY, (END,), search, {"past": "present"}, 1, 1, np.float32)


def open_slots(session: Any, slots: int = 4, context: int = 512, max_queue: int = 100, **search: Any) -> Slots:
    return Slots(Decoder(session, graph(context, **search), slots, context), FakeTokenizer(), max_queue)


def _array(dtype: Any, shape: tuple[int, ...], pointer: int) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * size).from_address(pointer), dtype).reshape(shape)
