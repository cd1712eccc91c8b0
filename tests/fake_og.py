"""An open model without weights: a token is a character, and the model repeats its prompt unless told otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

END, PAD = 0, 1


class FakeTokenizer:
    """Token N is the character with code N; onnxruntime-genai's gives -1 for what it cannot spell, too."""

    eos_token_ids = (END,)
    pad_token_id = PAD

    def encode(self, text: str) -> list[int]:
        return [ord(character) if ord(character) < 256 else -1 for character in text]

    def create_stream(self) -> "FakeTokenizer":
        return self

    def decode(self, token: int) -> str:
        return chr(token)


class FakeGenerator:
    """What the engine calls of `onnxruntime_genai.Generator`."""

    def __init__(self, answer: Callable[[list[int]], list[int]], reads: list[Any]) -> None:
        self._answer, self._reads, self._steps = answer, reads, 0
        self._rows: list[list[int]] = [[]]

    def append_tokens(self, tokens: list[Any]) -> None:
        batch = isinstance(tokens[0], list)
        self._reads.append([len(row) for row in tokens] if batch else len(tokens))
        self._rows = tokens if batch else [self._rows[0] + tokens]

    def generate_next_token(self) -> None:
        self._steps += 1

    def get_next_tokens(self) -> list[int]:
        answers = ([*self._answer([i for i in row if i != PAD]), END] for row in self._rows)
        return [answer[min(self._steps, len(answer)) - 1] for answer in answers]


class FakeModel:
    """What the engine asks of `phi3kit.generation.model.Model`.

    Attributes:
        searches: the search options of each generator.
        reads: the number of tokens of each `append_tokens`, of a batch the length of each row.
    """

    folder, vocab_size, threads = Path(), 256, 1

    def __init__(self, context_length: int = 4096, answer: Callable[[list[int]], list[int]] = list) -> None:
        self.context_length, self._answer = context_length, answer
        self.searches: list[dict[str, Any]] = []
        self.reads: list[Any] = []

    def generator(self, **search: Any) -> FakeGenerator:
        self.searches.append(search)
        return FakeGenerator(self._answer, self.reads)
