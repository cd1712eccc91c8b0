"""A checkpoint of Phi-3-mini's architecture filled with random numbers, of its true size or made small.

`python tests/phi3_shape.py FOLDER` writes the true shape: 3.8 billion weights in bfloat16, 7.6 GB. Its tokenizer is
that of `tiny`, cut to Phi-3's vocabulary, so that prompts are read as usual and the answers are noise.
"""

import json
import sys
from pathlib import Path
from typing import Any

# config.json of Phi-3-mini-4k-instruct; its end tokens have other numbers in the tokenizer of `tiny`.
TRUE = {
    "vocab_size": 32_064, "hidden_size": 3_072, "intermediate_size": 8_192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4_096,
    "original_max_position_embeddings": 4_096, "sliding_window": 2_047, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SMALL = TRUE | {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip


def write(folder: Path, shape: dict[str, Any], shard: str = "5GB") -> None:
    """Write the checkpoint of `shape` into `folder`, in shards of at most `shard`; the same numbers every time."""
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

    from phi3kit import weights

    torch.manual_seed(3)
    with torch.device("meta"):
        model = Phi3ForCausalLM(Phi3Config(**shape)).to(torch.bfloat16)
    model.to_empty(device="cpu")
    for name, tensor in model.state_dict().items():
        tensor.fill_(1) if "norm" in name else tensor.normal_(std=0.02)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, 0], pad_token_id=0)
    model.save_pretrained(folder, max_shard_size=shard)

    tiny = weights.checkpoint("tiny")
    tokenizer = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
    bpe, size = tokenizer["model"], shape["vocab_size"]
    bpe["vocab"] = {token: number for token, number in bpe["vocab"].items() if number < size}
    pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in bpe["merges"])
    bpe["merges"] = [pair for pair in pairs if "".join(pair) in bpe["vocab"]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((tiny / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["model_max_length"] = shape["max_position_embeddings"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), TRUE)
