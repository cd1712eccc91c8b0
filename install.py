"""Make `.venv` and install the tested pins into it, once: `python3 install.py`.

Needs nothing but Python 3.11 or newer, on Linux, macOS and Windows. A second call installs nothing unless
`requirements.txt`, `pyproject.toml` or `TORCH` changed. An interrupted installation starts over.

On Linux, PyPI's torch brings several GB of CUDA libraries, so PyTorch's own index of CPU builds is asked first, one
attempt, no retries. `TORCH=cuda` skips that and takes PyPI's. Elsewhere PyPI's torch is the CPU build already.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"
PINS = HERE / "requirements.txt"
DONE = VENV / "phi3kit-installed"  # holds a digest of what the installation was made from
UNDER_WAY = VENV / "phi3kit-installing"  # found at the start: the last one was interrupted
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH = os.environ.get("TORCH", "")


def say(text):
    print(text, flush=True)


def run(*command, **options):
    """Run a command at the repository's root; True when it ended well."""
    return subprocess.run(command, cwd=HERE, check=False, **options).returncode == 0


def answer(code):
    """What a line of Python prints in the environment, or an empty string."""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def digest():
    parts = [sys.version.encode(), TORCH.encode(), PINS.read_bytes(), (HERE / "pyproject.toml").read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def finished():
    """The digest of the last finished installation, or an empty string."""
    if UNDER_WAY.exists() or not PYTHON.exists() or not DONE.exists():
        return ""
    return DONE.read_text(encoding="utf-8")


def make_environment():
    if UNDER_WAY.exists():
        say("The last installation was interrupted: starting over.")
        shutil.rmtree(VENV)
    if PYTHON.exists() and run(PYTHON, "-m", "pip", "--version", stdout=subprocess.DEVNULL):
        return
    say("Making .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
    base = getattr(sys, "_base_executable", None) or sys.executable  # never the interpreter inside .venv itself
    if not run(base, "-m", "venv", "--clear", VENV):
        sys.exit("Python could not make .venv. On Debian and Ubuntu: sudo apt install python3-venv")


def install_torch():
    pin = re.search(r"^torch==(\S+)", PINS.read_text(encoding="utf-8"), re.MULTILINE).group(1)
    have = answer("import importlib.metadata as m; print(m.version('torch'))")
    if have.split("+")[0] == pin and not (TORCH == "cuda" and have.endswith("+cpu")):
        return
    wanted = "torch==" + pin
    pip = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    if TORCH == "cuda":
        run(PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", "torch", stderr=subprocess.DEVNULL)
    elif sys.platform.startswith("linux"):
        say("Installing {}, the CPU build from {}".format(wanted, CPU_INDEX))
        one_attempt = ["--index-url", CPU_INDEX, "--retries", "0", "--timeout", "10", "--no-deps"]
        if run(*pip, *one_attempt, wanted):
            return
        say("That index did not give it: taking what PyPI has, on Linux with several GB of CUDA libraries.")
    say("Installing {} from PyPI".format(wanted))
    if not run(*pip, "--constraint", PINS, wanted):
        sys.exit("torch could not be installed: see pip's message above, then run the same command again.")


def install_rest():
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    have_uv = run(*pip, "--constraint", PINS, "uv")
    fast = [PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", PYTHON]
    # The pins are complete, so that no installer needs to look for anything they do not name.
    for what in (["--no-deps", "-r", PINS], ["--no-deps", "--no-build-isolation", "-e", HERE]):
        if have_uv and run(*fast, *what):
            continue
        say("uv could not do it: going on with pip.")
        if not run(*pip, *what):
            sys.exit("The installation failed: see pip's message above, then run the same command again.")


def main():
    if sys.version_info < (3, 11):
        sys.exit("This needs Python 3.11 or newer; {} is {}.{}.".format(sys.executable, *sys.version_info[:2]))
    if TORCH not in ("", "cuda"):
        sys.exit("TORCH={} is not known: leave it out for the CPU build of torch, or set TORCH=cuda.".format(TORCH))
    now, before, start = digest(), finished(), time.time()
    if before == now:
        return
    make_environment()
    UNDER_WAY.touch()
    try:
        install_torch()
        say("Installing the rest of requirements.txt")
        install_rest()
    except SystemExit:
        if before:  # what was whole stays in use: installers fetch everything before they change anything
            UNDER_WAY.unlink()
        raise
    DONE.write_text(now, encoding="utf-8")
    UNDER_WAY.unlink()
    say(answer("import torch; print(f'torch {torch.__version__} (CUDA: {torch.version.cuda})')"))
    say("Installed in {:.0f} s".format(time.time() - start))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command starts over.")
