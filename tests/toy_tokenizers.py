"""Toy tokenizers in Phi-3's layouts, each as a model folder: no weights needed."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CORPUS = [
    "You are a stand-up comedian.",
    "Tell me a joke about atom",
    "Grüße, 你好! 1234 😀",
    "</s> <|end|> <0x0A> end system",
]


def byte_level() -> Tokenizer:
    """As in `tiny` and Phi-4: every text is its bytes; as in `tiny`, a byte that is missing becomes <|endoftext|>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - {"Ą"})  # how it writes \x04
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"])
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer


def sentencepiece() -> Tokenizer:
    """As in Phi-3: spaces are written as ▁, one stands before each text, unknown characters are bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(set("".join(CORPUS).replace(" ", "▁")) - {"😀"})
    merges = [("▁", "j"), ("o", "k"), ("▁j", "ok"), ("▁jok", "e"), ("<", "/"), ("</", "s"), ("</s", ">")]  # a trap
    pieces += [left + right for left, right in merges if left + right not in pieces]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def write(folder: Path, layout: Callable[[], Tokenizer], template: object = TEMPLATE) -> None:
    """Write a tokenizer and a chat template into a folder."""
    tokenizer = layout()
    tokenizer.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("<|endoftext|>", normalized=False)])
    tokenizer.add_special_tokens([AddedToken(role, rstrip=True, normalized=False) for role in ROLES])
    # Phi-3's own `</s>` is no special token by its flag, and ends a text all the same.
    tokenizer.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    bos = {"content": "<s>", "__type": "AddedToken"}
    config = {"bos_token": bos, "eos_token": "<|endoftext|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
