"""A checkpoint of Phi-3's architecture with a few random weights, which is loaded and exported in seconds."""

from pathlib import Path

SPECIAL = ["<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def write(folder: Path) -> None:
    """Write it into `folder`, with the same numbers every time."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    bare = Tokenizer(models.BPE(vocabulary, []))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bare.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    config = Phi3Config(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, original_max_position_embeddings=128, pad_token_id=0,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(3)
    model = Phi3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=[1, 0], repetition_penalty=1.25, max_length=20)
    model.save_pretrained(folder)
