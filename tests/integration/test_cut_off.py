"""The runner without network notices every call, and nothing else; and the last line of `.ci/run`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cut_off
import pytest

from phi3kit.workbook.exercises import network
from phi3kit.workbook.running.paths import ROOT

needs_isolation = pytest.mark.skipif(network.refusal() != "", reason="the network cannot be cut here")
# A user that the kernel gives no rights beyond its own files.
ORDINARY = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
# A root user who may not make another network namespace.
FORBIDDEN = ["unshare", "-r", "sh", "-c", 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"', "-"]
PYTHON = "import socket, subprocess, sys; "
DATAGRAM = "socket.socket(socket.AF_INET{}, socket.SOCK_DGRAM).sendto(b'?', ('{}', 53))"
# Each way to use the network, and a part of the message. The addresses are reserved for documentation.
CALLS = {
    "a connection": (PYTHON + "socket.create_connection(('192.0.2.1', 80))", "('192.0.2.1', 80)"),
    "over IPv6": (PYTHON + "socket.create_connection(('2001:db8::1', 80))", "('2001:db8::1', 80)"),
    "a datagram": (PYTHON + DATAGRAM.format("", "192.0.2.1"), "('192.0.2.1', 53)"),
    "a datagram in parts": (
        PYTHON + "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'?'], [], 0, ('192.0.2.1', 53))",
        "socket.sendmsg('192.0.2.1', 53)",
    ),
    "a name": (PYTHON + "socket.getaddrinfo('example.org', 443)", "('example.org', 443)"),
    "a name server on loopback": (PYTHON + DATAGRAM.format("", "127.0.0.53"), "'UdpNoPorts': 1"),
    "and on IPv6": (PYTHON + DATAGRAM.format("6", "::1"), "'Udp6NoPorts': 1"),
    "a swallowed error": (PYTHON + "socket.socket().connect_ex(('192.0.2.1', 80))", "('192.0.2.1', 80)"),
    "a child without Python": (
        PYTHON + "subprocess.run(['bash', '-c', ': >/dev/tcp/192.0.2.1/80'])",
        "'IpOutNoRoutes': 1",
    ),
}
QUIET = """
import socket
for family, host in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
    server = socket.create_server((host, 0), family=family)
    with socket.create_connection((host, server.getsockname()[1])):
        server.accept()
    assert socket.socket(family).connect_ex((host, 1))
assert socket.getaddrinfo("localhost", 80)
raise SystemExit(7)
"""

# Starts JupyterLab, waits until it answers, and sends the requests of its pages.
LAB = """
import os, subprocess, sys, time, urllib.error, urllib.request
start = ["-m", "jupyterlab", "--no-browser", "--allow-root", "--port=8888", "--IdentityProvider.token=t"]
with subprocess.Popen([sys.executable, *start], stderr=subprocess.DEVNULL) as server:
    def get(page):
        return urllib.request.urlopen(f"http://127.0.0.1:8888/{page}?token=t").read()
    try:
        while server.poll() is None:
            try:
                get("api/status")
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        for page in ("lab", "lab/api/news", "lab/api/update", "lab/api/extensions"):
            assert get(page)
    finally:
        server.terminate()
"""


def run(code: str, *before: str) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, cut_off.__file__, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(cut_off.NOTES not in os.environ, reason="run by hand, with the network there")
def test_these_tests_run_with_nothing_but_loopback():
    interfaces = Path("/proc/self/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


@needs_isolation
@pytest.mark.parametrize(("code", "message"), CALLS.values(), ids=CALLS)
def test_every_way_to_use_the_network_is_reported(code, message):
    done = run(f"try:\n exec({code!r})\nexcept OSError: pass")
    assert done.returncode == 1
    assert "Something called out" in done.stderr and message in done.stderr


@needs_isolation
@pytest.mark.parametrize("user", [[], ORDINARY], ids=["this user", "an ordinary user"])
def test_loopback_is_no_call_and_the_exit_code_is_kept(user):
    if user and (not shutil.which("unshare") or subprocess.run([*user, "true"], check=False).returncode):
        pytest.skip("no other user can be had here")
    done = run(QUIET, *user)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


@pytest.fixture(scope="module")
def forbidden():
    """The output of a command where no network namespace can be made."""
    if not shutil.which("unshare") or subprocess.run([*FORBIDDEN, "true"], check=False).returncode:
        pytest.skip("namespaces cannot be forbidden here")
    return run("print('done')", *FORBIDDEN)


@needs_isolation
def test_a_command_runs_where_the_network_cannot_be_cut(forbidden):
    assert forbidden.returncode == 0 and forbidden.stdout.endswith("done\n")


@needs_isolation
def test_a_network_that_cannot_be_cut_is_reported(forbidden):
    assert forbidden.stdout.startswith("The network cannot be cut here (OSError: ")


@needs_isolation
def test_a_warning_at_pythons_start_is_no_refusal(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "nonsense")
    assert network.refusal() == ""


def test_counts_without_ipv6_are_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "Path", lambda name: tmp_path / Path(name).name)
    (tmp_path / "snmp").write_text("Ip: OutNoRoutes\nIp: 3\nUdp: NoPorts\nUdp: 2\n", encoding="ascii")
    assert network.attempts() == {"IpOutNoRoutes": 3, "Ip6OutNoRoutes": 0, "UdpNoPorts": 2, "Udp6NoPorts": 0}


@needs_isolation
def test_jupyterlab_as_make_starts_it_makes_no_call(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(ROOT / ".jupyter"))  # as the Makefile does
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))  # without the user's own settings
    monkeypatch.chdir(tmp_path)
    done = run(LAB)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize(
    ("parts", "status", "last"),
    [
        (["=== 2 passed, 9 deselected in 1.5s ==="], 0, "2 passed in 1.50s"),
        (["= 2 passed, 1 skipped in 1.5s =", "= 3 passed in 70.25s (0:01:10) ="], 0, "5 passed, 1 skipped in 71.75s"),
        (["= 1 failed, 2 passed in 1.0s ="], 1, "1 failed, 2 passed in 1.00s"),
        (["= 2 passed in 1.0s =", "E  = 9 failed in 9.0s =", "= 2 errors in 1.0s ="], 1, "2 passed, 2 error in 2.00s"),
        (["= 2 passed in 1.0s =", "= 3 passed in 1.0s =", "It called out."], 1, "1 failed, 5 passed in 2.00s"),
        ([], 1, "1 failed, 0 passed in 0.00s"),
    ],
    ids=["one part", "two parts", "a failure", "an error", "a failure outside of pytest", "no part"],
)
def test_the_last_line_of_ci_adds_all_parts_up(tmp_path, parts, status, last):
    script = "\n".join(f"echo '{line}'" for line in parts)
    (tmp_path / "README.md").write_text(f"## Tests\n\n```sh\n{script}\nexit {status}\n```\n", encoding="utf-8")
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1], done.returncode) == (last, status)
