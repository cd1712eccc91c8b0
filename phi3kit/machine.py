"""What this computer has to offer the process that asks: cores, memory and disk, within its limits."""

from __future__ import annotations

from pathlib import Path


def physical_cores() -> int:
    """The physical cores that this process may use, its CPU affinity and cgroup quota considered."""
    from joblib import cpu_count

    return cpu_count(only_physical_cores=True)


def memory() -> tuple[int, int]:
    """Bytes of memory in all and still to be had, the limits of a container (cgroup 2 or 1) considered."""
    import psutil

    now = psutil.virtual_memory()
    total, free = now.total, now.available
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory" / "memory.limit_in_bytes", group / "memory" / "memory.usage_in_bytes"),
    ):
        if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
            total = min(total, int(text))
            free = min(free, int(text) - int(used.read_text()))
    return total, max(free, 0)


def disk_free(folder: Path) -> int:
    """Bytes that this user may still write where `folder` is, or will be."""
    import shutil

    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free
