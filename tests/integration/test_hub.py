"""`weights` against a hub on this machine: what is fetched, what is not, and what every failure says.

huggingface_hub reads its environment when it is imported, so each question is asked in a process of its own.
"""

import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import SIGNATURE, Hub

from phi3kit.weights import CATALOG

PHI_3 = CATALOG["phi-3-mini-4k-instruct"]
ONNX = Path(PHI_3.onnx_folder)
WANTED = {
    "config.json", "generation_config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    "model.safetensors.index.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja",
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

ASK = """
import sys
from phi3kit import weights
from phi3kit.errors import WeightsError
try:
    print(getattr(weights, sys.argv[1])(sys.argv[2]))
except WeightsError as error:
    sys.exit(str(error))
"""


def shard(seed: int) -> bytes:
    tensor = random.Random(seed).randbytes(20_000)
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(tensor)], "data_offsets": [0, len(tensor)]}}).encode()
    return len(header).to_bytes(8, "little") + header + tensor


def repository(folder: Path, names: set[str]) -> None:
    shards = [name for name in names if name.startswith("model-")]
    for seed, name in enumerate(sorted(names)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = shard(seed) if name.endswith(".safetensors") else random.Random(seed).randbytes(5_000)
        if name.endswith("index.json"):
            content = json.dumps({"weight_map": dict(enumerate(shards))}).encode()
        elif name.endswith("genai_config.json"):
            content = b'{"model": {"decoder": {"filename": "model.onnx"}}}'
        (folder / name).write_bytes(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    repository(tmp_path / "served" / PHI_3.checkpoint, WANTED | UNWANTED)
    repository(tmp_path / "served" / PHI_3.onnx_repo, {f"{ONNX}/{name}" for name in ONNX_WANTED} | ONNX_UNWANTED)
    with Hub(tmp_path / "served") as hub:
        yield hub


class Client:
    """A machine with caches of its own, whose hub is `hub`."""

    def __init__(self, hub: Hub, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        self.env = kept | {
            "NO_PROXY": "127.0.0.1,localhost",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home / "hf"),
            "PHI3KIT_CACHE": str(home / "kit"),
        }
        self.cache = home / "hf" / "hub"

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=120, check=False)

    def path(self, form: str, name: str = PHI_3.name, **env: str) -> Path:
        done = self.run(sys.executable, "-c", ASK, form, name, **env)
        assert done.returncode == 0, done.stderr
        self.said = done.stderr
        return Path(done.stdout.strip())

    def error(self, form: str, name: str = PHI_3.name, **env: str) -> str:
        done = self.run(sys.executable, "-c", ASK, form, name, **env)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "home")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_is_fetched_whole_at_its_commit_and_nothing_else_is(hub, client):
    folder = client.path("checkpoint")
    assert files(folder) == hub.fetched(PHI_3.checkpoint) == WANTED
    assert folder.name == PHI_3.revision
    for name in WANTED:
        assert (folder / name).read_bytes() == (hub.root / PHI_3.checkpoint / name).read_bytes()
    assert all(PHI_3.checkpoint in path for _, path in hub.requests)
    assert client.said.count("\n") == 1, "one line, and no bars where there is no terminal"
    assert "7.6 GB" in client.said


def test_an_onnx_model_is_its_nested_folder_alone(hub, client):
    folder = client.path("onnx")
    assert folder.parts[-2:] == ONNX.parts
    assert files(folder) == ONNX_WANTED
    assert hub.fetched(PHI_3.onnx_repo) == {f"{ONNX}/{name}" for name in ONNX_WANTED}
    assert not hub.fetched(PHI_3.checkpoint)


@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
def test_a_second_call_asks_nobody_and_says_nothing(hub, client, form):
    folder = client.path(form)
    hub.requests.clear()
    assert client.path(form) == folder
    assert client.said == ""
    assert client.path(form, HF_HUB_OFFLINE="1") == folder
    assert hub.requests == []


def test_a_lost_file_is_the_only_one_fetched_again(hub, client):
    folder = client.path("checkpoint")
    lost = folder / "model-00002-of-00002.safetensors"
    lost.resolve().unlink()
    lost.unlink()
    hub.requests.clear()
    client.path("checkpoint")
    assert hub.fetched(PHI_3.checkpoint) == {lost.name}


def test_a_branch_is_asked_for_its_commit_each_time_and_answers_offline(hub, client):
    name = f"{PHI_3.checkpoint}@main"
    folder = client.path("checkpoint", name)
    hub.requests.clear()
    assert client.path("checkpoint", name) == folder
    assert [path for _, path in hub.requests] == [f"/api/models/{PHI_3.checkpoint}/revision/main"]
    hub.broken = 503
    assert client.path("checkpoint", name, HF_HUB_OFFLINE="1") == folder


@pytest.mark.parametrize(("form", "repo"), [("checkpoint", PHI_3.checkpoint), ("onnx", PHI_3.onnx_repo)])
def test_offline_with_nothing_cached_names_the_command_and_the_command_helps(hub, client, form, repo):
    message = client.error(form, HF_HUB_OFFLINE="1")
    assert f"{repo} is not complete" in message
    assert "HF_HUB_OFFLINE=1" in message
    assert hub.requests == []
    command = shlex.split(message.strip().splitlines()[-1])
    assert command[:2] == ["hf", "download"]
    done = client.run(str(Path(sys.executable).with_name("hf")), *command[1:])
    assert done.returncode == 0, done.stderr
    assert files(client.path(form, HF_HUB_OFFLINE="1")) == (WANTED if form == "checkpoint" else ONNX_WANTED)


def test_offline_with_a_part_cached_is_no_whole_model(hub, client):
    folder = client.path("checkpoint")
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert "is not complete" in client.error("checkpoint", HF_HUB_OFFLINE="1")


def test_a_model_that_is_not_there(client):
    message = client.error("checkpoint", "nobody/nothing")
    assert "has no model nobody/nothing" in message
    assert "no folder of that name" in message
    assert "has no revision v9" in client.error("checkpoint", f"{PHI_3.checkpoint}@v9")


def test_a_gated_model_says_how_its_gate_opens_and_shows_no_token(hub, client):
    hub.gated.add(PHI_3.checkpoint)
    message = client.error("checkpoint", HF_TOKEN="hf_secret")
    assert f"{hub.url}/{PHI_3.checkpoint}" in message
    assert "hf auth login" in message
    assert "hf_secret" not in message


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "tokenizer.json"])
def test_a_file_with_the_wrong_hash_is_found_refused_and_fetched_anew(hub, client, name):
    served = hub.root / PHI_3.checkpoint / name
    hub.spoiled[f"{PHI_3.checkpoint}/{name}"] = flipped(served.read_bytes())
    message = client.error("checkpoint")
    assert name in message
    assert "hash" in message
    assert "is not complete" in client.error("checkpoint", HF_HUB_OFFLINE="1")
    hub.spoiled.clear()
    hub.requests.clear()
    assert (client.path("checkpoint") / name).read_bytes() == served.read_bytes()
    assert hub.fetched(PHI_3.checkpoint) == {name}


def test_a_file_changed_in_the_cache_is_found_when_next_asked_for(client):
    path = client.path("checkpoint") / "model-00001-of-00002.safetensors"
    path.resolve().write_bytes(flipped(path.read_bytes()))
    assert path.name in client.error("checkpoint")


def test_no_hub_within_reach(hub, client, tmp_path):
    client.env["HF_ENDPOINT"] = "http://127.0.0.1:1"
    for name in (PHI_3.name, f"{PHI_3.checkpoint}@main"):
        message = client.error("checkpoint", name)
        assert "cannot be reached" in message
        assert "tiny" in message


def test_files_in_the_cache_are_used_when_the_hub_is_gone_though_never_checked(hub, client):
    folder = client.path("checkpoint")
    for receipt in Path(client.env["PHI3KIT_CACHE"], "hub").iterdir():
        receipt.unlink()
    client.env["HF_ENDPOINT"] = "http://127.0.0.1:1"
    assert client.path("checkpoint") == folder
    assert "checked another time" in client.said


def test_a_repository_without_safetensors_says_what_is_missing(hub, client):
    repository(hub.root / "someone" / "pickles", {"config.json", "tokenizer.json", "pytorch_model.bin"})
    assert "lacks model.safetensors" in client.error("checkpoint", "someone/pickles")
    assert hub.fetched("someone/pickles") == {"config.json", "tokenizer.json"}


def test_no_signature_of_a_download_address_is_shown(hub, client):
    name = "model-00001-of-00002.safetensors"
    hub.spoiled[f"{PHI_3.checkpoint}/{name}"] = b"short"
    message = client.error("checkpoint")
    assert "should be of size" in message
    assert "Try again" in message
    assert SIGNATURE not in message
