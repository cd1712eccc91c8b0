"""The graph of a model over a cache in slots: each request has a row of one shared buffer for each layer.

The graph's attention takes each row's length from the mask and writes new keys and values into the very buffer that
it reads, so rows of different lengths are computed together, and a finished row's cache stays for a later request.
"""

from typing import Any

import numpy as np

from phi3kit.serving.graph import Graph

# Tokens of one prompt between two steps of the rows that are being answered.
SLICE = 64

Tokens = np.ndarray[Any, np.dtype[np.int64]]
Logits = np.ndarray[Any, np.dtype[np.float32]]


class Decoder:
    """Reads tokens into slots and returns the logits of what comes next. For one thread.

    Args:
        session: an `onnxruntime.InferenceSession` of the graph.
        graph: its description.
        slots: rows of the cache.
        context: the most tokens of each row.
    """

    def __init__(self, session: Any, graph: Graph, slots: int, context: int) -> None:
        self.graph, self.slots, self.context = graph, slots, context
        self._session = session
        shape = (slots, graph.heads, context, graph.head_size)
        self._caches = {name: np.zeros(shape, graph.dtype) for name in graph.caches}
        self._tokens = np.zeros((slots, context), np.int64)
        self._lengths = np.zeros(slots, np.int64)
        self._positions = np.arange(context)
        self._logits = np.empty(max(SLICE, slots) * graph.vocab_size, graph.dtype)
        self._bindings: dict[tuple[int, int], Any] = {}

    def read(self, first: int, tokens: Tokens) -> Logits:
        """Append tokens to neighbouring slots.

        Args:
            first: the first slot.
            tokens: as many for each slot, shape (slots, tokens).

        Returns:
            the logits after the last token of each slot, shape (slots, vocabulary); the next call overwrites them.
        """
        count, width = tokens.shape
        rows = slice(first, first + count)
        starts, ends = self._lengths[rows], self._lengths[rows] + width
        mask = (self._positions[: ends.max()] < ends[:, None]).astype(np.int64)
        logits = self._logits[: count * width * self.graph.vocab_size].reshape(count, width, -1)
        binding = self._bindings.get((first, count)) or self._bind(first, count)
        binding.bind_cpu_input("input_ids", tokens)
        binding.bind_cpu_input("attention_mask", mask)
        self._bind_buffer(binding.bind_output, "logits", logits)
        self._session.run_with_iobinding(binding)
        for row, start in enumerate(starts.tolist()):
            self._tokens[first + row, start : start + width] = tokens[row]
        self._lengths[rows] = ends
        return logits[:, -1]

    def _bind(self, first: int, count: int) -> Any:
        """Bind the caches of some slots, as inputs and as outputs; done once for each group of slots."""
        binding = self._bindings[first, count] = self._session.io_binding()
        for name, cache in self._caches.items():
            rows = cache[first : first + count]
            self._bind_buffer(binding.bind_input, name, rows)
            self._bind_buffer(binding.bind_output, self.graph.caches[name], rows)
        return binding

    @staticmethod
    def _bind_buffer(bind: Any, name: str, array: Any) -> None:
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def tokens(self, slot: int) -> Tokens:
        """Return the tokens that a slot holds; a view."""
        return self._tokens[slot, : self._lengths[slot]]

    def shared(self, slot: int, prompt: Tokens) -> int:
        """Return how many tokens a slot has in common with the start of a prompt."""
        size = min(len(prompt), int(self._lengths[slot]))
        differs = self._tokens[slot, :size] != prompt[:size]
        return int(differs.argmax()) if differs.any() else size

    def cut(self, slot: int, length: int) -> None:
        """Forget the tokens of a slot after the first `length`."""
        self._lengths[slot] = length

    def swap(self, one: int, other: int) -> None:
        """Exchange the contents of two slots."""
        if one == other:
            return
        size = int(max(self._lengths[one], self._lengths[other]))
        for cache in self._caches.values():
            kept = cache[one, :, :size].copy()
            cache[one, :, :size] = cache[other, :, :size]
            cache[other, :, :size] = kept
        pair, reversed_pair = [one, other], [other, one]
        self._tokens[pair] = self._tokens[reversed_pair]
        self._lengths[pair] = self._lengths[reversed_pair]
