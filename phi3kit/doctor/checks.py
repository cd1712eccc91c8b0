"""The checks of `phi3kit doctor`: each yields verdict, what it found, and what to do about it."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from phi3kit import __version__, machine, tracking
from phi3kit.doctor import cached
from phi3kit.weights import store

Found = Iterator[tuple[str, str, str]]

HASHED = 2e9  # bytes of model files that are hashed without being asked to: 1.5 s
ROOM = 1.2e9  # bytes that one more run of the workbook takes
MLFLOW, JUPYTER = 5000, 8888  # the ports that they ask for
NAMED = ("mlflow", "transformers", "torch", "onnxruntime", "onnxruntime-genai")


def python() -> Found:
    """The interpreter and the system beneath it."""
    bits = "64 bit" if sys.maxsize > 2**32 else "32 bit"
    what = f"{platform.python_version()}, {bits}, {sys.prefix}; {platform.platform()}"
    yield ("ok", what, "") if bits == "64 bit" else ("fix", what, "torch needs a 64-bit Python: install one.")


def packages() -> Found:
    """What is installed, against the pins that were tested together."""
    from packaging.requirements import Requirement

    have = {dist.name.lower().replace("_", "-"): dist.version for dist in metadata.distributions() if dist.name}
    named = ", ".join(f"{name} {have.get(name, 'missing')}" for name in NAMED)
    pins = tracking.ROOT / "requirements.txt"
    if not pins.is_file():
        yield "note", f"phi3kit {__version__}, {named}; no checkout here, so no tested pins to compare with", ""
        return
    lines = (line.partition("#")[0].strip() for line in pins.read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum()]
    wanted = [pin for pin in wanted if pin.marker is None or pin.marker.evaluate()]
    other = [
        f"{pin.name} {have.get(pin.name, 'missing')} instead of {pin.specifier}"
        for pin in wanted
        if pin.name not in have or not pin.specifier.contains(have[pin.name], prereleases=True)
    ]
    if other:
        more = f" and {len(other) - 6} more" if len(other) > 6 else ""
        own = Path(sys.prefix) == tracking.ROOT / ".venv"
        install = "python install.py" if os.name == "nt" else "python3 install.py"
        # No path: the report hides the home folder, and quotes would keep a shell from finding it again.
        remedy = install if own else "with this environment active, python -m pip install -r requirements.txt"
        remedy = f"Put the tested versions back, in the repository's folder: {remedy}"
        yield "fix", f"phi3kit {__version__}, {', '.join(other[:6])}{more}", remedy
    else:
        yield "ok", f"phi3kit {__version__}, {named}; all {len(wanted)} as tested", ""


def cpu() -> Found:
    """The processor, as far as this process may use it."""
    import psutil

    name, extensions = machine.processor()
    cores, logical, physical = machine.physical_cores(), psutil.cpu_count(), psutil.cpu_count(logical=False)
    what = f"{name}, {cores} of {physical} physical cores, threads per core: {logical / (physical or logical):g}"
    what += f"; {', '.join(extensions) or 'no vector extensions known'}"
    if threads := os.environ.get("PHI3KIT_THREADS"):
        what += f"; PHI3KIT_THREADS={threads}"
    fast = {"avx_vnni", "avx512_vnni", "amx_int8", "dot", "i8mm"} & {*extensions}
    yield ("ok", what, "") if fast else ("note", f"{what}; without int8 arithmetic four-bit models answer slowly", "")


def memory() -> Found:
    """Memory: how much, and how fast."""
    total, free = machine.memory()
    what = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it free"
    if free < 2e9:
        yield "fix", what, "Close other programs and notebooks: `tiny` itself wants 2 GB."
    else:
        yield "ok", f"{what}, read at {machine.memory_bandwidth() / 1e9:.0f} GB/s", ""


def disk() -> Found:
    """Disk where the kit writes."""
    from huggingface_hub import constants

    places = {"PHI3KIT_CACHE": store.root(), "HF_HOME": Path(constants.HF_HUB_CACHE), "": tracking.ROOT}
    for variable, folder in places.items():
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = machine.disk_free(folder)
        elsewhere = f"name another place with {variable}" if variable else "move the repository"
        if not os.access(there, os.W_OK):
            yield "fix", f"{there} may not be written", f"Make it writable, or {elsewhere}."
        elif free < ROOM:
            remedy = f"Free some (phi3kit clean, phi3kit weights remove --old), or {elsewhere}."
            yield "fix", f"{free / 1e9:.1f} GB free at {folder}, a run takes {ROOM / 1e9:.1f}", remedy
        else:
            yield "ok", f"{free / 1e9:.1f} GB free at {folder}", ""


def models() -> Found:
    """The models that are here, and whether they are whole."""
    items = cached.found()
    used, old = [item for item in items if not item.old], [item for item in items if item.old]
    if not used:
        yield "note", "none here yet", "`phi3kit weights fetch tiny` makes the small one: 93 MB to fetch."
    hashed = sum(item.size for item in used) < HASHED
    for item in used:
        fetch = f'phi3kit weights fetch "{item.name}"'
        if item.lacks and item.from_hub:
            yield "note", f"{item}, lacks {item.lacks}", f"`{fetch}` goes on where it stopped."
        elif wrong := cached.damage(item) if hashed else item.lacks:
            yield "fix", f"{item}, damaged: {wrong}", fetch
        else:
            yield "ok", f"{item}, {'intact' if hashed else 'not hashed: `phi3kit weights verify` does that'}", ""
    if old:
        what = f"{len(old)} folders of older versions or cut-off builds, {sum(item.size for item in old) / 1e9:.1f} GB"
        yield "note", what, "phi3kit weights remove --old"


def store_of_records() -> Found:
    """Where the notebooks record their runs, and whether this MLflow can."""
    uri = tracking.uri()
    scheme, _, rest = uri.partition("://")
    own = "unset MLFLOW_TRACKING_URI for the workbook's own store"
    if scheme == "sqlite":
        file = Path(rest.removeprefix("/"))
        if wrong := tracking.mismatch(file) if file.exists() else None:
            what, _, remedy = wrong.rpartition(": ")
            yield "fix", what, remedy[0].upper() + remedy[1:]
        else:
            yield "ok", f"{uri}, {'as this MLflow makes it' if file.exists() else 'made at the first run'}", ""
    elif scheme in ("http", "https"):
        import httpx

        try:
            status = httpx.get(f"{uri.rstrip('/')}/health", timeout=3).status_code
            wrong = f"{uri} answers {status}" if status != 200 else ""
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            wrong = f"{uri} does not answer ({type(error).__name__})"
        yield ("fix", wrong, f"Start that server or see its log, or {own}.") if wrong else ("ok", f"{uri} answers", "")
    elif scheme == "file" or not rest:
        yield "fix", f"{uri} is a folder, and MLflow writes none any more", f"Name a sqlite:/// address, or {own}."
    else:
        yield "note", f"{uri}, not looked into", ""


def ports() -> Found:
    """The ports that MLflow's pages and JupyterLab ask for."""
    command = f"mlflow ui --port {MLFLOW + 1} --backend-store-uri"
    if tracking.uri() == f"sqlite:///{(tracking.ROOT / 'mlflow.db').absolute().as_posix()}":
        another = f"In the repository's folder: {command} sqlite:///mlflow.db"
    else:
        another = f"{command} with the address in MLFLOW_TRACKING_URI after it"
    remedies = {
        MLFLOW: another,
        JUPYTER: "JupyterLab takes the next free one by itself: use the address that it prints.",
    }
    for port, remedy in remedies.items():
        with socket.socket() as probe:
            probe.settimeout(1)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        yield ("note", f"{port} is taken", remedy) if taken else ("ok", f"{port} is free", "")


def hub() -> Found:
    """Whether the hub answers, unless it is not to be asked."""
    import httpx
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        yield "ok", f"{constants.ENDPOINT} is not asked: HF_HUB_OFFLINE is set", ""
        return
    try:
        status = httpx.head(constants.ENDPOINT, timeout=3).status_code
        yield "ok", f"{constants.ENDPOINT} answers ({status})", ""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        remedy = "What is here already works, and `tiny` needs no hub. For others check the connection and the proxy."
        yield "note", f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})", remedy


def proxies() -> Found:
    """Proxies that the environment or the system names."""
    from urllib.request import getproxies

    named = [f"{kind}={address.rpartition('@')[2]}" for kind, address in sorted(getproxies().items())]
    yield "ok", ", ".join(named) or "none", ""


def telemetry() -> Found:
    """Whether anything reports home."""
    names = {"MLFLOW_DISABLE_TELEMETRY": "MLflow", "ORT_DISABLE_TELEMETRY": "ONNX Runtime"}
    names |= {"HF_HUB_DISABLE_TELEMETRY": "huggingface_hub"}
    on = [n for n in names if os.environ.get(n, "").lower() not in ("1", "true", "yes", "on")]
    if on:
        yield "note", f"on for {', '.join(names[n] for n in on)}", f"Unset {', '.join(on)}: the kit then turns it off."
    else:
        yield "ok", "off", ""


ALL = {
    "Python": python,
    "Packages": packages,
    "CPU": cpu,
    "Memory": memory,
    "Disk": disk,
    "Models": models,
    "Tracking": store_of_records,
    "Ports": ports,
    "Hub": hub,
    "Proxies": proxies,
    "Telemetry": telemetry,
}
