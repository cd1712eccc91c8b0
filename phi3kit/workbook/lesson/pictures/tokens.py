"""An answer token by token: how likely each token was, and the likeliest other tokens.

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
        token: its text; a token that is only a part of a character shows as the replacement character.
        probability: from 0 to 1.
        others: the likeliest other tokens with their probabilities, the likeliest first.
    """

    token: str
    probability: float
    others: tuple[tuple[str, float], ...]


def steps(model: Any, prompt: Messages | str, max_tokens: int, others: int = 8) -> list[Step]:
    """Answer greedily and return every step.

    Args:
        model: a transformers pipeline for text generation, or an `Engine` with an ONNX model.
        prompt: chat messages, or a text in which control tokens count as such.
        max_tokens: the longest answer, in tokens.
        others: how many of the other candidates each step lists.

    Returns:
        One step per token, the end token included.
    """
    tokenizer, decoded = (_with_og if isinstance(model, Engine) else _with_transformers)(model, prompt, max_tokens)
    text, result = _token_text(tokenizer), []
    for token, logits in decoded:
        odds = np.exp(logits.astype(np.float64) - logits.max())
        odds /= odds.sum()
        first = np.argsort(-odds)[: others + 1]
        rest = [(text(int(i)), float(odds[i])) for i in first if i != token][:others]
        result.append(Step(text(token), float(odds[token]), tuple(rest)))
    return result


def next_token(model: Any, prompt: Messages | str, count: int = 256) -> tuple[list[tuple[str, float]], float]:
    """List the candidates for the next token.

    Args:
        model: a transformers pipeline for text generation, or an `Engine` with an ONNX model.
        prompt: chat messages, or a text in which control tokens count as such.
        count: how many candidates.

    Returns:
        Their texts with their probabilities, the likeliest first; and the probability of all others together.
    """
    (step,) = steps(model, prompt, 1, others=count)
    candidates = sorted([(step.token, step.probability), *step.others], key=lambda one: -one[1])[:count]
    return candidates, max(0.0, 1 - sum(probability for _, probability in candidates))


def _with_transformers(pipeline: Any, prompt: Messages | str, max_tokens: int) -> tuple[Any, Iterator[Any]]:
    tokenizer = pipeline.tokenizer
    if isinstance(prompt, str):
        ids = tokenizer(prompt, return_tensors="pt")
    else:
        options = {"return_tensors": "pt", "return_dict": True, "add_generation_prompt": True}
        ids = tokenizer.apply_chat_template(prompt, **options)
    output = pipeline.model.generate(
        **ids.to(pipeline.model.device),
        max_new_tokens=max_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = output.sequences[0, ids["input_ids"].shape[1] :].tolist()
    logits = (batch[0].float().cpu().numpy() for batch in output.logits)
    return tokenizer.backend_tokenizer, zip(tokens, logits, strict=True)


def _with_og(engine: Engine, prompt: Messages | str, max_tokens: int) -> tuple[Any, Iterator[Any]]:
    from tokenizers import Tokenizer

    options = Options(max_tokens=max_tokens)
    if not isinstance(prompt, str):
        prompt = ChatTemplate(engine.model.folder).encode(prompt)
    ids = engine.check_prompt("prompt", prompt, options)

    def decode() -> Iterator[tuple[int, np.ndarray]]:
        generator = engine.prefill([ids], options)
        while not generator.is_done():
            logits = generator.get_logits()[0, -1].copy()
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0]), logits

    return Tokenizer.from_file(str(engine.model.folder / "tokenizer.json")), decode()


def _token_text(tokenizer: Any) -> Callable[[int], str]:
    """Return a function from a token to its text within a sentence: some tokenizers drop a text's first space."""
    before = tokenizer.encode("a", add_special_tokens=False).ids
    start = len(tokenizer.decode(before))
    return lambda token: tokenizer.decode([*before, token], skip_special_tokens=False)[start:]
