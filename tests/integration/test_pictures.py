"""Pictures of `tiny`: what they show is what the model computes."""

import numpy as np
import pandas as pd
import pytest
import torch

from phi3kit import weights
from phi3kit.chat import completion
from phi3kit.workbook.lesson.pictures import Picture, next_token, queue_times, rounding, steps, time_line
from phi3kit.workbook.lesson.pictures.weights import four_bit_matrices

pytestmark = pytest.mark.tiny

MESSAGES = [{"role": "user", "content": "What is the capital of Spain?"}]
TOKENS = 12


@pytest.fixture(scope="module")
def pipeline(models):
    return models["pipeline"].get_raw_model()


@pytest.fixture(scope="module", params=["pipeline", "Phi3Chat"])
def name(request):
    """A wrapper's name."""
    return request.param


@pytest.fixture(scope="module")
def model(name, pipeline, engine):
    """What the wrapper answers with."""
    return pipeline if name == "pipeline" else engine


@pytest.fixture(scope="module")
def answer(model):
    """The steps of the model's answer."""
    return steps(model, MESSAGES, TOKENS, others=300)


def probabilities(name, pipeline, tiny_onnx, ids):
    """The probabilities after each position, from one pass over a whole text."""
    if name == "pipeline":
        with torch.no_grad():
            logits = pipeline.model(torch.tensor([ids])).logits[0].double().numpy()
    else:
        import onnxruntime as ort

        session = ort.InferenceSession(tiny_onnx / "model.onnx")
        inputs = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        head = pipeline.model.config.hidden_size // pipeline.model.config.num_attention_heads
        past = {i.name: np.zeros((1, i.shape[1], 0, head), np.float32) for i in session.get_inputs()[2:]}
        logits = session.run(["logits"], inputs | past)[0][0].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def test_the_probabilities_are_those_of_one_pass_over_the_text(name, answer, pipeline, tiny_onnx, template):
    prompt = template.encode(MESSAGES)
    ids = pipeline.tokenizer("".join(step.token for step in answer), add_special_tokens=False)["input_ids"]
    odds = probabilities(name, pipeline, tiny_onnx, prompt + ids)[len(prompt) - 1 : -1]
    expected = [(row[token], np.delete(row, token).max()) for row, token in zip(odds, ids, strict=True)]
    measured = [(step.probability, step.others[0][1]) for step in answer]
    # bfloat16 and int8 arithmetic round as they go
    np.testing.assert_allclose(measured, expected, rtol=0, atol=0.06)


def test_greedy_takes_the_likeliest_unless_it_repeats(answer):
    text = MESSAGES[0]["content"]
    for step in answer:
        assert step.probability >= step.others[0][1] or step.token in text
        text += step.token


def test_the_other_tokens_are_sorted(answer):
    likelihoods = [[probability for _, probability in step.others] for step in answer]
    assert likelihoods == [sorted(row, reverse=True) for row in likelihoods]


def test_there_are_as_many_other_tokens_as_asked_for(answer):
    assert {len(step.others) for step in answer} == {300}


def test_no_probabilities_add_up_to_more_than_one(answer):
    sums = [step.probability + sum(probability for _, probability in step.others) for step in answer]
    assert all(0.5 < total <= 1 + 1e-9 for total in sums)


def test_the_steps_are_the_wrappers_own_answer(name, answer, models):
    response = completion(models[name].predict({"messages": MESSAGES, "max_tokens": TOKENS}))
    text = "".join(step.token for step in answer).removesuffix("<|end|>")
    assert text.strip() == response["choices"][0]["message"]["content"].strip()
    assert len(answer) == response["usage"]["completion_tokens"]


@pytest.fixture(scope="module")
def candidates(model):
    return next_token(model, MESSAGES, count=200)


def test_the_first_candidate_is_the_first_token_of_the_answer(candidates, answer):
    assert candidates[0][0] == (answer[0].token, pytest.approx(answer[0].probability, abs=1e-4))


def test_the_candidates_and_the_rest_add_up_to_one(candidates):
    likeliest, rest = candidates
    assert len(likeliest) == 200
    assert sum(probability for _, probability in likeliest) + rest == pytest.approx(1)
    assert 0 <= rest < likeliest[0][1]


def test_messages_and_their_text_have_the_same_candidates(candidates, model, template):
    as_text, _ = next_token(model, template.render(MESSAGES), count=200)
    token, probability = candidates[0][0]
    assert as_text[0] == (token, pytest.approx(probability, abs=1e-4))


def test_the_four_bit_weights_are_the_float_ones_rounded(tiny_onnx):
    """A wrong packing or a wrong zero is off by several steps; rounding by half of one."""
    from safetensors import safe_open

    with safe_open(weights.checkpoint("tiny") / "model.safetensors", "pt") as tensors:
        names = set(tensors.keys())
        matrices = [matrix for matrix in four_bit_matrices(tiny_onnx) if matrix[0] in names][::10]
        assert len(matrices) >= 3
        for name, levels, scales, zeros in matrices:
            floats = tensors.get_tensor(name).float().numpy().reshape(levels.shape)
            steps_off = np.abs(floats / scales + zeros - levels)
            assert steps_off.mean() < 0.3, name
            assert np.quantile(steps_off, 0.99) < 0.75, name


def test_the_rounding_is_drawn_for_a_matrix_of_both(tiny_onnx):
    picture = rounding(tiny_onnx, weights.checkpoint("tiny"))
    assert "331,776 weights" in picture.alt
    assert len(picture.png()) < 60_000


@pytest.fixture(scope="module")
def times(models):
    wrapper = models["Phi3Chat"].unwrap_python_model()
    requests = {
        "a": ("Sum this up: " + "The fox jumps. " * 20, 4),
        "b": ("Name three planets.", 24),
        "c": ("Hello!", 1),
    }
    return queue_times(wrapper, requests)


PARTS = ["queue", "prefill", "decode"]


def test_no_part_of_a_request_takes_negative_time(times):
    assert (times[PARTS] >= 0).all(axis=None)


def test_a_request_waits_for_those_before_it(times):
    ends = times[PARTS].sum(axis=1)
    assert (times["queue"][1:].to_numpy() >= ends[:-1].to_numpy()).all()


def test_a_long_prompt_has_more_tokens(times):
    assert times["tokens read"]["a"] > 60 > times["tokens read"]["b"]


def test_no_answer_is_longer_than_its_limit(times):
    assert (times["tokens written"] <= [4, 24, 1]).all()
    assert (times["tokens written"] >= 1).all()


def test_measured_times_can_be_drawn(times):
    assert isinstance(time_line(pd.DataFrame(times)), Picture)
