"""Run a command with the network cut, and fail if anything in it tried to call out: `python tests/cut_off.py COMMAND`.

On Linux the command gets a network namespace with nothing but loopback (see `phi3kit.workbook.network`), whose counts
of what had no way to go must be zero afterwards; a hook in every Python process that inherits `PYTHONPATH` notes who it
was. Elsewhere the command runs as it is, and that is said, unless `CUT_OFF_REQUIRED` is set: then it does not run.

Exit code: the command's own; 1 when it went well and something called out all the same, or it did not run.
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

from phi3kit.workbook.network import HOOK, NOTES, attempts, enter, refused

# Before each page, Chromium asks the kernel whether there is a way to this address, sends nothing, and cannot be told
# not to. In here the address is loopback's own; a datagram to it finds no port, and is counted.
PROBED = "2001:4860:4860::8888"
SIOCSIFADDR = 0x8916


def give_loopback(address: str) -> None:
    """Give this namespace's loopback one more address, where there is IPv6 at all."""
    import fcntl  # Windows has none

    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        request = socket.inet_pton(socket.AF_INET6, address), 128, socket.if_nametoindex("lo")
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16sIi", *request))


def main(command: list[str]) -> int:
    if why_not := refused():
        said = f"The network cannot be cut here ({why_not})"
        if os.environ.get("CUT_OFF_REQUIRED"):
            print(f"{said}, and CUT_OFF_REQUIRED forbids to go on.", file=sys.stderr)
            return 1
        print(f"{said}: going on with it.", flush=True)
        return subprocess.run(command, check=False).returncode
    enter()
    give_loopback(PROBED)
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
