"""Run a command with the network cut, and fail if anything in it tried to call out: `python tests/cut_off.py COMMAND`.

On Linux the command gets a network namespace of its own, in which there is loopback and nothing else; an ordinary
user may do that too, where the system allows it. The kernel counts, for that namespace, what had no way to go: a
connection, a datagram, a question to a name server, from whatever process. Afterwards those counts must be zero. A hook
in every Python process that inherits `PYTHONPATH` notes who it was. Elsewhere the command runs as it is, and that is
said, unless `CUT_OFF_REQUIRED` is set: then it does not run.

Exit code: the command's own; 1 when it went well and something called out all the same, or it did not run.
"""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
NOTES = "CUT_OFF_NOTES"  # the file in which the hook notes who called out

# Read by any Python that the command starts, however old. Loopback and Unix sockets are no calls out.
HOOK = """
import os, sys

EVENTS = {"socket." + name for name in ("connect", "sendto", "getaddrinfo", "gethostbyname", "gethostbyaddr")}

def watch(event, given):
    if event not in EVENTS:
        return
    address = given[1] if hasattr(given[0], "fileno") else given
    if not isinstance(address, tuple) or address[0] in (None, "", b"", "localhost", "::", "::1", "0.0.0.0"):
        return
    if isinstance(address[0], int) or str(address[0]).startswith(("127.", "::ffff:127.")):
        return
    packages, frame = [], sys._getframe(1)
    while frame:
        packages.append(frame.f_globals.get("__name__", "?").split(".")[0])
        frame = frame.f_back
    who = " < ".join(dict.fromkeys(packages))
    note = "%s%r in process %d, %s, by %s\\n" % (event, address[:2], os.getpid(), sys.argv, who)
    notes = os.open(os.environ["CUT_OFF_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(notes, note.encode())
    os.close(notes)

if hasattr(sys, "addaudithook") and "CUT_OFF_NOTES" in os.environ:
    sys.addaudithook(watch)
"""


def enter() -> None:
    """Move this process, and what it starts, into a network namespace with loopback alone.

    Raises:
        OSError: when the system does not allow it; this process may then be of no more use.
    """
    import fcntl  # Windows has none

    user, group = os.geteuid(), os.getegid()
    own = 0 if user == 0 else CLONE_NEWUSER
    if ctypes.CDLL(None, use_errno=True).unshare(own | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if own:  # stay who we are: permissions mean in there what they mean outside
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def refused() -> str:
    """Why the network cannot be cut here, tried in a process of its own; empty when it can."""
    script = "import sys, cut_off; cut_off.enter()"
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2]


def attempts() -> dict[str, int]:
    """What this namespace's kernel counted: datagrams and connections that had no route, or nobody to hear them.

    The latter are questions to a name server on loopback, which there is none of in here.
    """
    names, values = (
        [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()][start::2] for start in (0, 1)
    )
    found = {
        f"{name[0].rstrip(':')}{key}": int(value)
        for name, row in zip(names, values, strict=True)
        for key, value in zip(name[1:], row[1:], strict=True)
    }
    found |= {name: int(value) for name, value in map(str.split, Path("/proc/self/net/snmp6").read_text().splitlines())}
    return {name: found[name] for name in ("IpOutNoRoutes", "Ip6OutNoRoutes", "UdpNoPorts", "Udp6NoPorts")}


def main(command: list[str]) -> int:
    why_not = "this is no Linux" if sys.platform != "linux" else refused()
    if why_not and os.environ.get("CUT_OFF_REQUIRED"):
        print(f"The network cannot be cut here ({why_not}), and CUT_OFF_REQUIRED forbids to go on.", file=sys.stderr)
        return 1
    if why_not:
        print(f"The network cannot be cut here ({why_not}): going on with it.", flush=True)
        return subprocess.run(command, check=False).returncode
    enter()
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the command's to obey
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(HOOK)
        notes = Path(folder, "notes")
        # A proxy on loopback would hide what is asked of it.
        env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
        code = subprocess.run(command, env=env | {NOTES: str(notes)}, check=False).returncode
        if not any(attempts().values()):
            return code
        told = notes.read_text() if notes.exists() else "No Python process that could be watched: try strace.\n"
        print(f"Something called out, {attempts()}:\n{told}", end="", file=sys.stderr)
        return code or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
