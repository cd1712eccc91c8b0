"""One open model and the requests it answers, for many threads at once.

Every request is checked before the model sees it, owns its own generator, and reserves memory for its prompt and
its `max_tokens` only, not for the model's whole context window.
"""

import json
import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from phi3kit import machine
from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.generation.answer import Completion, Row
from phi3kit.generation.options import Options
from phi3kit.weights import room, store
from phi3kit.weights.folders import weights_size

# og holds Python's lock while it reads a slice of a prompt: 32 tokens froze the other threads for 0.11 s on two
# cores, the whole prompt of 1,200 for 4.3 s, in the same total time.
PREFILL_SLICE = 32
# Throughput on two cores grew up to here (170 tokens/s alone, 404 for eight).
BATCH_SIZE = 8
# og reads the prompts of a batch in one go, without a slice's pause for other threads, so they must be short together.
BATCH_TOKENS = 512

# og's tokenizer ends a text at a NUL, and takes no half of a UTF-16 pair; a byte that it cannot spell becomes -1.
_UNREADABLE = re.compile("[\0\ud800-\udfff]")

# Each step: every row's new text and, in the last step, every row's completion.
Steps = Generator[tuple[list[str], list[Completion]], None, None]


class Stream(Iterator[str]):
    """An answer as it comes: iterate for pieces of text, then read `completion`.

    `completion` is None until the last piece was taken. `close`, or leaving a `with` block, ends the generation and
    frees its memory at once.
    """

    def __init__(self, steps: Generator[str, None, Completion]) -> None:
        self._steps = steps
        self.completion: Completion | None = None

    def __next__(self) -> str:
        try:
            return next(self._steps)
        except StopIteration as end:
            self.completion = end.value or self.completion
            raise StopIteration from None

    def close(self) -> None:
        """End the generation; iterating further gives nothing."""
        self._steps.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Engine:
    """An ONNX model folder, opened once.

    Args:
        folder: holds `genai_config.json`, the model and its tokenizer.
        threads: compute threads; by default `PHI3KIT_THREADS`, else the physical cores that this process may use.

    Raises:
        WeightsError: when the folder is no onnxruntime-genai model, is not as it was sealed, or is larger than what
            memory is left.
    """

    def __init__(self, folder: Path | str, threads: int | None = None) -> None:
        self.folder = Path(folder)
        store.verify(self.folder)
        # Random weights of Phi-3-mini's shape, 2.6 GB on disk, were measured at 3.2 GB in memory.
        room.need_memory(f"Opening {folder}", int(1.25 * weights_size(self.folder)))
        import onnxruntime_genai as og

        try:
            described = json.loads((self.folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
        except FileNotFoundError:
            raise WeightsError(f"{folder} has no genai_config.json: give an onnxruntime-genai model folder.") from None
        self.context_length: int = described["context_length"]
        self._vocabulary = range(described["vocab_size"])
        wanted = os.environ.get("PHI3KIT_THREADS") or "0"
        if not wanted.isdecimal():
            raise InvalidRequest("PHI3KIT_THREADS", wanted, "a whole number")
        self.threads = threads or int(wanted) or machine.physical_cores()
        session = {"intra_op_num_threads": self.threads}
        try:
            config = og.Config(str(self.folder))
            config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
            self._model = og.Model(config)
        except RuntimeError as error:
            raise WeightsError(f"onnxruntime-genai cannot open {folder}: {error}. Fetch or export it again.") from error
        self._tokenizer = og.Tokenizer(self._model)
        self._end_ids = frozenset(int(i) for i in self._tokenizer.eos_token_ids)

    def generate(self, prompts: Sequence[str | Sequence[int]], options: Options | None = None) -> list[Completion]:
        """Answer every prompt, in order.

        Short prompts are computed together, up to `BATCH_SIZE` at a time; one by one where an answer would depend on
        its neighbours: when they are sampled with a seed, or one ends with the token that og pads with.

        Args:
            prompts: texts, in which control tokens count as such, or token ids as `chat.ChatTemplate` makes them.
            options: one set for all; greedy with 256 tokens when None.

        Raises:
            InvalidRequest: when any prompt or option is refused; then nothing was computed.
        """
        options = options or Options()
        if isinstance(prompts, str | bytes) or not isinstance(prompts, Sequence):
            raise InvalidRequest("prompts", prompts, "a list of prompts")
        ids = [self.checked(f"prompts[{i}]", prompt, options) for i, prompt in enumerate(prompts)]
        seeded = options.temperature > 0 and options.seed is not None
        padded = any(one[-1] == self._tokenizer.pad_token_id for one in ids)
        fit = BATCH_TOKENS // max(map(len, ids), default=1)
        size = 1 if seeded or padded else max(1, min(BATCH_SIZE, fit))
        answers: list[Completion] = []
        for start in range(0, len(ids), size):
            *_, (_, complete) = self._decode(ids[start : start + size], options)
            answers += complete
        return answers

    def stream(self, prompt: str | Sequence[int], options: Options | None = None) -> Stream:
        """Answer one prompt piece by piece.

        Raises:
            InvalidRequest: here, before the first piece is asked for.
        """
        options = options or Options()
        return Stream(self._stream(self.checked("prompt", prompt, options), options))

    def checked(self, field: str, prompt: str | Sequence[int], options: Options) -> list[int]:
        """Return the token ids of a prompt that may be answered with these options.

        Raises:
            InvalidRequest: naming `field`, or the option that is wrong for this prompt.
        """
        if not isinstance(options, Options):
            raise InvalidRequest("options", options, "Options(...)")
        if isinstance(prompt, str):
            allowed = "a text in characters that the model's tokenizer knows"
            known = not _UNREADABLE.search(prompt)
            ids = [int(i) for i in self._tokenizer.encode(prompt)] if prompt.strip() and known else []
        else:
            allowed = f"a text, or a list of token ids below {len(self._vocabulary)}"
            known = isinstance(prompt, list | tuple) and all(type(i) is int for i in prompt)
            ids = list(prompt) if known else []
        if not known or not all(i in self._vocabulary for i in ids):
            raise InvalidRequest(field, prompt, allowed)
        if not ids:
            raise InvalidRequest(field, prompt, "a prompt that is not empty")
        room = self.context_length - len(ids)
        if room < 1:
            raise InvalidRequest(
                field, prompt, f"a prompt of less than {self.context_length} tokens (this one has {len(ids)})"
            )
        if options.max_tokens > room:
            raise InvalidRequest(
                "max_tokens",
                options.max_tokens,
                f"at most {room}: the prompt takes {len(ids)} of the model's {self.context_length} tokens",
            )
        return ids

    def _stream(self, ids: list[int], options: Options) -> Generator[str, None, Completion]:
        with closing(self._decode([ids], options)) as steps:  # closing frees the model's memory, whoever holds us
            for pieces, answers in steps:
                if pieces[0]:
                    yield pieces[0]
                if answers:
                    return answers[0]
        raise AssertionError("a decoding ends with its answers")

    def _decode(self, batch: list[list[int]], options: Options) -> Steps:
        start = time.perf_counter()
        rows = [Row(self._tokenizer, self._end_ids, len(ids), options) for ids in batch]
        generator = self.prefill(batch, options)
        while True:
            generator.generate_next_token()
            pieces = [row.push(int(t)) for row, t in zip(rows, generator.get_next_tokens(), strict=True)]
            if all(row.finish_reason for row in rows):
                yield pieces, [row.completion(start) for row in rows]
                return
            yield pieces, []

    def prefill(self, batch: list[list[int]], options: Options) -> Any:
        """Read prompts, as `checked` returned them, and return the `og.Generator` that goes on from there."""
        import onnxruntime_genai as og

        search: dict[str, Any] = {
            "batch_size": len(batch),
            "max_length": max(map(len, batch)) + options.max_tokens,
            "do_sample": options.temperature > 0,
        }
        if options.temperature > 0:
            search |= {"temperature": options.temperature, "top_p": options.top_p}
            search["top_k"] = min(options.top_k, len(self._vocabulary))  # og refuses more
            if options.seed is not None:
                search["random_seed"] = options.seed
        if options.repetition_penalty is not None:
            search["repetition_penalty"] = options.repetition_penalty
        params = og.GeneratorParams(self._model)
        params.set_search_options(**search)
        generator = og.Generator(self._model, params)
        if len(batch) > 1:  # og takes the prompts of a batch only whole, padded on the right
            longest = max(map(len, batch))
            padding = self._tokenizer.pad_token_id
            generator.append_tokens([ids + [padding] * (longest - len(ids)) for ids in batch])
            return generator
        for first in range(0, len(batch[0]), PREFILL_SLICE):
            generator.append_tokens(batch[0][first : first + PREFILL_SLICE])
        return generator
