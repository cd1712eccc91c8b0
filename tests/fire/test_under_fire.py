"""Weights under fire: killed at random moments, requested by eight processes at once, every file flipped.

`make fire` runs this at night. `tests/integration/test_under_fire.py` has one kill per step and one flip per form.
"""

import importlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from steps import POSIX, Step, build_again, flip, kill

from phi3kit import weights
from phi3kit.errors import WeightsError
from phi3kit.generation import Engine
from phi3kit.system import folders

pytestmark = [pytest.mark.tiny, POSIX]
SEED = 20


def test_eight_processes_that_ask_at_once_get_one_build(tiny):
    tiny.clear()
    processes = [tiny.start() for _ in range(8)]
    paths, messages = zip(*(process.communicate() for process in processes), strict=True)
    assert {process.returncode for process in processes} == {0}, messages
    assert (len(set(paths)), tiny.damaged()) == (1, [])
    assert sum("making tiny" in text for text in messages) == 1
    assert sum("waiting for another process that builds tiny-checkpoint" in text for text in messages) == 7


def kill_repeatedly(step: Step, kills: int, check: Callable[[], None]) -> Path:
    """Kill a step this many times, each time in another part of its duration, and `check` each time; then run it.

    A kill hits the process alone or its whole group. Its moment is drawn at random.
    """
    step.clear()
    step.run()
    step.clear()
    duration, chance = step.seconds, random.Random(f"{SEED} {step.home.name}")
    for number in range(kills):
        for _ in range(20):
            moment, alone = duration * (number + chance.random()) / kills, chance.random() < 0.5
            print(f"seed {SEED}, kill {number + 1} of {kills}: {moment:.2f} s of {duration:.2f} s, alone: {alone}")
            start = time.monotonic()
            process = step.start()
            try:
                process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                assert kill(process, alone) == [], "all descendants end by themselves"
                check()
                break
            duration = time.monotonic() - start  # the step ended first: draw the moments from a shorter time
            step.clear()
        else:
            pytest.fail(f"{step.name} ended 20 times before the kill")
    return step.run()


@pytest.mark.parametrize(("name", "kills"), [("tiny", 4), ("exported", 6)])
def test_a_killed_build_leaves_nothing_unfinished(request, name, kills):
    step = request.getfixturevalue(name)

    def check() -> None:
        assert step.damaged() == []

    folder = kill_repeatedly(step, kills, check)
    assert {path.name for path in folder.parent.iterdir()} == {".lock", folder.name}
    check()


def test_a_killed_download_leaves_nothing_unfinished(fetched, small):
    expected = {path.name: path.read_bytes() for path in small.iterdir()}

    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def check() -> None:
        process = fetched.start(HF_HUB_OFFLINE="1")
        stdout, stderr = process.communicate()
        if process.returncode:
            assert "is not complete" in stderr
        else:
            assert content(Path(stdout.strip())) == expected

    assert content(kill_repeatedly(fetched, 10, check)) == expected


@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
def test_a_flip_in_any_file_is_found_by_the_next_process(copies, form, tmp_path):
    (folder,) = (copies / f"tiny-{form}").iterdir()
    for name in sorted(path.name for path in folder.iterdir()):
        whole = shutil.copytree(folder, tmp_path / "whole")
        flip(folder / name)
        code, stderr = build_again(copies, form)
        assert (code, stderr.endswith("built again\n"), folder.exists()) == (1, True, False), (name, stderr)
        assert name == folders.MANIFEST or f"damaged ({name} has changed)" in stderr
        whole.rename(folder)


@pytest.mark.parametrize("opened", [Engine.open, weights.onnx], ids=["engine", "weights"])
def test_a_flip_in_any_file_of_a_copy_is_found(copies, opened):
    (folder,) = (copies / "tiny-onnx").iterdir()
    copy = folder.rename(copies / "mine")
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        flip(path)
        importlib.reload(folders)  # forgets the hashes, as a new process does
        with pytest.raises(WeightsError, match=r"mine is not used.*(has changed|cannot be read)") as error:
            opened(copy)
        assert path.name in str(error.value)
        path.write_bytes(content)
    opened(copy)
