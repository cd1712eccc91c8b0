"""Run a command without the network, and fail if it tried to use it: `python tests/cut_off.py COMMAND`.

On Linux the command gets a network namespace with nothing but loopback, see `phi3kit.workbook.exercises.network`. The
kernel's counts of calls without a route must be zero at the end; a hook notes which Python process made a call.
Elsewhere the command runs with the network, after a message, or not at all if `CUT_OFF_REQUIRED` is set.

Exit code: the command's own; 1 if the command succeeded but used the network, or did not run.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from phi3kit.workbook.exercises.network import HOOK, NOTES, attempts, enter, refusal

# Before each page, Chromium asks the kernel for a route to this address, sends nothing, and has no setting to stop it.
# In the namespace the address belongs to loopback: the route exists, and a datagram to it is counted.
PROBED = "2001:4860:4860::8888"
SIOCSIFADDR = 0x8916


def give_loopback(address: str) -> None:
    """Give this namespace's loopback one more address, if there is IPv6."""
    import fcntl  # Windows has none

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        request = socket.inet_pton(socket.AF_INET6, address), 128, socket.if_nametoindex("lo")
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16sIi", *request))


def main(command: list[str]) -> int:
    if reason := refusal():
        message = f"The network cannot be cut here ({reason})"
        if os.environ.get("CUT_OFF_REQUIRED"):
            print(f"{message}, and CUT_OFF_REQUIRED forbids to go on.", file=sys.stderr)
            return 1
        print(f"{message}: going on with it.", flush=True)
        return subprocess.run(command, check=False).returncode
    enter()
    give_loopback(PROBED)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command itself
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(HOOK)
        notes = Path(folder, "notes")
        # A proxy on loopback would hide the calls.
        env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH", "")]))
        code = subprocess.run(command, env=env | {NOTES: str(notes)}, check=False).returncode
        if not any(attempts().values()):
            return code
        calls = notes.read_text() if notes.exists() else "No Python process with the hook made it: try strace.\n"
        print(f"Something called out, {attempts()}:\n{calls}", end="", file=sys.stderr)
        return code or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
