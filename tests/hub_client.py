"""Small repositories under the catalog's names, and a client of `hub_server.Hub` with caches of its own."""

import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import forking
from hub_server import Hub

from phi3kit.weights import CATALOG

PHI_3 = CATALOG["phi-3-mini-4k-instruct"]
ONNX = Path(PHI_3.onnx.subfolder)
SHARD = "model-00002-of-00002.safetensors"
WANTED = {
    "config.json", "generation_config.json", "model-00001-of-00002.safetensors", SHARD, "model.safetensors.index.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja",
}  # fmt: skip
UNWANTED = {
    "README.md", "LICENSE", "modeling_phi3.py", "pytorch_model.bin", "consolidated.safetensors", "original/params.json",
    "onnx/model.onnx", "onnx/config.json",
}  # fmt: skip
ONNX_WANTED = {
    "genai_config.json", "config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "model.onnx",
    "model.onnx.data",
}  # fmt: skip
ONNX_UNWANTED = {"README.md", "config.json", "cuda/cuda-fp16/model.onnx.data", f"{ONNX}-other/model.onnx.data"}

OBTAIN = """
import sys
from phi3kit import weights
from phi3kit.errors import WeightsError
try:
    print(getattr(weights, sys.argv[1])(*sys.argv[2:]))
except WeightsError as error:
    sys.exit(str(error))
"""


class Client:
    """Obtains models from `hub`, into caches below `home`.

    huggingface_hub reads the environment when it is imported, so each call starts a process.

    Attributes:
        env: the environment of those processes; tests may change it.
        cache: the hub's cache.
        stderr: what the last successful process wrote on stderr.
    """

    def __init__(self, hub: Hub, home: Path) -> None:
        foreign = ("HF_", "HUGGING", "PHI3KIT_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
        self.env = own | {
            "NO_PROXY": "127.0.0.1,localhost",
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # the command `hf` asks PyPI for a newer one
            "HF_HOME": str(home / "hf"),
            "PHI3KIT_CACHE": str(home / "kit"),
        }
        self.cache = home / "hf" / "hub"
        self.stderr = ""

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=600, check=False)

    def execute(self, code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run Python code."""
        return forking.run(code, *arguments, env=self.env | env)

    def path(self, form: str, name: str = PHI_3.name, *target: str, **env: str) -> Path:
        """The folder of one form of a model, for a target if one is given."""
        result = self.execute(OBTAIN, form, name, *target, **env)
        assert result.returncode == 0, result.stderr
        self.stderr = result.stderr
        return Path(result.stdout.strip())

    def error(self, form: str, name: str = PHI_3.name, **env: str) -> str:
        """The message with which one form of a model is refused."""
        result = self.execute(OBTAIN, form, name, **env)
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited for 120 s"
        time.sleep(0.02)


def shard(seed: int, size: int = 20_000) -> bytes:
    tensor = random.Random(seed).randbytes(size)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + tensor


def repository(folder: Path, names: set[str]) -> None:
    shards = [name for name in names if name.startswith("model-")]
    for seed, name in enumerate(sorted(names)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = shard(seed) if name.endswith(".safetensors") else random.Random(seed).randbytes(5_000)
        if name.endswith("index.json"):
            content = json.dumps({"weight_map": dict(enumerate(shards))}).encode()
        elif name.endswith("genai_config.json"):
            content = json.dumps(genai_config({"cuda": "cuda", "directml": "dml"}.get(Path(name).parts[0]))).encode()
        elif name.endswith(".json"):
            content = json.dumps({"content": content.hex()}).encode()
        (folder / name).write_bytes(content)


def genai_config(provider: str | None = None) -> dict[str, object]:
    """What the kit reads of such a file."""
    session = {"provider_options": [{provider: {}}] if provider else []}
    decoder = {"filename": "model.onnx", "session_options": session}
    return {"model": {"context_length": 9, "vocab_size": 9, "eos_token_id": 0, "decoder": decoder}}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])
