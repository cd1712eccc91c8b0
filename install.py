"""Make `.venv` and install the tested pins into it, once: `python3 install.py`.

Needs nothing but Python 3.11, 3.12 or 3.13, on any system. A second call installs nothing unless `requirements.txt`,
`pyproject.toml` or `TORCH` changed; another Python, a moved folder or an interrupted installation starts over.
On Linux, PyPI's torch brings several GB of CUDA libraries, so PyTorch's own index of CPU builds is asked first, one
attempt, no retries. `TORCH=cuda` skips that and takes PyPI's. Elsewhere PyPI's torch is the CPU build already.
"""

from __future__ import print_function  # even Python 2.7 has to get as far as the sentence that it is too old

import os
import subprocess
import sys


def fitting_python():
    """The command of a Python on this machine for which the pins have wheels, or an empty string."""
    for minor in (11, 12, 13):
        command = ("py -3.{}" if os.name == "nt" else "python3.{}").format(minor)
        try:
            subprocess.check_output(command.split() + ["-c", "import ensurepip, venv"], stderr=subprocess.STDOUT)
            return command
        except (OSError, subprocess.CalledProcessError):
            pass  # there is none of that name, or one that pyenv or the Microsoft Store only mention
    return ""


def again(python=""):
    """What to type for another try: with make, if make is what called this."""
    if "MAKELEVEL" in os.environ:
        return "make run" + (" PYTHON=" + python if python else "")
    return (python or ("python" if os.name == "nt" else "python3")) + " install.py"


if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    python = fitting_python()
    hint = "" if python else "get one from your system's packages or https://www.python.org/downloads/, then "
    what = "This needs Python 3.11, 3.12 or 3.13, and {} is {}.{}: {}type `{}`."
    sys.exit(what.format(sys.executable, sys.version_info[0], sys.version_info[1], hint, again(python or "python3.11")))

import hashlib
import re
import shutil
import time
from functools import partial
from pathlib import Path
from urllib.request import getproxies

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"
PIP = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
PINS = HERE / "requirements.txt"
DONE = VENV / "phi3kit-installed"  # what the installation was made from; not there while one is under way
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH = os.environ.get("TORCH", "")
NEEDED = 8e9 if TORCH == "cuda" else 2.5e9  # bytes of disk: 1.9 GB stay, the rest is on its way through
# All wheels but torch's have 400 MB, torch's CPU build 190 (on macOS and Windows 120), its build for CUDA 2.7 GB.
DOWNLOAD = "3.1 GB" if TORCH == "cuda" else "0.6 GB"
say = partial(print, flush=True)


def run(command, **options):
    """Run a command at the repository's root; True when it ended well."""
    return subprocess.run(command, cwd=HERE, check=False, **options).returncode == 0


def errors_of(command):
    """Run an installer; what it wrote to stderr if it failed, else an empty string. Its progress is shown."""
    done = subprocess.run(command, cwd=HERE, stderr=subprocess.PIPE, check=False)
    return done.stderr.decode("utf-8", "replace") + "\n" if done.returncode else ""


def cause(errors):
    """Why the network let an installer fail, and what to do about it; an empty string for any other cause."""
    proxy = re.sub(r".*@|\w+://|/.*", "", getproxies().get("https", ""))  # its host and port, without a password
    if "ProxyError" in errors or (proxy and re.search("connection broken|check proxy URL", errors)):
        return "pip cannot get through the proxy {}: check HTTPS_PROXY (http://...)".format(proxy or "it is told of")
    if "certificate" in errors:
        return "pip does not trust the package index's certificate: name your network's own with PIP_CERT"
    if "connection broken" in errors:
        return "pip reaches no package index: check the network, or set HTTPS_PROXY if yours has a proxy"
    if re.search("IncompleteRead|[Rr]ead timed out|ConnectionReset|Connection aborted|Wheel .* is invalid", errors):
        return "the download broke off: check the network"
    return ""


def give_up(what, errors):
    """End with one sentence: the cause, or else the last words of the installer."""
    words = ([line.strip() for line in errors.splitlines() if line.strip()] or ["without a message"])[-1]
    if "o matching distribution" in errors or "ResolutionImpossible" in errors:
        words = "the package index does not have it; `pip config list` shows which one is asked"
    reason = cause(errors) or "{} could not be installed: {}".format(what, re.sub("^(?i:error): |[.]$", "", words))
    sys.exit("{}, then type `{}`.".format(reason, again()))


def answer(code):
    """What a line of Python prints in the environment, or an empty string."""
    return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def recipe():
    """What an installation is made from: its Python and its place, then all else."""
    parts = [TORCH.encode(), PINS.read_bytes(), (HERE / "pyproject.toml").read_bytes()]
    home = "Python {}.{} in {}".format(sys.version_info[0], sys.version_info[1], HERE)
    return [home, hashlib.sha256(b"\0".join(parts)).hexdigest()]


def wait_for_others():
    """One installation at a time in this folder: a second window waits here until the first is done."""
    try:
        import fcntl
    except ImportError:  # Windows does not let anybody remove files that are in use
        return None
    file = PINS.open("r+" if os.access(str(PINS), os.W_OK) else "r", encoding="utf-8")  # NFS locks what may be written
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("Another window is installing here: waiting for it. Ctrl-C ends the wait.")
        fcntl.flock(file, fcntl.LOCK_EX)
    return file  # held for as long as it is open


def make_environment():
    try:
        import ensurepip, venv  # noqa: E401, F401, I001
    except ImportError:
        what = "This Python has no venv: on Debian and Ubuntu type `sudo apt install python{}.{}-venv`, elsewhere take "
        what += "Python from https://www.python.org/downloads/, then type `{}`."
        sys.exit(what.format(sys.version_info[0], sys.version_info[1], again()))
    free = shutil.disk_usage(HERE).free + sum(file.lstat().st_size for file in VENV.rglob("*"))
    if free < NEEDED and not os.environ.get("PHI3KIT_FORCE"):
        what = "The installation needs about {:.1f} GB of disk, and {:.1f} GB are free at {}: free some, move this "
        what += "folder to a larger disk, or set PHI3KIT_FORCE=1 if you know better, then type `{}`."
        sys.exit(what.format(NEEDED / 1e9, free / 1e9, HERE, again()))
    say("Making .venv with Python {}.{}.{}".format(*sys.version_info[:3]))
    base = getattr(sys, "_base_executable", None) or sys.executable  # never the interpreter inside .venv itself
    if not run([base, "-m", "venv", "--clear", VENV]):
        sys.exit("Python could not make .venv: see its message above, then type `{}`.".format(again()))


def install_uv():
    """Install uv, the fast installer. It is the first thing fetched, and so tells whether anything can be."""
    pin = re.search(r"^uv==\S+", PINS.read_text(encoding="utf-8"), re.MULTILINE).group()
    errors = errors_of(PIP + ["--quiet", "--no-deps", "--retries", "1", "--timeout", "15", pin])
    if cause(errors):
        give_up("uv", errors)
    return not errors


def install_torch():
    requirement = re.search(r"^torch==\S+", PINS.read_text(encoding="utf-8"), re.MULTILINE).group()
    have = answer("import importlib.metadata as m; print(m.version('torch'))")
    if "torch==" + have.split("+")[0] == requirement and not (TORCH == "cuda" and have.endswith("+cpu")):
        return
    if TORCH == "cuda":
        run([PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", "torch"], stderr=subprocess.DEVNULL)
    elif sys.platform.startswith("linux"):
        say("Installing {}, 190 MB, the CPU build from {}".format(requirement, CPU_INDEX))
        command = PIP + ["--index-url", CPU_INDEX, "--retries", "0", "--timeout", "10", "--no-deps", requirement]
        if not errors_of(command):
            return
        say("That index did not give it: taking what PyPI has, on Linux with 2.5 GB of CUDA libraries.")
    say("Installing {} from PyPI".format(requirement))
    errors = errors_of(PIP + ["--constraint", PINS, requirement])
    if errors:
        give_up(requirement, errors)


def install_rest(have_uv):
    # uv leaves bytecode out by default: every process that may not write it would then compile MLflow anew, 6 seconds.
    fast = [PYTHON, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", PYTHON]
    # The pins are complete, so that no installer needs to look for anything they do not name.
    for what in (["--no-deps", "-r", PINS], ["--no-deps", "--no-build-isolation", "-e", HERE]):
        if have_uv and not errors_of(fast + what):
            continue
        say("uv could not do it: going on with pip.")
        errors = errors_of(PIP + ["--quiet"] + what)
        if errors:
            give_up("requirements.txt" if "-r" in what else "phi3kit", errors)


def install():
    now, start = recipe(), time.time()
    before = DONE.read_text(encoding="utf-8").splitlines() if PYTHON.exists() and DONE.exists() else []
    if before == now:
        return
    say("This downloads about {} and takes two to five minutes on a good line.".format(DOWNLOAD))
    say("Ctrl-C ends it, and the same command starts over.")
    if before[:1] != now[:1]:
        if VENV.exists():
            say(".venv was {}: it is made again.".format("for " + before[0] if before else "not finished here"))
        make_environment()
        before = []
    DONE.unlink(missing_ok=True)
    try:
        have_uv = install_uv()
        install_torch()
        say("Installing the rest of requirements.txt, some 400 MB to fetch, a minute or two without output")
        install_rest(have_uv)
    except SystemExit:
        if before:  # what was whole stays in use: installers fetch everything before they change anything
            DONE.write_text("\n".join(before), encoding="utf-8")
        raise
    DONE.write_text("\n".join(now), encoding="utf-8")
    torch = answer("import torch; print(f'torch {torch.__version__} (CUDA: {torch.version.cuda})')")
    say("Installed in {:.0f} s, with {}".format(time.time() - start, torch))
    if "MAKELEVEL" not in os.environ:
        say("Next: {} run".format(Path(".venv", PYTHON.parent.name, "phi3kit")))


def main():
    if TORCH not in ("", "cuda"):
        sys.exit("TORCH={} is not known: leave it out for the CPU build of torch, or set TORCH=cuda.".format(TORCH))
    if not os.access(str(HERE), os.W_OK):
        sys.exit("{} may not be written: copy this folder to a place of your own, and go on there.".format(HERE))
    _lock = wait_for_others()
    install()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("\nInterrupted, and nothing needs repair: the same command starts over.")
        sys.exit(130)
