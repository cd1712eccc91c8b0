"""`weights` and a hub on this machine, without faults: what is fetched, what is not, what is checked and stored."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from hub_client import OBTAIN, ONNX, ONNX_WANTED, PHI_3, SHARD, WANTED, files, flipped, repository
from hub_server import SIGNATURE, Hub

from phi3kit.system.folders import GenaiConfig
from phi3kit.system.targets import Target
from phi3kit.weights import CATALOG

CHECKPOINT_REPO, ONNX_REPO = PHI_3.checkpoint.repo, PHI_3.onnx.repo


def test_a_checkpoint_is_fetched_without_other_files(hub, client):
    assert files(client.path("checkpoint")) == hub.fetched(CHECKPOINT_REPO) == WANTED


def test_a_checkpoint_is_fetched_at_its_commit(client):
    assert client.path("checkpoint").name == PHI_3.checkpoint.revision


def test_the_fetched_files_are_the_hubs(hub, client):
    folder = client.path("checkpoint")
    assert [name for name in WANTED if (folder / name).read_bytes() != served(hub, name)] == []


def served(hub, name: str) -> bytes:
    return (hub.root / CHECKPOINT_REPO / name).read_bytes()


def test_no_other_repository_is_asked_for(hub, client):
    client.path("checkpoint")
    assert [path for _, path in hub.requests if CHECKPOINT_REPO not in path] == []


def test_a_download_is_announced_in_one_line_without_bars(client):
    client.path("checkpoint")
    (line,) = client.stderr.splitlines()
    assert ("0.1 MB" in line, "Ctrl-C is safe" in line) == (True, True)  # the size of the files, not the catalog's


def test_a_file_that_is_offered_over_xet_comes_over_http(hub, client):
    hub.xet = True
    assert files(client.path("checkpoint")) == hub.fetched(CHECKPOINT_REPO) == WANTED
    assert not any("xet" in path for _, path in hub.requests)


def test_an_onnx_model_is_its_subfolder_alone(hub, client):
    folder = client.path("onnx")
    assert (folder.parts[-2:], files(folder)) == (ONNX.parts, ONNX_WANTED)
    assert hub.fetched(ONNX_REPO) == {f"{ONNX}/{name}" for name in ONNX_WANTED}


@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
def test_a_second_call_sends_no_request(hub, client, form):
    folder = client.path(form)
    hub.requests.clear()
    assert (client.path(form), client.stderr, hub.requests) == (folder, "", [])


@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
def test_fetched_files_are_returned_offline(client, form):
    assert client.path(form) == client.path(form, HF_HUB_OFFLINE="1")


def test_a_lost_file_is_the_only_one_fetched_again(hub, client):
    folder = client.path("checkpoint")
    lost = (folder / SHARD).stat()
    for path in [path for path in client.cache.rglob("*") if os.path.samestat(path.stat(), lost)]:
        path.unlink()
    hub.requests.clear()
    assert client.path("checkpoint") == folder
    assert hub.fetched(CHECKPOINT_REPO) == {SHARD}


def test_a_lost_snapshot_is_fetched_again(hub, client):
    folder = client.path("checkpoint")
    folder.rename(folder.with_name("elsewhere"))
    assert files(client.path("checkpoint")) == WANTED


def test_a_branch_needs_one_request_for_its_commit(hub, client):
    name = f"{CHECKPOINT_REPO}@main"
    folder = client.path("checkpoint", name)
    hub.requests.clear()
    assert client.path("checkpoint", name) == folder
    assert [path for _, path in hub.requests] == [f"/api/models/{CHECKPOINT_REPO}/revision/main"]


def test_a_branch_is_known_offline(client):
    name = f"{CHECKPOINT_REPO}@main"
    assert client.path("checkpoint", name) == client.path("checkpoint", name, HF_HUB_OFFLINE="1")


OFFLINE = pytest.mark.parametrize(("form", "repo"), [("checkpoint", CHECKPOINT_REPO), ("onnx", ONNX_REPO)])


@OFFLINE
def test_offline_with_an_empty_cache_the_command_is_named(hub, client, form, repo):
    message = client.error(form, HF_HUB_OFFLINE="1")
    assert f"{repo} is not complete" in message
    assert "HF_HUB_OFFLINE=1" in message
    assert hub.requests == []


@OFFLINE
def test_the_command_fetches_what_offline_lacks(client, form, repo):
    command = shlex.split(client.error(form, HF_HUB_OFFLINE="1").strip().splitlines()[-1])
    assert command[:2] == ["hf", "download"]
    result = client.run(str(Path(sys.executable).with_name("hf")), *command[1:])
    assert result.returncode == 0, result.stderr
    folder = client.path(form, HF_HUB_OFFLINE="1")
    assert files(folder) == (WANTED if form == "checkpoint" else ONNX_WANTED)
    assert not any(path.is_symlink() for path in folder.iterdir()), "MLflow stores no link out of a folder"


def test_offline_a_partial_checkpoint_is_refused(client):
    (client.path("checkpoint") / SHARD).unlink()
    message = client.error("checkpoint", HF_HUB_OFFLINE="1")
    assert ("is not complete" in message, "hf download" in message) == (True, True)


@pytest.fixture(params=[SHARD, "tokenizer.json"])
def spoiled(request, hub, client) -> str:
    """A file that came with another hash than the hub's, once."""
    name = request.param
    hub.spoiled[f"{CHECKPOINT_REPO}/{name}"] = flipped(served(hub, name))
    message = client.error("checkpoint")
    assert (name in message, "hash" in message) == (True, True)
    hub.spoiled.clear()
    hub.requests.clear()
    return name


def test_a_file_with_a_wrong_hash_is_not_used(client, spoiled):
    assert "is not complete" in client.error("checkpoint", HF_HUB_OFFLINE="1")


def test_a_file_with_a_wrong_hash_is_fetched_again(hub, client, spoiled):
    assert (client.path("checkpoint") / spoiled).read_bytes() == served(hub, spoiled)
    assert hub.fetched(CHECKPOINT_REPO) == {spoiled}


@pytest.fixture(params=[("checkpoint", "config.json"), ("onnx", "model.onnx.data")])
def damaged(request, client) -> tuple[str, Path, bytes]:
    """A form, one of its cached files in which a byte flipped, and its content before. Size and time are the same."""
    form, name = request.param
    path = client.path(form) / name
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(flipped(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return form, path, content


@pytest.mark.parametrize("env", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}], ids=["off", "gone"])
def test_without_a_hub_a_damaged_file_is_refused(client, damaged, env):
    form, path, _ = damaged
    assert f"{path.name} has changed" in client.error(form, **env)


def test_a_damaged_file_is_the_only_one_fetched_again(hub, client, damaged):
    form, path, content = damaged
    hub.requests.clear()
    client.path(form)
    assert path.read_bytes() == content
    assert {Path(name).name for name in hub.fetched(CHECKPOINT_REPO) | hub.fetched(ONNX_REPO)} == {path.name}


def test_a_damaged_file_is_named_before_it_is_fetched(client, damaged):
    form, path, _ = damaged
    client.path(form)
    assert f"{path.name} has changed" in client.stderr


def test_a_damaged_file_that_cannot_be_removed_names_the_folder(client):
    path = client.path("checkpoint") / SHARD
    path.write_bytes(flipped(path.read_bytes()))
    read_only = "import pathlib\ndef unlink(path, **_): raise PermissionError(13, 'Permission denied', str(path))\n"
    code = f"{read_only}pathlib.Path.unlink = unlink\n{OBTAIN}"
    result = client.execute(code, "checkpoint", PHI_3.name)
    assert (result.returncode, "HF_HOME" in result.stderr, "Traceback" in result.stderr) == (1, True, False)


def test_a_damaged_file_that_the_hub_does_not_repair_is_refused(hub, client):
    path = client.path("checkpoint") / SHARD
    hub.spoiled[f"{CHECKPOINT_REPO}/{SHARD}"] = flipped(path.read_bytes())
    path.write_bytes(flipped(path.read_bytes()))
    assert f"{SHARD} did not have the hash" in client.error("checkpoint")


def test_unchecked_files_are_used_when_the_hub_is_gone(client):
    folder = client.path("checkpoint")
    for receipt in Path(client.env["PHI3KIT_CACHE"], "hub").iterdir():
        receipt.unlink()
    assert client.path("checkpoint", HF_ENDPOINT="http://127.0.0.1:1") == folder
    assert "checked another time" in client.stderr


def test_without_hard_links_a_file_is_moved(client):
    no_links = "import os\ndef link(*_): raise OSError('not supported')\nos.link = link\n"
    result = client.execute(no_links + OBTAIN, "onnx", PHI_3.name)
    assert files(Path(result.stdout.strip())) == ONNX_WANTED, result.stderr
    assert not any(client.cache.glob("*/blobs/*")), "the files take their disk once"


def test_a_repository_without_safetensors_is_refused(hub, client):
    repository(hub.root / "someone" / "pickles", {"config.json", "tokenizer.json", "pytorch_model.bin"})
    assert "lacks model.safetensors" in client.error("checkpoint", "someone/pickles")
    assert hub.fetched("someone/pickles") == {"config.json", "tokenizer.json"}


def test_no_signature_of_a_download_address_is_shown(hub, client):
    hub.spoiled[f"{CHECKPOINT_REPO}/{SHARD}"] = b"short"
    message = client.error("checkpoint")
    assert ("should be of size" in message, "Try again" in message, SIGNATURE in message) == (True, True, False)


def test_a_file_that_was_too_short_is_fetched_from_its_start(hub, client):
    hub.spoiled[f"{CHECKPOINT_REPO}/{SHARD}"] = b"short"
    client.error("checkpoint")
    hub.spoiled.clear()
    assert (client.path("checkpoint") / SHARD).read_bytes() == served(hub, SHARD)


# Other targets than a CPU

PHI_4 = CATALOG["phi-4-mini-instruct"]


@pytest.fixture
def published(hub) -> Hub:
    """The hub, with Phi-3's folders for each target, and Phi-4's for a CPU and for any GPU."""
    for entry in (PHI_3, PHI_4):
        folders = {entry.onnx_for(target).subfolder for target in Target}
        repository(hub.root / entry.onnx.repo, {f"{folder}/{name}" for folder in folders for name in ONNX_WANTED})
    return hub


@pytest.mark.parametrize("target", Target)
def test_the_folder_for_a_target_is_the_only_one_fetched(published, client, target):
    folder = client.path("onnx", PHI_3.name, target)
    subfolder = PHI_3.onnx_for(target).subfolder
    assert folder.as_posix().endswith(f"{PHI_3.onnx_for(target).revision}/{subfolder}")
    assert published.fetched(ONNX_REPO) == {f"{subfolder}/{name}" for name in ONNX_WANTED}


@pytest.mark.parametrize(
    ("target", "package"), [("cuda", "onnxruntime-genai-cuda"), ("dml", "onnxruntime-genai-directml")]
)
def test_the_command_says_which_package_to_install(published, client, target, package):
    command = [
        sys.executable,
        "-m",
        "phi3kit.cli",
        "weights",
        "fetch",
        PHI_3.name,
        "--form",
        "onnx",
        "--target",
        target,
    ]
    result = client.run(*command)
    assert (result.returncode, PHI_3.onnx_for(Target(target)).subfolder in result.stdout) == (0, True)
    assert f"put {package} in the place of ours: `pip uninstall -y" in result.stderr


def test_a_folder_for_a_gpu_is_returned_offline(published, client):
    assert client.path("onnx", PHI_3.name, "cuda") == client.path("onnx", PHI_3.name, "cuda", HF_HUB_OFFLINE="1")


def provider(folder: Path) -> str:
    return GenaiConfig.read(folder).provider


@pytest.mark.parametrize("target", ["cuda", "dml"])
def test_a_folder_for_any_gpu_is_given_the_targets_provider(published, client, target):
    assert provider(client.path("onnx", PHI_4.name, target)) == target


def test_a_folder_for_any_gpu_serves_several_targets(published, client):
    cuda, dml = (client.path("onnx", PHI_4.name, target) for target in ("cuda", "dml"))
    assert (provider(cuda), provider(dml)) == ("cuda", "dml")


def test_a_folder_for_any_gpu_takes_no_disk_twice(published, client):
    folder = client.path("onnx", PHI_4.name, "cuda")
    (data,) = (path for path in client.cache.rglob("gpu/*/model.onnx.data"))
    assert (folder / "model.onnx.data").samefile(data)


def test_what_is_published_is_not_changed(published, client):
    client.path("onnx", PHI_4.name, "cuda")
    (config,) = client.cache.rglob("gpu/*/genai_config.json")
    assert provider(config.parent) == "cpu"


def listed(client, *arguments: str) -> str:
    result = client.run(sys.executable, "-m", "phi3kit.cli", "weights", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("entry", [PHI_3, PHI_4], ids=lambda entry: entry.name)
def test_a_model_for_a_gpu_alone_is_whole(published, client, entry):
    client.path("onnx", entry.name, "cuda")
    assert {line.rpartition(": ")[2] for line in listed(client, "verify").splitlines()} == {"intact"}


def test_a_model_for_a_gpu_says_so(published, client):
    client.path("onnx", PHI_3.name, "cuda")
    assert listed(client, "verify").startswith(f"{PHI_3.name}, onnx for cuda, ")


def test_a_model_for_a_gpu_that_lost_a_file_is_named(published, client):
    (client.path("onnx", PHI_3.name, "cuda") / "model.onnx").unlink()
    result = client.run(sys.executable, "-m", "phi3kit.cli", "weights", "verify", PHI_3.name)
    assert (result.returncode, "model.onnx is missing" in result.stdout) == (1, True)
    assert f'phi3kit weights fetch "{PHI_3.name}" --target cuda' in result.stdout
