"""No network but loopback, for this process and what it starts: the kernel's own cut on Linux, and a hook in Python.

On Linux a process can move into a network namespace of its own, in which there is loopback and nothing else; an
ordinary user may do that too, where the system allows it. The kernel counts, for that namespace, what had no way to go:
a connection, a datagram, a question to a name server, from whatever process. The hook works on every system, in every
Python that inherits `PYTHONPATH`: it notes who called out, and refuses it where `CUT_OFF_REFUSE` is set.
"""

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
NOTES = "CUT_OFF_NOTES"  # the file in which the hook notes who called out
REFUSE = "CUT_OFF_REFUSE"  # whether it also refuses

# A `sitecustomize.py`, read by any Python however old. Loopback and Unix sockets are no calls out.
HOOK = """
import os, sys

EVENTS = {"socket." + name for name in ("connect", "sendto", "sendmsg", "getaddrinfo")}
EVENTS |= {"socket.gethostbyname", "socket.gethostbyaddr"}
NOTES, REFUSE = os.environ.get("CUT_OFF_NOTES"), os.environ.get("CUT_OFF_REFUSE")

def watch(event, given):
    if event not in EVENTS:
        return
    address = given[1] if hasattr(given[0], "fileno") else given
    if not isinstance(address, tuple) or address[0] in (None, "", b"", "localhost", "::", "::1", "0.0.0.0"):
        return
    if isinstance(address[0], int) or str(address[0]).startswith(("127.", "::ffff:127.")):
        return
    if REFUSE and address[0] == sys.modules["_socket"].gethostname():
        return  # a question about this machine itself
    packages, frame = [], sys._getframe(1)
    while frame:
        packages.append(frame.f_globals.get("__name__", "?").split(".")[0])
        frame = frame.f_back
    who = " < ".join(dict.fromkeys(packages))
    note = "%s%r in process %d, %s, by %s\\n" % (event, address[:2], os.getpid(), sys.argv, who)
    notes = os.open(NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(notes).st_size < 1000000:  # of a loop, the beginning says enough
        os.write(notes, note.encode("utf-8", "replace"))
    os.close(notes)
    if REFUSE:
        raise ConnectionRefusedError("The network is cut here, and only loopback is left: %s%r" % (event, address[:2]))

if hasattr(sys, "addaudithook") and NOTES:
    sys.addaudithook(watch)
"""


def enter() -> None:
    """Move this process, and what it starts, into a network namespace with loopback alone. Linux only.

    Raises:
        OSError: when the system does not allow it; this process may then be of no more use.
    """
    import ctypes
    import fcntl  # Windows has none

    user, group = os.geteuid(), os.getegid()
    own = 0 if user == 0 else CLONE_NEWUSER
    if ctypes.CDLL(None, use_errno=True).unshare(own | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if own:  # stay who we are: permissions mean in there what they mean outside
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def refused() -> str:
    """Why `enter` cannot be used here, tried in a process of its own; empty when it can."""
    if sys.platform != "linux":
        return "this is no Linux"
    script = f"from {__name__} import enter; enter()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"


def attempts() -> dict[str, int]:
    """What this namespace's kernel counted: datagrams and connections that had no route, or nobody to hear them.

    The latter are questions to a name server on loopback, which there is none of in here.
    """
    names, values = (
        [line.split() for line in Path("/proc/self/net/snmp").read_text(encoding="ascii").splitlines()][start::2]
        for start in (0, 1)
    )
    found = {
        f"{name[0].rstrip(':')}{key}": int(value)
        for name, row in zip(names, values, strict=True)
        for key, value in zip(name[1:], row[1:], strict=True)
    }
    if (ipv6 := Path("/proc/self/net/snmp6")).exists():  # missing where IPv6 is off
        lines = ipv6.read_text(encoding="ascii").splitlines()
        found |= {name: int(value) for name, value in map(str.split, lines)}
    return {name: found.get(name, 0) for name in ("IpOutNoRoutes", "Ip6OutNoRoutes", "UdpNoPorts", "Udp6NoPorts")}
