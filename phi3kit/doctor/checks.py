"""The checks of `phi3kit doctor`: each yields a verdict, the state that it describes, and a remedy."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from phi3kit import __version__, tracking
from phi3kit.errors import InvalidSetting
from phi3kit.generation.model import THREADS, default_threads
from phi3kit.system import machine, requirements, targets
from phi3kit.weights import cached, store

Findings = Iterator[tuple[str, str, str]]

HASHED = 2e9  # bytes of model files that the doctor hashes: 1.5 s; `phi3kit weights verify` hashes more
RUN_DISK = 1.3e9  # bytes that one more run of the workbook takes
MLFLOW_PORT, JUPYTER_PORT = 5000, 8888  # their defaults
NAMED = ("mlflow", "transformers", "torch", "onnxruntime", "onnxruntime-genai")


def python() -> Findings:
    """The interpreter and the system beneath it."""
    bits = "64 bit" if sys.maxsize > 2**32 else "32 bit"
    what = f"{platform.python_version()}, {bits}, {sys.prefix}; {platform.platform()}"
    yield ("ok", what, "") if bits == "64 bit" else ("fix", what, "torch needs a 64-bit Python: install one.")


def packages() -> Findings:
    """The installed packages, against the pins that were tested together."""
    from packaging.requirements import Requirement

    installed = {dist.name.lower().replace("_", "-"): dist.version for dist in metadata.distributions() if dist.name}
    # Packages for a GPU take the place of those for a CPU, and have versions of their own.
    pairs = zip(targets.PACKAGES[targets.Target.CPU], targets.versions().items(), strict=False)
    replaced = {name: f"{version} ({other})" for name, (other, version) in pairs if name != other}
    installed |= replaced
    named = ", ".join(f"{name} {installed.get(name, 'missing')}" for name in NAMED)
    is_workbook_environment = Path(sys.prefix) == tracking.ROOT / ".venv"  # made by install.py, with all extras
    extras = {} if is_workbook_environment else requirements.EXTRAS
    absent = [name for name, modules in extras.items() if not all(map(util.find_spec, modules))]
    if absent:
        yield "note", f"without the extras {', '.join(absent)}", f"If wanted: pip install 'phi3kit[{','.join(absent)}]'"
    pins = tracking.ROOT / "requirements.txt"
    if not pins.is_file():
        yield "note", f"phi3kit {__version__}, {named}; no checkout here, so no tested pins to compare with", ""
        return
    lines = (line.partition("#")[0].strip() for line in pins.read_text(encoding="utf-8").splitlines())
    pinned = [Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum()]
    pinned = [pin for pin in pinned if not pin.marker or pin.marker.evaluate()]
    pinned = [pin for pin in pinned if pin.name not in replaced and (pin.name in installed or not absent)]
    different = [
        f"{pin.name} {installed.get(pin.name, 'missing')} instead of {pin.specifier}"
        for pin in pinned
        if pin.name not in installed or not pin.specifier.contains(installed[pin.name], prereleases=True)
    ]
    if different:
        more = f" and {len(different) - 6} more" if len(different) > 6 else ""
        install = "python install.py" if os.name == "nt" else "python3 install.py"
        # Without the path: the report hides the home folder, and in quotes a shell does not expand `~`.
        pip = "with this environment active, python -m pip install -r requirements.txt"
        remedy = install if is_workbook_environment else pip
        remedy = f"Put the tested versions back, in the repository's folder: {remedy}"
        yield "fix", f"phi3kit {__version__}, {', '.join(different[:6])}{more}", remedy
    else:
        yield "ok", f"phi3kit {__version__}, {named}; all {len(pinned)} as tested", ""


def cpu() -> Findings:
    """The processor, as far as this process may use it."""
    import psutil

    cores, logical, physical = machine.physical_cores(), psutil.cpu_count(), psutil.cpu_count(logical=False)
    what = f"{cores} of {physical} physical cores, threads per core: {logical / (physical or logical):g}"
    if threads := os.environ.get(THREADS):
        what += f"; {THREADS}={threads}"
    try:
        default_threads()
    except InvalidSetting as error:
        yield "fix", f"{THREADS}={threads} cannot be used", f"Set it to {error.allowed}."
    if (processor := machine.processor()) is None:
        yield "ok", f"{what}; its name and extensions are unknown without torch", ""
        return
    name, extensions = processor
    what = f"{name}, {what}; {', '.join(extensions) or 'no vector extensions known'}"
    fast = {"avx_vnni", "avx512_vnni", "amx_int8", "dot", "i8mm"} & {*extensions}
    yield ("ok", what, "") if fast else ("note", f"{what}; without int8 arithmetic four-bit models answer slowly", "")


def accelerators() -> Findings:
    """What there is besides the processor: execution providers in the packages of ONNX Runtime, and torch's GPU."""
    import onnxruntime

    present, used = targets.installed(), " and ".join(targets.versions())
    providers, cuda = onnxruntime.get_available_providers(), targets.PROVIDERS[targets.Target.CUDA]
    if len(present) > 2:
        remedy = f"Only one of each may be there; for the CPU: {targets.installation(targets.Target.CPU)}"
        yield "fix", f"{', '.join(present)} overwrite each other's files", remedy
    else:
        yield "ok", f"{used} have {', '.join(name.removesuffix('ExecutionProvider') for name in providers)}", ""
    gpu = machine.gpu()
    if gpu and gpu.startswith("cuda") and cuda not in providers:
        remedy = f"For ONNX models to use it: {targets.installation(targets.Target.CUDA)}. See docs/targets.md."
        yield "note", f"torch sees {gpu}, and {used} do not", remedy
    else:
        yield "ok", f"torch sees {gpu or 'no GPU'}" if gpu is not None else "no torch to look for a GPU", ""


def memory() -> Findings:
    """The amount of memory, and its speed."""
    total, free = machine.memory()
    what = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it free"
    if free < 2e9:
        yield "fix", what, "Close other programs and notebooks: `tiny` itself wants 2 GB."
    else:
        yield "ok", f"{what}, read at {machine.memory_bandwidth() / 1e9:.0f} GB/s", ""


def disk() -> Findings:
    """The disks to which the kit writes."""
    from huggingface_hub import constants

    targets = {"PHI3KIT_CACHE": store.root(), "HF_HOME": Path(constants.HF_HUB_CACHE), "": tracking.ROOT}
    for variable, folder in targets.items():
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = machine.disk_free(folder)
        alternative = f"name another place with {variable}" if variable else "move the repository"
        if not os.access(existing, os.W_OK):
            yield "fix", f"{existing} may not be written", f"Make it writable, or {alternative}."
        elif free < RUN_DISK:
            remedy = f"Free some (phi3kit clean, phi3kit weights remove --old), or {alternative}."
            yield "fix", f"{free / 1e9:.1f} GB free at {folder}, a run takes {RUN_DISK / 1e9:.1f}", remedy
        else:
            yield "ok", f"{free / 1e9:.1f} GB free at {folder}", ""


def models() -> Findings:
    """The model files on this machine, and whether they are whole."""
    items = cached.list_cached()
    used, obsolete = [item for item in items if not item.obsolete], [item for item in items if item.obsolete]
    if not used:
        yield "note", "none here yet", "`phi3kit weights fetch tiny` makes the small one: 93 MB to fetch."
    hashed = sum(item.size for item in used) < HASHED
    for item in used:
        if item.lacks and item.from_hub:
            yield "note", f"{item}, lacks {item.lacks}", f"`{item.fetch}` goes on where it stopped."
        elif damage := cached.damage(item) if hashed else item.lacks:
            yield "fix", f"{item}, damaged: {damage}", item.fetch
        else:
            yield "ok", f"{item}, {'intact' if hashed else 'not hashed: `phi3kit weights verify` does that'}", ""
    if obsolete:
        what = f"{len(obsolete)} folders that are no longer used, {sum(item.size for item in obsolete) / 1e9:.1f} GB"
        yield "note", what, "phi3kit weights remove --old"


def tracking_store() -> Findings:
    """The store to which the notebooks log their runs, and whether this MLflow can use it."""
    uri = tracking.uri()
    try:
        tracking.verify(uri)
    except tracking.UnusableStore as error:
        what, _, remedy = str(error).rpartition(": ")
        yield "fix", what, remedy[0].upper() + remedy[1:]
        return
    if file := tracking.sqlite_file(uri):
        yield "ok", f"{uri}, {'as this MLflow makes it' if file.exists() else 'made at the first run'}", ""
    elif uri.lower().startswith("http"):
        import httpx

        try:
            status = httpx.get(f"{uri.rstrip('/')}/health", timeout=3).status_code
            problem = f"{uri} answers {status}" if status != 200 else ""
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = f"{uri} does not answer ({type(error).__name__})"
        remedy = "Start that server or see its log, or unset MLFLOW_TRACKING_URI for the workbook's own store."
        yield ("fix", problem, remedy) if problem else ("ok", f"{uri} answers", "")
    else:
        yield "note", f"{uri}, not examined", ""


def ports() -> Findings:
    """The default ports of MLflow's pages and of JupyterLab."""
    command = f"mlflow ui --port {MLFLOW_PORT + 1} --backend-store-uri"
    default = tracking.sqlite_file(tracking.uri()) == tracking.ROOT.absolute() / "mlflow.db"
    here = f"In the repository's folder: {command} sqlite:///mlflow.db"
    remedies = {
        MLFLOW_PORT: here if default else f"{command} with the address in MLFLOW_TRACKING_URI after it",
        JUPYTER_PORT: "JupyterLab takes the next free one by itself: use the address that it prints.",
    }
    for port, remedy in remedies.items():
        with socket.socket() as probe:
            probe.settimeout(1)
            used = probe.connect_ex(("127.0.0.1", port)) == 0
        yield ("note", f"{port} is in use", remedy) if used else ("ok", f"{port} is free", "")


def hub() -> Findings:
    """Whether the model hub answers; in offline mode, no request is sent."""
    import httpx
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        yield "ok", f"{constants.ENDPOINT} is not asked: HF_HUB_OFFLINE is set", ""
        return
    try:
        status = httpx.head(constants.ENDPOINT, timeout=3).status_code
        yield "ok", f"{constants.ENDPOINT} answers ({status})", ""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        remedy = "Cached files work, and `tiny` needs no hub. For other models check the connection and the proxy."
        yield "note", f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})", remedy


def proxies() -> Findings:
    """The proxies that the environment or the system sets."""
    from urllib.request import getproxies

    named = [f"{kind}={address.rpartition('@')[2]}" for kind, address in sorted(getproxies().items())]
    yield "ok", ", ".join(named) or "none", ""


def telemetry() -> Findings:
    """Whether a library sends telemetry."""
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
    "Accelerators": accelerators,
    "Memory": memory,
    "Disk": disk,
    "Models": models,
    "Tracking": tracking_store,
    "Ports": ports,
    "Hub": hub,
    "Proxies": proxies,
    "Telemetry": telemetry,
}
