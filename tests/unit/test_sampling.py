"""From logits to a token: the distribution against one written out plainly, and what must not repeat."""

import numpy as np
import pytest

from phi3kit.generation import Options
from phi3kit.serving import sampling

LOGITS = np.random.default_rng(5).normal(scale=3, size=300).astype(np.float32)


def plainly(logits, temperature, top_k, top_p):
    """Probabilities by token, by sorting and adding up one after the other."""
    ranked = sorted(range(len(logits)), key=lambda i: -logits[i])[:top_k]
    weights = [np.exp(float(logits[i]) / temperature) for i in ranked]
    total, kept, sum_of = sum(weights), {}, 0.0
    for token, weight in zip(ranked, weights, strict=True):
        kept[token] = weight / total
        sum_of += weight / total
        if sum_of > top_p:
            break
    return {token: share / sum(kept.values()) for token, share in kept.items()}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(50, 1.0), (5, 1.0), (300, 0.9), (1000, 0.5), (50, 1e-6), (1, 1.0)])
def test_the_distribution_is_the_one_written_out(temperature, top_k, top_p):
    options = Options(temperature=temperature, top_k=top_k, top_p=top_p)
    tokens, shares = sampling.distribution(LOGITS, options)
    assert dict(zip(tokens.tolist(), shares, strict=True)) == pytest.approx(plainly(LOGITS, temperature, top_k, top_p))


def test_what_is_drawn_follows_the_distribution():
    from scipy.stats import chisquare

    options = Options(temperature=1.0, top_k=8)
    tokens, shares = sampling.distribution(LOGITS, options)
    generator = np.random.default_rng(11)
    drawn = [sampling.draw(LOGITS, options, generator) for _ in range(4000)]
    counts = [drawn.count(token) for token in tokens]
    assert sum(counts) == 4000 and chisquare(counts, shares * 4000).pvalue > 0.001


def test_the_same_seed_draws_the_same():
    options = Options(temperature=2.0)
    runs = [[sampling.draw(LOGITS, options, g) for _ in range(20)] for g in map(np.random.default_rng, (3, 3, 4))]
    assert runs[0] == runs[1] != runs[2]


def test_without_a_temperature_the_likeliest_is_taken():
    assert sampling.draw(LOGITS, Options(), np.random.default_rng()) == LOGITS.argmax()


def test_a_penalty_pulls_the_seen_tokens_towards_zero():
    logits = np.array([2.0, -2.0, 2.0], np.float32)
    got = sampling.scores(logits, np.array([0, 1, 1]), penalty=2.0, ngram=0)
    assert got.tolist() == [1.0, -4.0, 2.0]


@pytest.mark.parametrize(
    ("tokens", "forbidden"),
    [
        ([1, 2, 3, 1, 2], [3]),
        ([1, 2, 3, 1, 2, 4, 1, 2], [3, 4]),
        ([1, 2, 3, 2, 1], []),
        ([1, 1, 1], [1]),
        ([1, 2], []),
        ([], []),
    ],
)
def test_a_token_that_repeats_a_run_is_impossible(tokens, forbidden):
    got = sampling.scores(np.zeros(6, np.float32), np.array(tokens, np.int64), penalty=1.0, ngram=3)
    assert np.flatnonzero(np.isinf(got)).tolist() == forbidden


def test_logits_stay_as_they_are():
    logits = LOGITS.copy()
    sampling.scores(logits, np.arange(5), penalty=1.5, ngram=2)
    assert (logits == LOGITS).all()


def test_log_probabilities_add_up_to_one():
    assert np.exp(sampling.log_probabilities(LOGITS)).sum() == pytest.approx(1)
