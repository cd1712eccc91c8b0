"""The cores, memory and disk that this process may use."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # where Linux shows the limits of a container; elsewhere there is none


def physical_cores() -> int:
    """The physical cores that this process may use, its CPU affinity and cgroup quota considered."""
    from joblib import cpu_count

    return cpu_count(only_physical_cores=True)


def processor() -> tuple[str, list[str]] | None:
    """The processor's name, and its extensions that speed up int4 and bfloat16 arithmetic; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.13 has it
    useful = ("avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_int8", "neon", "dot", "i8mm", "sve")
    return known.get("cpu_name", "unknown"), [name for name in useful if known.get(name)]


def gpu() -> str | None:
    """The GPU that torch sees, by kind and name; empty where it sees none, None without torch."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.accelerator.is_available():
        return ""
    kind = torch.accelerator.current_accelerator().type
    return f"cuda, {torch.cuda.get_device_name()}" if kind == "cuda" else kind


def memory_bandwidth() -> float:
    """Bytes a second that all physical cores together read from memory: the best of five passes, half a second."""
    from concurrent.futures import ThreadPoolExecutor
    from time import perf_counter

    import numpy as np

    cores = physical_cores()
    size = max(2**24, min(2**29, memory()[1] // 4))  # larger than any cache, where there is room
    blocks = np.array_split(np.ones(size // 8, np.int64), cores)
    seconds = []
    with ThreadPoolExecutor(cores) as threads:
        for _ in range(5):
            start = perf_counter()
            list(threads.map(np.bitwise_or.reduce, blocks))  # releases the GIL; bound by memory
            seconds.append(perf_counter() - start)
    return size / min(seconds)


def memory() -> tuple[int, int]:
    """Total and available memory in bytes, within a container's limits (cgroup 2 or 1)."""
    import psutil

    now = psutil.virtual_memory()
    total, free = now.total, now.available
    for folder, limit, used in (
        (CGROUP, "memory.max", "memory.current"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        if (folder / limit).is_file() and (text := (folder / limit).read_text("ascii").strip()).isdecimal():
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            cached = int(stat.get("inactive_file", 0))  # counted as used, but freed on demand
            total = min(total, int(text))
            free = min(free, int(text) - int((folder / used).read_text("ascii")) + cached)
    return total, max(free, 0)


def disk_free(folder: Path) -> int:
    """Free bytes for this user on the disk of `folder`, which need not exist."""
    import shutil

    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free
