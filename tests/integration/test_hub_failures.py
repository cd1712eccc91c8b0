"""`weights` and a hub on this machine, with faults: what stays, what each failure says, and that it ends."""

import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from hub_client import ONNX, ONNX_WANTED, PHI_3, SHARD, WANTED, files, shard, wait_until
from hub_server import SIGNATURE, Proxy

MB = 2**20
REPO = PHI_3.checkpoint.repo
NAME = f"{REPO}/{SHARD}"
DATA = f"{PHI_3.onnx.repo}/{ONNX / 'model.onnx.data'}"
FETCH = [sys.executable, "-m", "phi3kit.cli", "weights", "fetch", PHI_3.name]


@pytest.fixture
def large(hub) -> bytes:
    """A shard large enough to stop in: huggingface_hub writes ten megabytes at a time."""
    content = shard(2, 24 * MB)
    (hub.root / NAME).write_bytes(content)
    return content


def partial_sizes(client) -> list[int]:
    """The sizes of the partial files in the cache."""
    sizes = []
    for file in client.cache.rglob("*.incomplete"):
        with suppress(FileNotFoundError):  # it was finished meanwhile
            sizes.append(file.stat().st_size)
    return sizes


def test_a_broken_connection_is_resumed(hub, client, large):
    hub.cut[NAME] = 12 * MB
    assert (client.path("checkpoint") / SHARD).read_bytes() == large
    assert [sent for sent in hub.sent if sent[0] == NAME] == [(NAME, 0, 12 * MB), (NAME, 10 * MB, len(large))]
    assert SIGNATURE not in client.stderr


@pytest.fixture
def interrupted(hub, client, large):
    """Send a signal to a download that is in the middle of a large file."""

    def interrupt(number: signal.Signals) -> tuple[int, str]:
        hub.stalls[NAME] = 12 * MB
        process = subprocess.Popen(FETCH, env=client.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: 10 * MB in partial_sizes(client))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        return process.returncode, stderr

    return interrupt


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl-C cannot be sent to one process alone")


@POSIX
def test_ctrl_c_ends_a_download_in_one_sentence(interrupted):
    code, stderr = interrupted(signal.SIGINT)
    _, announcement, message = stderr.strip().splitlines()  # the command tells the size before
    assert (code, "Ctrl-C is safe" in announcement, "Interrupted" in message) == (130, True, True)


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_after_an_interruption_only_the_rest_is_fetched(hub, client, interrupted, number):
    interrupted(number)
    whole = {name for name, _, _ in hub.sent if name.startswith(REPO)} - {NAME}
    hub.stalls.clear()
    hub.sent.clear()
    result = client.run(*FETCH)
    assert result.returncode == 0, result.stderr
    sent = [name for name, _, _ in hub.sent]
    assert (sent.count(NAME), whole & set(sent), partial_sizes(client)) == (1, set(), [])


def test_a_slow_hub_is_waited_for(hub, client):
    hub.slow[DATA] = 0.3  # 2.4 s in all, and less than 1 s of silence
    assert files(client.path("onnx", HF_HUB_DOWNLOAD_TIMEOUT="1")) == ONNX_WANTED


@pytest.mark.parametrize(
    ("mute", "stalls", "form", "name"),
    [
        (True, {}, "onnx", PHI_3.name),
        (True, {}, "checkpoint", f"{REPO}@main"),
        (False, {DATA: 100}, "onnx", PHI_3.name),
    ],
    ids=["list of files", "branch", "file"],
)
def test_a_silent_hub_is_abandoned(hub, client, mute, stalls, form, name):
    hub.mute, hub.stalls = mute, stalls
    message = client.error(form, name, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert (f"{hub.url} was silent for 1 s" in message, "HF_HUB_DOWNLOAD_TIMEOUT=60" in message) == (True, True)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nobody/nothing", "has no model nobody/nothing"),
        ("nobody/nothing", "no folder of that name"),
        (f"{REPO}@v9", "has no revision v9"),
    ],
)
def test_an_unknown_model_or_revision_is_named(client, name, part):
    assert part in client.error("checkpoint", name)


def test_a_listed_file_that_does_not_exist_is_reported(hub, client):
    hub.gone.add(NAME)
    message = client.error("checkpoint")
    assert ("it answered 404" in message, "Try again" in message) == (True, True)


def test_a_gated_model_says_how_to_open_its_gate(hub, client):
    hub.gated.add(REPO)
    message = client.error("checkpoint", HF_TOKEN="hf_secret")
    parts = [f"Accept its licence at {hub.url}/{REPO}", "hf auth login"]
    assert ([part in message for part in parts], "hf_secret" in message) == ([True, True], False)


@pytest.mark.parametrize(
    ("status", "part"), [(401, "hf auth login"), (429, "Wait some minutes"), (503, "it answered 503")]
)
def test_a_hub_that_refuses_is_reported(hub, client, status, part):
    hub.broken = status
    message = client.error("checkpoint")
    assert (part in message, str(status) in message) == (True, True)


@pytest.mark.parametrize("name", [PHI_3.name, f"{REPO}@main"])
def test_a_hub_out_of_reach_is_named(client, name):
    message = client.error("checkpoint", name, HF_ENDPOINT="http://127.0.0.1:1")
    assert ("http://127.0.0.1:1 cannot be reached" in message, "tiny" in message) == (True, True)


@pytest.fixture
def proxy(hub, client):
    """A proxy, which `client` uses."""
    with Proxy(hub) as proxy:
        client.env |= {"HF_ENDPOINT": f"http://{proxy.HOST}", "HTTP_PROXY": proxy.url, "NO_PROXY": ""}
        yield proxy


def test_files_come_through_a_proxy(client, proxy):
    assert files(client.path("checkpoint")) == WANTED
    assert proxy.hosts == {proxy.HOST, "localhost"}, "the hub, and where it stores large files"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named_without_its_password(hub, client, proxy, scheme):
    proxy.refuses = 407
    secret = proxy.url.replace("://", "://me:secret@")
    message = client.error("onnx", HF_ENDPOINT=f"{scheme}://{proxy.HOST}", HTTP_PROXY=secret, HTTPS_PROXY=secret)
    parts = [f"The proxy {proxy.url} does not let", "407", "http://name:password@host:port"]
    assert ([part in message for part in parts], "secret" in message, hub.requests) == ([True] * 3, False, [])


def test_a_proxy_out_of_reach_is_named(hub, client):
    with Proxy(hub) as proxy:
        pass
    client.env |= {"HF_ENDPOINT": f"http://{proxy.HOST}", "HTTP_PROXY": proxy.url, "NO_PROXY": ""}
    assert f"http://{proxy.HOST} cannot be reached through the proxy {proxy.url}" in client.error("onnx")


@pytest.fixture
def huge(hub) -> None:
    """The hub says that a file is larger than any disk."""
    hub.claimed[NAME] = 10**18


@pytest.mark.usefixtures("huge")
def test_less_disk_than_is_missing_is_refused_at_once(hub, client):
    message = client.error("checkpoint")
    parts = ["1000000000.0 GB of disk", "HF_HOME", "--force"]
    assert ([part in message for part in parts], hub.sent) == ([True] * 3, [])


@pytest.mark.usefixtures("huge")
def test_less_disk_than_is_missing_is_accepted_with_force(client):
    assert "fetching 1,000,000,000,000.1 MB" in client.error("checkpoint", PHI3KIT_FORCE="1")
