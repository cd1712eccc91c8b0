"""The store of built folders, with builders that take no time: built once, whole or absent, checked on each use."""

import errno
import importlib
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from phi3kit.errors import WeightsError
from phi3kit.system import folders
from phi3kit.weights import store

RECIPE = {"version": "1"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    """Writes two files, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, folder: Path) -> None:
        self.runs += 1
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_bytes(b"\x00\x01\x02\x03" * 1000)
        (folder / "config.json").write_text("{}")


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def built(builder: Builder) -> Path:
    """A folder that `builder` has built."""
    return store.get_or_build("thing", RECIPE, builder)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def child(code: str) -> subprocess.Popen:
    """A process that runs `code`; the test talks with it over its standard streams."""
    start = (
        "import sys\nfrom pathlib import Path\nfrom phi3kit.system import folders\nfrom phi3kit.weights import store\n"
    )
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", start + textwrap.dedent(code)], text=True, **streams)


def test_a_second_call_builds_nothing(builder, built):
    assert (store.get_or_build("thing", RECIPE, builder), builder.runs) == (built, 1)


def test_a_built_folder_lies_in_the_cache_under_its_name(cache, built):
    assert built == cache / "thing" / folders.digest(RECIPE)


def test_another_recipe_is_another_folder(builder, built):
    assert store.get_or_build("thing", {"version": "2"}, builder) != built


def test_folders_of_several_recipes_stay(builder, built):
    store.get_or_build("thing", {"version": "2"}, builder)
    assert (store.get_or_build("thing", RECIPE, builder), builder.runs) == (built, 2)


def test_threads_that_ask_at_once_get_one_build(builder):
    together, results = threading.Barrier(6), []

    def ask() -> None:
        together.wait()
        results.append(store.get_or_build("thing", RECIPE, builder))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (builder.runs, len(results), len(set(results))) == (1, 6, 1)


def test_processes_that_ask_at_once_get_one_build(cache):
    code = """
        def build(folder):
            print("building", flush=True)
            sys.stdin.readline()
            (folder / "file").write_text("x")
        print(store.get_or_build("thing", {"version": "1"}, build), flush=True)
    """
    first = child(code)
    assert first.stdout.readline() == "building\n"
    second = child(code)
    assert second.stderr.readline() == "phi3kit: waiting for another process that builds thing\n"
    first.stdin.write("go on\n")
    results = {process.communicate() for process in (first, second)}
    assert results == {(f"{cache / 'thing' / folders.digest(RECIPE)}\n", "")}


# Where the process is when it is killed: inside the builder, between building and sealing, and just before and after
# the rename that puts the folder into place.
MOMENTS = {
    "build": "build = stop",
    "seal": "folders.seal = stop",
    "before the rename": "Path.rename = stop",
    "after the rename": "Path.rename = lambda old, new, rename=Path.rename: (rename(old, new), stop())",
}


@pytest.fixture(params=MOMENTS)
def moment(request: pytest.FixtureRequest) -> str:
    """The moment at which a process that builds the folder has been killed."""
    process = child(f"""
        def stop(*_):
            print("here", flush=True)
            sys.stdin.readline()
        def build(folder):
            (folder / "half").write_text("made")
        {MOMENTS[request.param]}
        store.get_or_build("thing", {RECIPE}, build)
    """)
    assert process.stdout.readline() == "here\n"
    process.kill()
    process.communicate()
    return request.param


def test_a_killed_build_leaves_its_folder_absent_or_whole(cache, moment):
    folder = cache / "thing" / folders.digest(RECIPE)
    assert (folder.exists(), folder.exists() and folders.damage(folder) is None) == (moment == "after the rename",) * 2


def test_the_next_call_builds_what_a_kill_prevented(moment, builder):
    folder = store.get_or_build("thing", RECIPE, builder)
    assert (builder.runs, folders.damage(folder)) == (moment != "after the rename", None)


def test_the_next_call_removes_what_a_kill_left(moment, builder):
    folder = store.get_or_build("thing", RECIPE, builder)
    assert names(folder.parent) == {".lock", folder.name}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_unnoticed(path: Path) -> None:
    """Flip a bit, keep the modification time, and forget the hashes of this process."""
    stat = path.stat()
    flip(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    importlib.reload(folders)


@pytest.fixture(
    params=[
        ("deep/weights", flip, "weights has changed"),
        ("deep/weights", flip_unnoticed, "weights has changed"),
        ("deep/weights", lambda path: path.write_bytes(b"short"), "weights has 5 bytes instead of 4000"),
        ("deep/weights", Path.unlink, "weights is missing"),
        (folders.MANIFEST, Path.unlink, "manifest.json is missing"),
        (folders.MANIFEST, lambda path: path.write_text('{"files": 3}'), "manifest.json cannot be read"),
        (folders.MANIFEST, lambda path: path.write_bytes(b"\xff"), "manifest.json cannot be read"),
    ],
    ids=["flip", "unnoticed", "short", "missing", "no manifest", "other manifest", "binary manifest"],
)
def damage(request: pytest.FixtureRequest, built: Path) -> str:
    """The description of the damage that has been done to `built`."""
    name, harm, description = request.param
    harm(built / name)
    return description


def test_a_damaged_folder_is_built_again(builder, built, damage):
    assert (store.get_or_build("thing", RECIPE, builder), builder.runs) == (built, 2)


def test_a_folder_built_again_is_whole(builder, built, damage):
    assert folders.damage(store.get_or_build("thing", RECIPE, builder)) is None


def test_the_damage_is_named(builder, damage, capsys):
    store.get_or_build("thing", RECIPE, builder)
    assert f"{damage}) and is built again" in capsys.readouterr().err


def test_a_damaged_folder_is_removed(builder, built, damage):
    store.get_or_build("thing", RECIPE, builder)
    assert names(built.parent) == {".lock", built.name}


def test_a_process_hashes_a_folder_once(monkeypatch, built):
    hashed, file_hash = [], folders.file_hash
    monkeypatch.setattr(folders, "file_hash", lambda path: hashed.append(path.name) or file_hash(path))
    problems = {folders.damage(built) for _ in range(3)}
    assert (problems, hashed) == ({None}, ["config.json", "weights"])


@pytest.fixture
def failing_builder():
    def build(folder: Path) -> None:
        (folder / "half").write_text("made")
        raise WeightsError("no flour")

    return build


def test_the_error_of_a_builder_is_raised_unchanged(failing_builder):
    with pytest.raises(WeightsError, match="no flour"):
        store.get_or_build("thing", RECIPE, failing_builder)


def test_a_failing_builder_leaves_nothing(cache, failing_builder):
    with pytest.raises(WeightsError):
        store.get_or_build("thing", RECIPE, failing_builder)
    assert names(cache / "thing") == {".lock"}


FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.ENOSPC, FULL), "is full"),
        (RuntimeError(f"I/O error: {FULL} (os error 28)"), "is full"),  # as safetensors reports it
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "may not be written"),
    ],
)
def test_a_full_or_closed_disk_names_folder_and_variable(cache, error, problem):
    def build(folder: Path) -> None:
        raise error

    with pytest.raises(WeightsError, match=f"{cache / 'thing'} {problem}.*PHI3KIT_CACHE"):
        store.get_or_build("thing", RECIPE, build)


def test_leftovers_are_removed_even_if_they_appear_late(cache):
    early, late = cache / "thing" / "aside-1", cache / "thing" / "aside-2-scratch"
    early.mkdir(parents=True)
    states = []

    def build(folder: Path) -> None:
        states.append(early.exists())
        late.mkdir()  # by a process that the killed builder had started and that has not ended yet
        (folder / "file").write_text("x")

    folder = store.get_or_build("thing", RECIPE, build)
    assert (states, names(folder.parent)) == ([False], {".lock", folder.name})


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of a sealed folder, outside the store."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_a_whole_copy_of_a_sealed_folder_is_accepted(copy):
    assert folders.verify(copy) is None


def test_a_damaged_copy_of_a_sealed_folder_is_refused(copy):
    flip_unnoticed(copy / "deep" / "weights")
    with pytest.raises(WeightsError, match=r"copy is not used.*deep/weights has changed.*remove its manifest\.json"):
        folders.verify(copy)


def test_a_folder_without_a_manifest_is_not_checked(copy):
    flip_unnoticed(copy / "deep" / "weights")
    (copy / folders.MANIFEST).unlink()
    assert folders.verify(copy) is None


def test_hashes_and_sizes_may_come_from_elsewhere(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    files = {"file": [folders.file_hash(file), 1]}
    before = folders.damage(tmp_path, files)
    flip_unnoticed(file)
    assert (before, folders.damage(tmp_path, files)) == (None, "file has changed")


def test_a_cache_that_is_a_file_is_refused(cache, builder):
    cache.write_text("not a folder")
    with pytest.raises(WeightsError, match="may not be written"):
        store.get_or_build("thing", RECIPE, builder)


def test_by_default_the_cache_is_the_platforms(monkeypatch):
    monkeypatch.delenv("PHI3KIT_CACHE")
    assert store.root().name in ("phi3kit", "Cache")


def test_the_variable_may_name_the_home_folder(monkeypatch):
    monkeypatch.setenv("PHI3KIT_CACHE", "~/models")
    assert store.root() == Path.home() / "models"
