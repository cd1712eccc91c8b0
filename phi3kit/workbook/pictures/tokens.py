"""An answer token by token: how likely each was, and what else there was to say.

Probabilities are the model's own (the softmax of its logits), before any option. Greedy decoding takes the likeliest
token, except where a repetition penalty in the model's defaults holds it back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from phi3kit.chat import ChatTemplate
from phi3kit.generation import Engine, Options

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Step:
    """One token of an answer.

    Attributes:
        token: its text; of a character that takes several tokens, each shows as the replacement character.
        probability: from 0 to 1.
        others: the likeliest other tokens with theirs, the likeliest first.
    """

    token: str
    probability: float
    others: tuple[tuple[str, float], ...]


def steps(model: Any, prompt: Messages | str, max_tokens: int, others: int = 8) -> list[Step]:
    """Answer greedily and keep every step.

    Args:
        model: a transformers pipeline for text generation, or an `Engine` with an ONNX model.
        prompt: chat messages, or a text in which control tokens count as such.
        max_tokens: the longest answer, in tokens.
        others: how many of the other candidates to keep.

    Returns:
        one step for each token, the end token included.
    """
    tokenizer, decoded = (_with_og if isinstance(model, Engine) else _with_transformers)(model, prompt, max_tokens)
    text, found = _reader(tokenizer), []
    for token, logits in decoded:
        odds = np.exp(logits.astype(np.float64) - logits.max())
        odds /= odds.sum()
        first = np.argsort(-odds)[: others + 1]
        rest = [(text(int(i)), float(odds[i])) for i in first if i != token][:others]
        found.append(Step(text(token), float(odds[token]), tuple(rest)))
    return found


def next_token(model: Any, prompt: Messages | str, count: int = 256) -> tuple[list[tuple[str, float]], float]:
    """The candidates for the next token.

    Args:
        model: a transformers pipeline for text generation, or an `Engine` with an ONNX model.
        prompt: chat messages, or a text in which control tokens count as such.
        count: how many candidates.

    Returns:
        their texts with their probabilities, the likeliest first; and the probability of all others together.
    """
    (step,) = steps(model, prompt, 1, others=count)
    candidates = sorted([(step.token, step.probability), *step.others], key=lambda one: -one[1])[:count]
    return candidates, max(0.0, 1 - sum(probability for _, probability in candidates))


def _with_transformers(pipeline: Any, prompt: Messages | str, max_tokens: int) -> tuple[Any, Iterator[Any]]:
    read = pipeline.tokenizer
    options = {"return_tensors": "pt", "return_dict": True, "add_generation_prompt": True}
    ids = read(prompt, return_tensors="pt") if isinstance(prompt, str) else read.apply_chat_template(prompt, **options)
    made = pipeline.model.generate(
        **ids.to(pipeline.model.device),
        max_new_tokens=max_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = made.sequences[0, ids["input_ids"].shape[1] :].tolist()
    return read.backend_tokenizer, zip(tokens, (one[0].float().cpu().numpy() for one in made.logits), strict=True)


def _with_og(engine: Engine, prompt: Messages | str, max_tokens: int) -> tuple[Any, Iterator[Any]]:
    from tokenizers import Tokenizer

    options = Options(max_tokens=max_tokens)
    given = prompt if isinstance(prompt, str) else ChatTemplate(engine.folder).encode(prompt)
    ids = engine.checked("prompt", given, options)

    def decode() -> Iterator[tuple[int, np.ndarray]]:
        generator = engine.prefill([ids], options)
        while not generator.is_done():
            logits = generator.get_logits()[0, -1].copy()
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0]), logits

    return Tokenizer.from_file(str(engine.folder / "tokenizer.json")), decode()


def _reader(tokenizer: Any) -> Callable[[int], str]:
    """A token's text as it stands within a sentence: some tokenizers drop the space of a text's first token."""
    before = tokenizer.encode("a", add_special_tokens=False).ids
    start = len(tokenizer.decode(before))
    return lambda token: tokenizer.decode([*before, token], skip_special_tokens=False)[start:]
