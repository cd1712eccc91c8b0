"""From logits to the next token, in the order in which onnxruntime-genai does it.

Repetition penalty and forbidden n-grams first, then temperature, the likeliest `top_k`, and of these the likeliest
that together reach `top_p`.
"""

from typing import Any

import numpy as np

from phi3kit.generation import Options

Array = np.ndarray[Any, Any]


def scores(logits: Array, tokens: Array, penalty: float, ngram: int) -> Array:
    """Return logits with the tokens that must not repeat made less likely.

    Args:
        logits: of one row, shape (vocabulary,).
        tokens: the row so far, its prompt included.
        penalty: divides the logits of tokens that the row holds where they are positive, multiplies negative ones.
        ngram: a token that would complete a second run of this many tokens becomes impossible; 0 forbids none.
    """
    adjusted = logits.astype(np.float32)
    if penalty != 1:
        seen = adjusted[tokens]
        adjusted[tokens] = np.where(seen < 0, seen * penalty, seen / penalty)
    if ngram and len(tokens) >= ngram:
        # Where the last ngram - 1 tokens stood before, the token that followed is forbidden.
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], ngram - 1)
        follow = np.flatnonzero((windows == tokens[len(tokens) - ngram + 1 :]).all(axis=1)) + ngram - 1
        adjusted[tokens[follow]] = -np.inf
    return adjusted


def distribution(scores: Array, options: Options) -> tuple[Array, Array]:
    """Return the tokens that may be drawn, the likeliest first, and their probabilities."""
    count = min(options.top_k, len(scores))
    top = np.argpartition(-scores, count - 1)[:count]
    top = top[np.argsort(-scores[top], kind="stable")]
    weights = np.exp((scores[top] - scores[top[0]]).astype(np.float64) / options.temperature)
    weights /= weights.sum()
    kept = int(np.searchsorted(np.cumsum(weights), options.top_p)) + 1
    return top[:kept], weights[:kept] / weights[:kept].sum()


def draw(scores: Array, options: Options, generator: np.random.Generator) -> int:
    """Return the next token: the likeliest one at temperature 0, else one drawn from `distribution`."""
    if options.temperature == 0:
        return int(scores.argmax())
    tokens, probabilities = distribution(scores, options)
    return int(generator.choice(tokens, p=probabilities))


def log_probabilities(logits: Array) -> Array:
    """Return the logarithm of each token's probability, before any option."""
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
