"""No network but loopback, for this process and all that it starts: the kernel's isolation on Linux, a hook in Python.

On Linux a process can move into a network namespace of its own, which has loopback and nothing else; where the system
allows it, an ordinary user can do that too. The kernel counts, for that namespace, what had no route: connections,
datagrams and questions to a name server, from any process. The hook works on every system, in every Python that
inherits `PYTHONPATH`: it notes each call, and refuses it if `CUT_OFF_REFUSE` is set.
"""

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
NOTES = "CUT_OFF_NOTES"  # the file in which the hook notes calls
REFUSE = "CUT_OFF_REFUSE"  # set if the hook also refuses them

# A `sitecustomize.py` for any version of Python. Loopback and Unix sockets do not count as calls.
HOOK = """
import os, sys

EVENTS = {"socket." + name for name in ("connect", "sendto", "sendmsg", "getaddrinfo")}
EVENTS |= {"socket.gethostbyname", "socket.gethostbyaddr"}
NOTES, REFUSE = os.environ.get("CUT_OFF_NOTES"), os.environ.get("CUT_OFF_REFUSE")

def watch(event, arguments):
    if event not in EVENTS:
        return
    address = arguments[1] if hasattr(arguments[0], "fileno") else arguments
    if not isinstance(address, tuple) or address[0] in (None, "", b"", "localhost", "::", "::1", "0.0.0.0"):
        return
    if isinstance(address[0], int) or str(address[0]).startswith(("127.", "::ffff:127.")):
        return
    if REFUSE and address[0] == sys.modules["_socket"].gethostname():
        return  # the name of this machine
    packages, frame = [], sys._getframe(1)
    while frame:
        packages.append(frame.f_globals.get("__name__", "?").split(".")[0])
        frame = frame.f_back
    callers = " < ".join(dict.fromkeys(packages))
    note = "%s%r in process %d, %s, by %s\\n" % (event, address[:2], os.getpid(), sys.argv, callers)
    notes = os.open(NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(notes).st_size < 1000000:  # the beginning of a loop is enough
        os.write(notes, note.encode("utf-8", "replace"))
    os.close(notes)
    if REFUSE:
        raise ConnectionRefusedError("The network is cut here, and only loopback is left: %s%r" % (event, address[:2]))

if hasattr(sys, "addaudithook") and NOTES:
    sys.addaudithook(watch)
"""


def enter() -> None:
    """Move this process, and all that it will start, into a network namespace with only loopback. Linux only.

    Raises:
        OSError: the system does not allow it; this process may then be unusable.
    """
    import ctypes
    import fcntl  # Windows has none

    user, group = os.geteuid(), os.getegid()
    own = 0 if user == 0 else CLONE_NEWUSER
    if ctypes.CDLL(None, use_errno=True).unshare(own | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if own:  # keep the user and the group, so that permissions stay the same
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def refusal() -> str:
    """Why `enter` fails on this machine, tried in a process of its own; empty if it does not fail."""
    if sys.platform != "linux":
        return "this is not Linux"
    script = f"from {__name__} import enter; enter()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"


def attempts() -> dict[str, int]:
    """The kernel's counts in this namespace: connections and datagrams without a route, and datagrams to closed ports.

    The latter are questions to a name server on loopback: the namespace has none.
    """
    lines = [line.split() for line in Path("/proc/self/net/snmp").read_text(encoding="ascii").splitlines()]
    counts = {
        f"{names[0].rstrip(':')}{name}": int(count)
        for names, row in zip(lines[::2], lines[1::2], strict=True)
        for name, count in zip(names[1:], row[1:], strict=True)
    }
    if (ipv6 := Path("/proc/self/net/snmp6")).exists():  # missing where IPv6 is off
        rows = map(str.split, ipv6.read_text(encoding="ascii").splitlines())
        counts |= {name: int(count) for name, count in rows}
    return {name: counts.get(name, 0) for name in ("IpOutNoRoutes", "Ip6OutNoRoutes", "UdpNoPorts", "Udp6NoPorts")}
