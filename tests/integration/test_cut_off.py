"""The runner that cuts the network sees every attempt to call out, and nothing else; and what `.ci/run` makes of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cut_off
import pytest

from phi3kit.workbook import network
from phi3kit.workbook.places import ROOT

linux_alone = pytest.mark.skipif(
    sys.platform != "linux" or bool(cut_off.refused()), reason="the network cannot be cut here"
)
# An ordinary user, as far as the kernel cares: no rights beyond its own files.
ORDINARY = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
# A root that may have no further network namespace.
FORBIDDEN = ["unshare", "-r", "sh", "-c", 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"', "-"]
PYTHON = "import socket, subprocess, sys; "
DATAGRAM = "socket.socket(socket.AF_INET{}, socket.SOCK_DGRAM).sendto(b'?', ('{}', 53))"
# Addresses of the blocks that are kept for documentation.
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

# Starts JupyterLab, waits until it answers, and asks what its pages ask.
LAB = """
import os, subprocess, sys, time, urllib.error, urllib.request
start = ["-m", "jupyterlab", "--no-browser", "--allow-root", "--port=8888", "--IdentityProvider.token=t"]
with subprocess.Popen([sys.executable, *start], stderr=subprocess.DEVNULL) as server:
    def ask(page):
        return urllib.request.urlopen(f"http://127.0.0.1:8888/{page}?token=t").read()
    try:
        while server.poll() is None:
            try:
                ask("api/status")
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        for page in ("lab", "lab/api/news", "lab/api/update", "lab/api/extensions"):
            assert ask(page)
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


@linux_alone
@pytest.mark.parametrize(("code", "named"), CALLS.values(), ids=CALLS)
def test_every_way_to_call_out_is_seen_and_told(code, named):
    done = run(f"try:\n exec({code!r})\nexcept OSError: pass")
    assert done.returncode == 1
    assert "Something called out" in done.stderr and named in done.stderr


@linux_alone
@pytest.mark.parametrize("user", [[], ORDINARY], ids=["who we are", "an ordinary user"])
def test_loopback_works_and_the_commands_own_exit_code_counts(user):
    if user and (not shutil.which("unshare") or subprocess.run([*user, "true"], check=False).returncode):
        pytest.skip("no ordinary user to be had")
    done = run(QUIET, *user)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


@linux_alone
def test_where_the_network_cannot_be_cut_that_is_said_and_the_command_runs():
    if not shutil.which("unshare") or subprocess.run([*FORBIDDEN, "true"], check=False).returncode:
        pytest.skip("it cannot be forbidden here")
    done = run("print('done')", *FORBIDDEN)
    assert done.returncode == 0
    assert done.stdout.startswith("The network cannot be cut here (OSError: ") and done.stdout.endswith("done\n")


@linux_alone
def test_what_python_says_at_its_start_is_no_refusal(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "nonsense")
    assert network.refused() == ""


def test_where_there_is_no_ipv6_the_rest_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "Path", lambda name: tmp_path / Path(name).name)
    (tmp_path / "snmp").write_text("Ip: OutNoRoutes\nIp: 3\nUdp: NoPorts\nUdp: 2\n", encoding="ascii")
    assert network.attempts() == {"IpOutNoRoutes": 3, "Ip6OutNoRoutes": 0, "UdpNoPorts": 2, "Udp6NoPorts": 0}


@linux_alone
def test_jupyterlab_as_make_starts_it_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(ROOT / ".jupyter"))  # as the Makefile does
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))  # and nothing of whoever runs the tests
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
)
def test_ci_ends_with_one_line_that_adds_all_parts_up(tmp_path, parts, status, last):
    said = "\n".join(f"echo '{line}'" for line in parts)
    (tmp_path / "README.md").write_text(f"## Tests\n\n```sh\n{said}\nexit {status}\n```\n", encoding="utf-8")
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == last
    assert done.returncode == status
