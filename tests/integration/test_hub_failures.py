"""`weights` and a hub on this machine, on a bad day: what is kept, what every failure says, and that it ends."""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hub_client import ONNX, ONNX_WANTED, PHI_3, SHARD, WANTED, files, shard, until
from hub_server import SIGNATURE, Proxy

MB = 2**20
NAME = f"{PHI_3.checkpoint}/{SHARD}"


@pytest.fixture
def large(hub) -> bytes:
    """A shard large enough to stop in: huggingface_hub writes ten megabytes at a time."""
    content = shard(2, 24 * MB)
    (hub.root / NAME).write_bytes(content)
    return content


def unfinished(client) -> list[Path]:
    return list(client.cache.rglob("*.incomplete"))


def sizes(files: list[Path]) -> list[int]:
    found = []
    for file in files:
        with suppress(FileNotFoundError):  # it was finished meanwhile
            found.append(file.stat().st_size)
    return found


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, client, large):
    hub.cut[NAME] = 12 * MB
    assert (client.path("checkpoint") / SHARD).read_bytes() == large
    assert [sent for sent in hub.sent if sent[0] == NAME] == [(NAME, 0, 12 * MB), (NAME, 10 * MB, len(large))]
    assert SIGNATURE not in client.said


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C cannot be sent to one process alone")
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL], ids=lambda kill: kill.name)
def test_after_ctrl_c_or_a_kill_the_next_call_fetches_only_the_files_that_are_not_whole(hub, client, large, kill):
    hub.held[NAME] = 12 * MB
    command = [sys.executable, "-m", "phi3kit.cli", "weights", "fetch", PHI_3.name]
    process = subprocess.Popen(command, env=client.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: 10 * MB in sizes(unfinished(client)))
    process.send_signal(kill)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    if kill is signal.SIGINT:
        assert process.returncode == 130
        announced, interrupted = said.strip().splitlines()
        assert "Ctrl-C is safe" in announced
        assert "Interrupted" in interrupted
    whole = {name for name, _, _ in hub.sent if name.startswith(PHI_3.checkpoint)} - {NAME}
    assert whole

    hub.held.clear()
    hub.sent.clear()
    done = client.run(*command)
    assert done.returncode == 0, done.stderr
    sent = [name for name, _, _ in hub.sent]
    assert sent.count(NAME) == 1
    assert not whole & set(sent)
    assert unfinished(client) == []


def test_a_slow_hub_is_waited_for(hub, client):
    hub.slow[f"{PHI_3.onnx_repo}/{ONNX / 'model.onnx.data'}"] = 0.3  # 2.4 s in all, and never a second of silence
    assert files(client.path("onnx", HF_HUB_DOWNLOAD_TIMEOUT="1")) == ONNX_WANTED


@pytest.mark.parametrize("where", ["list of files", "branch", "file"])
def test_a_silent_hub_is_not_waited_for_for_ever(hub, client, where):
    hub.mute = where != "file"
    hub.held = {f"{PHI_3.onnx_repo}/{ONNX / 'model.onnx.data'}": 100} if where == "file" else {}
    form, name = ("checkpoint", f"{PHI_3.checkpoint}@main") if where == "branch" else ("onnx", PHI_3.name)
    message = client.error(form, name, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert "was silent for 1 s" in message
    assert "HF_HUB_DOWNLOAD_TIMEOUT=60" in message
    assert hub.url in message


def test_a_model_that_is_not_there(client):
    message = client.error("checkpoint", "nobody/nothing")
    assert "has no model nobody/nothing" in message
    assert "no folder of that name" in message
    assert "has no revision v9" in client.error("checkpoint", f"{PHI_3.checkpoint}@v9")


def test_a_file_that_is_listed_and_not_there(hub, client):
    hub.gone.add(NAME)
    message = client.error("checkpoint")
    assert "it answered 404" in message
    assert "Try again" in message


def test_a_gated_model_says_how_its_gate_opens_and_shows_no_token(hub, client):
    hub.gated.add(PHI_3.checkpoint)
    message = client.error("checkpoint", HF_TOKEN="hf_secret")
    assert f"{hub.url}/{PHI_3.checkpoint}" in message
    assert "Accept its licence" in message
    assert "hf auth login" in message
    assert "hf_secret" not in message


@pytest.mark.parametrize(
    ("status", "said"), [(401, "hf auth login"), (429, "Wait some minutes"), (503, "it answered 503")]
)
def test_a_hub_that_refuses(hub, client, status, said):
    hub.broken = status
    message = client.error("checkpoint")
    assert said in message
    assert str(status) in message


def test_no_hub_within_reach(client):
    client.env["HF_ENDPOINT"] = "http://127.0.0.1:1"
    for name in (PHI_3.name, f"{PHI_3.checkpoint}@main"):
        message = client.error("checkpoint", name)
        assert "http://127.0.0.1:1 cannot be reached" in message
        assert "tiny" in message


def test_through_a_proxy(hub, client):
    with Proxy(hub) as proxy:
        client.env |= {"HF_ENDPOINT": f"http://{proxy.HOST}", "HTTP_PROXY": proxy.url, "NO_PROXY": ""}
        assert files(client.path("checkpoint")) == WANTED
        assert proxy.asked == {proxy.HOST, "localhost"}, "the hub, and where it keeps large files"

        hub.requests.clear()
        proxy.refuses = 407
        for endpoint in (f"http://{proxy.HOST}", f"https://{proxy.HOST}"):
            secret = proxy.url.replace("://", "://me:secret@")
            message = client.error("onnx", HF_ENDPOINT=endpoint, HTTP_PROXY=secret, HTTPS_PROXY=secret)
            assert f"The proxy {proxy.url} does not let" in message
            assert "407" in message
            assert "http://name:password@host:port" in message
            assert "secret" not in message
        assert hub.requests == []
    message = client.error("onnx")
    assert f"http://{proxy.HOST} cannot be reached through the proxy {proxy.url}" in message


def test_less_disk_than_is_missing(hub, client):
    """No disk is that small: the list says the file is larger than any."""
    hub.claimed[NAME] = 10**18
    message = client.error("checkpoint")
    assert "1000000000.0 GB of disk" in message
    assert "HF_HOME" in message
    assert "--force" in message
    assert hub.sent == []
    assert files(client.path("checkpoint", PHI3KIT_FORCE="1")) == WANTED, "on one's own responsibility"
