"""Pictures of `tiny`: what they show is what the model computes."""

import numpy as np
import pandas as pd
import pytest
import torch

from phi3kit import weights
from phi3kit.chat import completion
from phi3kit.workbook.pictures import Picture, in_one_queue, next_token, rounding, steps, time_line
from phi3kit.workbook.pictures.weights import four_bit_matrices

pytestmark = pytest.mark.tiny

MESSAGES = [{"role": "user", "content": "What is the capital of Spain?"}]
TOKENS = 12


@pytest.fixture(scope="module")
def pipeline(models):
    return models["pipeline"].get_raw_model()


@pytest.fixture(scope="module", params=["pipeline", "Phi3Chat"])
def answered(request, pipeline, engine):
    """A wrapper's name, what its model is, and the steps of its answer."""
    model = pipeline if request.param == "pipeline" else engine
    return request.param, model, steps(model, MESSAGES, TOKENS, others=300)


def independently(name, pipeline, tiny_onnx, ids):
    """The probabilities after each position, from one pass over a whole text."""
    if name == "pipeline":
        with torch.no_grad():
            logits = pipeline.model(torch.tensor([ids])).logits[0].double().numpy()
    else:
        import onnxruntime as ort

        session = ort.InferenceSession(tiny_onnx / "model.onnx")
        given = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        head = pipeline.model.config.hidden_size // pipeline.model.config.num_attention_heads
        past = {i.name: np.zeros((1, i.shape[1], 0, head), np.float32) for i in session.get_inputs()[2:]}
        logits = session.run(["logits"], given | past)[0][0].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def test_the_probabilities_are_those_of_one_pass_over_the_whole_text(answered, pipeline, tiny_onnx, template):
    name, _, found = answered
    tokenizer = pipeline.tokenizer
    prompt = template.encode(MESSAGES)
    answer = tokenizer("".join(step.token for step in found), add_special_tokens=False)["input_ids"]
    assert len(answer) == len(found)
    odds = independently(name, pipeline, tiny_onnx, prompt + answer)[len(prompt) - 1 : -1]
    for step, row, token in zip(found, odds, answer, strict=True):  # bfloat16 and int8 arithmetic round as they go
        assert step.probability == pytest.approx(row[token], abs=0.06)
        assert step.others[0][1] == pytest.approx(np.delete(row, token).max(), abs=0.06)


def test_greedy_takes_the_likeliest_and_nothing_adds_up_to_more_than_one(answered):
    _, _, found = answered
    before = tuple(MESSAGES[0]["content"])
    for step in found:
        likelihoods = [probability for _, probability in step.others]
        assert likelihoods == sorted(likelihoods, reverse=True)
        assert len(likelihoods) == 300
        assert 0.5 < step.probability + sum(likelihoods) <= 1 + 1e-9
        assert step.probability >= likelihoods[0] or step.token in before
        before += (step.token,)


def test_the_steps_are_the_wrappers_own_answer(answered, models):
    name, _, found = answered
    said = completion(models[name].predict({"messages": MESSAGES, "max_tokens": TOKENS}))
    text = "".join(step.token for step in found).removesuffix("<|end|>")
    assert text.strip() == said["choices"][0]["message"]["content"].strip()
    assert len(found) == said["usage"]["completion_tokens"]


def test_the_candidates_for_a_next_token_with_the_rest_are_all(answered, template):
    _, model, found = answered
    candidates, rest = next_token(model, MESSAGES, count=200)
    assert len(candidates) == 200
    assert candidates[0] == (found[0].token, pytest.approx(found[0].probability, abs=1e-4))
    assert sum(probability for _, probability in candidates) + rest == pytest.approx(1)
    assert 0 <= rest < candidates[0][1]
    as_text, _ = next_token(model, template.render(MESSAGES), count=200)
    assert as_text[0] == (candidates[0][0], pytest.approx(candidates[0][1], abs=1e-4))


def test_the_four_bit_weights_are_the_float_ones_rounded(tiny_onnx):
    """A wrong packing or a wrong zero is off by several steps; rounding by half of one."""
    from safetensors import safe_open

    found = four_bit_matrices(tiny_onnx)
    matrices = {name: (scales * (levels - zeros), scales) for name, levels, scales, zeros in found}
    compared = 0
    with safe_open(weights.checkpoint("tiny") / "model.safetensors", "pt") as tensors:
        for name in sorted(matrices.keys() & set(tensors.keys()))[::10]:
            rounded, scales = matrices[name]
            floats = tensors.get_tensor(name).float().numpy().reshape(rounded.shape)
            off = np.abs(floats - rounded) / scales
            assert off.mean() < 0.3
            assert np.quantile(off, 0.99) < 0.75
            compared += 1
    assert compared >= 3


def test_the_picture_of_the_rounding_finds_its_matrix_by_itself(tiny_onnx):
    picture = rounding(tiny_onnx, weights.checkpoint("tiny"))
    assert isinstance(picture, Picture)
    assert "331,776 weights" in picture.alt
    assert len(picture.png()) < 60_000


def test_the_time_line_adds_up(models):
    wrapper = models["Phi3Chat"].unwrap_python_model()
    asked = {"a": ("Sum this up: " + "The fox jumps. " * 20, 4), "b": ("Name three planets.", 24), "c": ("Hello!", 1)}
    measured = in_one_queue(wrapper, asked)
    parts = measured[["queue", "prefill", "decode"]]
    assert (parts >= 0).all(axis=None)
    ends = parts.sum(axis=1)
    assert (measured["queue"][1:].to_numpy() >= ends[:-1].to_numpy()).all()  # nobody is served before their turn
    assert measured["tokens read"]["a"] > 60 > measured["tokens read"]["b"]
    assert measured["tokens written"].tolist() == pytest.approx([4, 24, 1], abs=20)
    assert isinstance(time_line(pd.DataFrame(measured)), Picture)
