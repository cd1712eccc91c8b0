"""Bad places to be in, made for one command: no network, a disk that is small or may only be read. Linux, with unshare.

subprocess.run([*jail("mount -t tmpfs -o size=9m none /tmp"), "df", "/tmp"], check=True)
"""

import shutil
import subprocess

import pytest


def jail(*commands: str, network: bool = False) -> list[str]:
    """The beginning of a command line: what follows it sees the mounts that `commands` make, and only loopback."""
    script = "\n".join(["set -e", *([] if network else ["ip link set lo up || true"]), *commands, 'exec "$@"'])
    return ["unshare", "-rm", *([] if network else ["-n"]), "sh", "-c", script, "jail"]


def read_only(folder: object) -> str:
    """What makes a folder one that may only be read, for root as well."""
    return f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"


def _possible() -> bool:
    command = [*jail("mount -t tmpfs none /mnt"), "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


needs_jail = pytest.mark.skipif(not _possible(), reason="needs Linux's unshare, and leave to use it")
