"""Ask a stored model as on a computer that has neither the kit nor the models of this one.

`ask` hands a copy of the model to a process of its own, which runs a copy of this module as a program. The program
imports nothing of the kit, and hides the kit and its models from Python. Native code opens files without Python, which
this cannot see. So the copy's tokenizer swaps `.` and `!`: answers without the swap come from other files.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

MARKS = str.maketrans(".!", "!.")  # what a marked copy writes in place of the original's full stops and exclamations


def ask(uri: str, hidden: list[Path], tables: list[list[str]]) -> dict[str, Any]:
    """Ask a marked copy of a stored model where only its own files are.

    Args:
        uri: the model, as MLflow names it.
        hidden: further folders that another computer would not have, beside the kit and the caches of models.
        tables: the questions of each table.

    Returns:
        `loaded`; `answers`, one for each table that was answered, where a value other than a list or a text has become
        a dict of its `type` and `repr`; `opened`, the hidden files; and, after an error, `error`: the names of its
        types, and its message.
    """
    import mlflow
    from huggingface_hub import constants

    import phi3kit
    from phi3kit.system import process
    from phi3kit.weights import store
    from phi3kit.workbook.exercises.supervisor import Limits

    patience = 0.8 * Limits.cell  # so that a slow model is a wrong answer, and not yet a cell that a grader interrupts
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        with mock.patch.object(tempfile, "tempdir", str(folder)):  # for what MLflow downloads from a server
            model = marked(Path(mlflow.artifacts.download_artifacts(uri)), folder / "model")
        hidden = [*hidden, store.root(), Path(constants.HF_HUB_CACHE)]
        request = {"model": str(model), "tables": tables, "hidden": [str(path.resolve()) for path in hidden]}
        request["kit"] = str(Path(phi3kit.__file__).resolve().parent)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        program = shutil.copy(__file__, folder / "program.py")
        variables = dict.fromkeys(("PHI3KIT_CACHE", "HF_HOME", "HF_HUB_CACHE"), str(folder / "empty"))
        variables |= {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}
        command = [*process.PYTHON, str(program), str(folder)]
        with (
            (folder / "log").open("w", encoding="utf-8") as log,
            process.start(command, stdout=log, stderr=log, cwd=folder, env=os.environ | variables) as watcher,
            suppress(subprocess.TimeoutExpired),
        ):
            watcher.wait(patience)
        if (path := folder / "result.json").exists():
            return json.loads(path.read_text(encoding="utf-8"))
        end = (folder / "log").read_text(encoding="utf-8", errors="replace")[-120:]
        message = f"the process ended early, or took longer than {patience:g} s; the end of its log: {end}"
    return {"loaded": False, "opened": [], "error": (["Error"], message)}


def marked(source: Path, target: Path) -> Path:
    """Copy a model's folder; the tokenizers in the copy exchange the full stop and the exclamation mark.

    The answers of the copy tell it from the original. All other files are links, where the system allows it, since a
    model is large.
    """
    shutil.copytree(source, target, copy_function=_link)
    for path in target.rglob("tokenizer.json"):
        tokenizer = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, dict) and {".", "!"} <= vocabulary.keys():
            vocabulary["."], vocabulary["!"] = vocabulary["!"], vocabulary["."]
            path.unlink()  # the link, not the original
            path.write_text(json.dumps(tokenizer), encoding="utf-8")
            path.with_name("manifest.json").unlink(missing_ok=True)
    return target


def _link(source: str, target: str) -> None:
    for link in (os.link, os.symlink):
        try:
            link(os.path.realpath(source), target)
        except OSError:
            continue
        return
    shutil.copy(source, target)


def _hide(kit: Path, folders: list[Path], opened: list[str]) -> None:
    """Refuse to open files of the kit, as where it is not installed, and files in folders, which are noted."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = Path(os.fsdecode(arguments[0])).resolve()
        if path.is_relative_to(kit):
            raise ModuleNotFoundError(f"No module named {kit.name!r}")
        if any(map(path.is_relative_to, folders)):
            opened.append(str(path))
            raise FileNotFoundError(f"{path} is a file of another computer")

    sys.addaudithook(refuse)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if isinstance(value, str) else {"type": type(value).__name__, "repr": repr(value)}


def _main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    result: dict[str, Any] = {"loaded": False, "answers": [], "opened": []}
    import mlflow
    import pandas as pd

    _hide(Path(request["kit"]), list(map(Path, request["hidden"])), result["opened"])
    try:
        model = mlflow.pyfunc.load_model(request["model"])
        result["loaded"] = True
        for questions in request["tables"]:
            result["answers"].append(_plain(model.predict(pd.DataFrame({"question": questions}))))
    except Exception as error:
        while error.__cause__:  # MLflow wraps what a model's own code raises
            error = error.__cause__
        result["error"] = [kind.__name__ for kind in type(error).__mro__], str(error)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
