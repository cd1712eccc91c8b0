"""The store of built folders, with builders that take no time: built once, whole or not there, checked on use."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from phi3kit.errors import WeightsError
from phi3kit.weights import store

RECIPE = {"version": "1"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_checked", {})
    return tmp_path / "cache"


class Builder:
    """Writes two files, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, folder: Path) -> None:
        self.runs += 1
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_bytes(b"\x00\x01\x02\x03" * 1000)
        (folder / "config.json").write_text("{}")


def child(code: str) -> subprocess.Popen:
    """A process that runs `code` with `store` and `Path` at hand, talking over its standard streams."""
    start = "import sys\nfrom pathlib import Path\nfrom phi3kit.weights import store\n"
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", start + textwrap.dedent(code)], text=True, **streams)


def test_a_second_call_builds_nothing(cache):
    builder = Builder()
    folder = store.built("thing", RECIPE, builder)
    assert store.built("thing", RECIPE, builder) == folder
    assert builder.runs == 1
    assert (folder / "deep" / "weights").stat().st_size == 4000
    assert folder.parent == cache / "thing"


def test_another_recipe_is_another_folder():
    builder = Builder()
    first, second = (store.built("thing", recipe, builder) for recipe in (RECIPE, {"version": "2"}))
    assert first != second
    assert builder.runs == 2
    assert store.built("thing", RECIPE, builder) == first


def test_threads_that_ask_at_once_get_one_build():
    builder, together, folders = Builder(), threading.Barrier(6), []

    def ask() -> None:
        together.wait()
        folders.append(store.built("thing", RECIPE, builder))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builder.runs == 1
    assert len(folders) == 6
    assert len(set(folders)) == 1


def test_processes_that_ask_at_once_get_one_build(cache):
    code = """
        def build(folder):
            print("building", flush=True)
            sys.stdin.readline()
            (folder / "file").write_text("x")
        print(store.built("thing", {"version": "1"}, build), flush=True)
    """
    first = child(code)
    assert first.stdout.readline() == "building\n"
    second = child(code)
    assert second.stderr.readline() == "phi3kit: waiting for another process that builds thing\n"
    first.stdin.write("go on\n")
    results = {process.communicate() for process in (first, second)}
    assert results == {(f"{cache / 'thing' / store.digest(RECIPE)}\n", "")}


# Where the process is when it is killed: inside the builder, when all is written but not sealed, and just before
# and after the one rename that puts the folder into place.
KILLED_AT = {
    "build": "build = stop",
    "seal": "store._seal = stop",
    "before the rename": "Path.rename = stop",
    "after the rename": "Path.rename = lambda old, new, rename=Path.rename: (rename(old, new), stop())",
}


@pytest.mark.parametrize("moment", KILLED_AT)
def test_a_builder_killed_at_any_moment_leaves_nothing_half_made(cache, moment):
    process = child(f"""
        def stop(*_):
            print("here", flush=True)
            sys.stdin.readline()
        def build(folder):
            (folder / "half").write_text("made")
        {KILLED_AT[moment]}
        store.built("thing", {RECIPE}, build)
    """)
    assert process.stdout.readline() == "here\n"
    process.kill()
    process.communicate()

    place = cache / "thing" / store.digest(RECIPE)
    assert place.exists() == (moment == "after the rename")
    builder = Builder()
    folder = store.built("thing", RECIPE, builder)
    assert folder == place
    assert builder.runs == (moment != "after the rename")
    assert store.damage(folder) is None
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([".lock", folder.name])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_unseen(path: Path) -> None:
    stat = path.stat()
    flip(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    store._checked.clear()  # as in a new process


@pytest.mark.parametrize(
    ("name", "harm", "told"),
    [
        ("deep/weights", flip, "weights has changed"),
        ("deep/weights", flip_unseen, "weights has changed"),
        ("deep/weights", lambda path: path.write_bytes(b"short"), "weights has 5 bytes instead of 4000"),
        ("deep/weights", Path.unlink, "weights is missing"),
        (store.MANIFEST, Path.unlink, "manifest.json is missing"),
        (store.MANIFEST, lambda path: path.write_text('{"files": 3}'), "manifest.json cannot be read"),
        (store.MANIFEST, lambda path: path.write_bytes(b"\xff"), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_folder_is_found_and_built_again(capsys, name, harm, told):
    builder = Builder()
    folder = store.built("thing", RECIPE, builder)
    assert store.built("thing", RECIPE, builder) == folder
    harm(folder / name)
    assert store.built("thing", RECIPE, builder) == folder
    assert builder.runs == 2
    assert store.damage(folder) is None
    assert f"{told}) and is built again" in capsys.readouterr().err
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([".lock", folder.name])


def test_hashes_are_taken_once_per_process_and_sizes_every_time(monkeypatch):
    hashed, real = [], store.file_hash
    monkeypatch.setattr(store, "file_hash", lambda path: hashed.append(path.name) or real(path))
    folder = store.built("thing", RECIPE, Builder())
    assert hashed == ["config.json", "weights"]  # when it was sealed
    for _ in range(3):
        assert store.damage(folder) is None
    assert hashed == ["config.json", "weights"] * 2


def test_a_failing_builder_leaves_nothing_and_its_error_goes_through(cache):
    def build(folder: Path) -> None:
        (folder / "half").write_text("made")
        raise WeightsError("no flour")

    with pytest.raises(WeightsError, match="no flour"):
        store.built("thing", RECIPE, build)
    assert [path.name for path in (cache / "thing").iterdir()] == [".lock"]


FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, FULL), "No room is left"),
        (RuntimeError(f"I/O error: {FULL} (os error 28)"), "No room is left"),  # as safetensors says it
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "may not be written"),
    ],
)
def test_a_full_or_closed_disk_says_which_variable_names_another(cache, error, told):
    def build(folder: Path) -> None:
        (folder / "half").write_text("made")
        raise error

    with pytest.raises(WeightsError, match=f"{told}.*PHI3KIT_CACHE|{cache}.*{told}.*PHI3KIT_CACHE"):
        store.built("thing", RECIPE, build)
    assert [path.name for path in (cache / "thing").iterdir()] == [".lock"]


def test_what_a_killed_builder_left_is_swept_also_when_it_turns_up_late(cache):
    early, late = cache / "thing" / "aside-1", cache / "thing" / "aside-2-scratch"
    early.mkdir(parents=True)

    def build(folder: Path) -> None:
        assert not early.exists()
        late.mkdir()  # somebody who was started by the one that was killed, and has not noticed yet
        (folder / "file").write_text("x")

    folder = store.built("thing", RECIPE, build)
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted([".lock", folder.name])


def test_a_sealed_copy_elsewhere_is_checked_and_an_unsealed_folder_is_not(tmp_path):
    copy = Path(shutil.copytree(store.built("thing", RECIPE, Builder()), tmp_path / "copy"))
    store.verify(copy)
    flip_unseen(copy / "deep" / "weights")
    with pytest.raises(WeightsError, match=r"copy is not used.*deep/weights has changed.*remove its manifest\.json"):
        store.verify(copy)
    (copy / store.MANIFEST).unlink()
    store.verify(copy)


def test_hashes_and_sizes_may_be_given_instead_of_a_manifest(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    files = {"file": [store.file_hash(file), 1]}
    assert store.damage(tmp_path, files) is None
    flip_unseen(file)
    assert store.damage(tmp_path, files) == "file has changed"


def test_a_cache_that_is_a_file_is_refused_in_words(cache):
    cache.write_text("not a folder")
    with pytest.raises(WeightsError, match="may not be written"):
        store.built("thing", RECIPE, Builder())


def test_without_the_variable_the_cache_is_the_platforms(monkeypatch):
    monkeypatch.delenv("PHI3KIT_CACHE")
    assert store.root().name in ("phi3kit", "Cache")
    monkeypatch.setenv("PHI3KIT_CACHE", "~/models")
    assert store.root() == Path.home() / "models"
