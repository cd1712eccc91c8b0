"""Run one command in a bad place: without network, or on a disk that is small or read-only. Linux, with unshare.

subprocess.run([*jail("mount -t tmpfs -o size=9m none /tmp"), "df", "/tmp"], check=True)
"""

import shutil
import subprocess

import pytest


def jail(*commands: str, network: bool = False) -> list[str]:
    """The beginning of a command line: the rest of it runs after `commands`, with their mounts and only loopback."""
    script = "\n".join(["set -e", *([] if network else ["ip link set lo up || true"]), *commands, 'exec "$@"'])
    return ["unshare", "-rm", *([] if network else ["-n"]), "sh", "-c", script, "jail"]


def read_only(folder: object) -> str:
    """The command that makes a folder read-only, for root too."""
    return f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"


def _possible() -> bool:
    command = [*jail("mount -t tmpfs none /mnt"), "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


needs_jail = pytest.mark.skipif(not _possible(), reason="needs Linux's unshare, and the right to use it")
