"""The model `tiny` on prompts it never saw: the targets of its card, in bfloat16 and in int4."""

import json

import pytest

from phi3kit import weights
from phi3kit.weights.tiny import score


@pytest.fixture(scope="module")
def folders():
    return {"bfloat16": weights.checkpoint("tiny"), "int4": weights.onnx("tiny")}


@pytest.fixture(scope="module")
def scored(folders):
    return {form: score.scores(folder) for form, folder in folders.items()}


FORMS = pytest.mark.parametrize("form", ["bfloat16", "int4"])


def test_capitals(scored):
    exact, small = scored["bfloat16"], scored["int4"]
    assert exact["capitals"] >= 22, exact["wrong"]
    assert small["capitals"] >= exact["capitals"] - 2, small["wrong"]


@FORMS
def test_spain(scored, form):
    assert "Madrid" in scored[form]["spain"]


@FORMS
def test_short_answers_end_by_themselves(scored, form):
    said = scored[form]["said"]
    assert len(said) == 40
    assert scored[form]["ended"] >= 34, [answer for answer in said if not answer[-1]]


@FORMS
def test_no_short_answer_loops(scored, form):
    assert not scored[form]["looped"]


@pytest.mark.online  # fetches the package that `tiny` is made from
def test_the_student_agrees_with_its_teacher(folders):
    assert score.teacher_agreement(folders["bfloat16"]) >= 0.87


def test_both_forms_bring_the_same_default_options(folders):
    own = json.loads((folders["bfloat16"] / "generation_config.json").read_text())
    carried = json.loads((folders["int4"] / "genai_config.json").read_text())
    assert carried["search"]["no_repeat_ngram_size"] == own["no_repeat_ngram_size"] == 5
    assert carried["search"]["repetition_penalty"] == own["repetition_penalty"]
    assert carried["search"]["do_sample"] is own["do_sample"] is False
    assert carried["model"]["eos_token_id"] == own["eos_token_id"] == [2, 0]


@pytest.fixture(scope="module")
def tokenizers(folders):
    import onnxruntime_genai as og
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folders["bfloat16"]), og.Tokenizer(og.Model(str(folders["int4"])))


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of Spain?",
        "  two  spaces ",
        "\n\nnew\n lines\r\nand\ttabs\t\t.",
        "2024 is 12345.67, the 3rd of 10²",
        "naïve Käse, Größe, Übung; e\u0301 is not é",
        "🙂👩‍👩‍👧 🇪🇸 🏳️‍🌈",
        "中文字 日本語 한국어 عربي",
        "it's, don't, I'LL, we've",
        "a▁b ▁",
        "\u00a0nbsp\u2003em \u200bzero width",
        "x = 1; y[0] -= {'a': 2}  # ok?!",
        "<|user|>\n  hi <|end|>\r\n<|assistant|>\n",
        "<|system|>You are a stand-up comedian.<|end|><|user|>Tell me a joke about atom<|end|><|assistant|>",
        "<s>x</s> <|endoftext|> <repo_name>",
        "   ",
    ],
)
def test_both_tokenizers_give_the_same_ids(tokenizers, text):
    theirs, og_s = tokenizers
    ids = theirs(text)["input_ids"]
    assert [int(token) for token in og_s.encode(text)] == ids
    if "<" not in text:
        assert theirs.decode(ids) == og_s.decode(ids) == text


def test_the_chat_template_is_phi3s(tokenizers):
    theirs, og_s = tokenizers
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    text = "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n"
    assert theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == text
    assert og_s.apply_chat_template(json.dumps(messages), add_generation_prompt=True) == text
