"""`weights` and a hub on this machine, on a good day: what is fetched, what is not, what is checked and kept."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from hub_client import ASK, ONNX, ONNX_WANTED, PHI_3, SHARD, WANTED, files, flipped, repository
from hub_server import SIGNATURE


def test_a_checkpoint_is_fetched_whole_at_its_commit_and_nothing_else_is(hub, client):
    folder = client.path("checkpoint")
    assert files(folder) == hub.fetched(PHI_3.checkpoint) == WANTED
    assert folder.name == PHI_3.revision
    for name in WANTED:
        assert (folder / name).read_bytes() == (hub.root / PHI_3.checkpoint / name).read_bytes()
    assert all(PHI_3.checkpoint in path for _, path in hub.requests)
    assert client.said.count("\n") == 1, "one line, and no bars where there is no terminal"
    assert "0.1 MB" in client.said, "what is really fetched, not what the catalog says"
    assert "Ctrl-C is safe" in client.said


def test_a_file_that_can_be_had_over_xet_comes_over_plain_http(hub, client):
    hub.xet = True
    assert files(client.path("checkpoint")) == hub.fetched(PHI_3.checkpoint) == WANTED
    assert not any("xet" in path for _, path in hub.requests)


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
    lost = (folder / SHARD).stat()
    for path in [path for path in client.cache.rglob("*") if os.path.samestat(path.stat(), lost)]:
        path.unlink()
    hub.requests.clear()
    assert client.path("checkpoint") == folder
    assert hub.fetched(PHI_3.checkpoint) == {SHARD}


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
    folder = client.path(form, HF_HUB_OFFLINE="1")
    assert files(folder) == (WANTED if form == "checkpoint" else ONNX_WANTED)
    assert not any(path.is_symlink() for path in folder.iterdir()), "MLflow stores no link out of a folder"


def test_offline_with_a_part_cached_is_no_whole_model(client):
    (client.path("checkpoint") / SHARD).unlink()
    message = client.error("checkpoint", HF_HUB_OFFLINE="1")
    assert "is not complete" in message
    assert "hf download" in message


@pytest.mark.parametrize("name", [SHARD, "tokenizer.json"])
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


@pytest.mark.parametrize(("form", "name"), [("checkpoint", "config.json"), ("onnx", "model.onnx.data")])
def test_a_byte_that_flipped_in_the_cache_is_found_and_repaired_or_refused(hub, client, form, name):
    """Size and modification time tell nothing of it."""
    path = client.path(form) / name
    good, stat = path.read_bytes(), path.stat()
    path.write_bytes(flipped(good))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    message = client.error(form, HF_HUB_OFFLINE="1")
    assert f"{name} has changed" in message
    assert "HF_HUB_OFFLINE" in message
    assert f"{name} has changed" in client.error(form, HF_ENDPOINT="http://127.0.0.1:1")
    hub.requests.clear()
    assert (client.path(form) / name).read_bytes() == good
    assert f"{name} has changed" in client.said
    assert {Path(each).name for each in hub.fetched(PHI_3.checkpoint) | hub.fetched(PHI_3.onnx_repo)} == {name}
    assert client.path(form, HF_HUB_OFFLINE="1") == path.parent


def test_a_damaged_file_that_cannot_be_deleted_names_the_folder(client):
    path = client.path("checkpoint") / SHARD
    path.write_bytes(flipped(path.read_bytes()))
    read_only = "import pathlib\ndef unlink(path, **_): raise PermissionError(13, 'Permission denied', str(path))\n"
    done = client.run(sys.executable, "-c", f"{read_only}pathlib.Path.unlink = unlink\n{ASK}", "checkpoint", PHI_3.name)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "HF_HOME" in done.stderr


def test_a_damaged_file_that_the_hub_does_not_repair_is_refused(hub, client):
    path = client.path("checkpoint") / SHARD
    hub.spoiled[f"{PHI_3.checkpoint}/{SHARD}"] = flipped(path.read_bytes())
    path.write_bytes(flipped(path.read_bytes()))
    assert f"{SHARD} did not have the hash" in client.error("checkpoint")


def test_files_in_the_cache_are_used_when_the_hub_is_gone_though_never_checked(client):
    folder = client.path("checkpoint")
    for receipt in Path(client.env["PHI3KIT_CACHE"], "hub").iterdir():
        receipt.unlink()
    client.env["HF_ENDPOINT"] = "http://127.0.0.1:1"
    assert client.path("checkpoint") == folder
    assert "checked another time" in client.said


def test_where_a_file_can_have_but_one_name_it_is_moved(client):
    no_links = "import os\ndef link(*_): raise OSError('not supported')\nos.link = link\n"
    done = client.run(sys.executable, "-c", no_links + ASK, "onnx", PHI_3.name)
    assert done.returncode == 0, done.stderr
    assert files(Path(done.stdout.strip())) == ONNX_WANTED
    assert not any(client.cache.glob("*/blobs/*")), "it takes the disk of one"


def test_a_repository_without_safetensors_says_what_is_missing(hub, client):
    repository(hub.root / "someone" / "pickles", {"config.json", "tokenizer.json", "pytorch_model.bin"})
    assert "lacks model.safetensors" in client.error("checkpoint", "someone/pickles")
    assert hub.fetched("someone/pickles") == {"config.json", "tokenizer.json"}


def test_no_signature_of_a_download_address_is_shown(hub, client):
    hub.spoiled[f"{PHI_3.checkpoint}/{SHARD}"] = b"short"
    message = client.error("checkpoint")
    assert "should be of size" in message
    assert "Try again" in message
    assert SIGNATURE not in message
    hub.spoiled.clear()
    assert (client.path("checkpoint") / SHARD).stat().st_size > 20_000, "what was too short is no beginning"
