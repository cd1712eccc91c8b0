"""From a checkpoint to an int4 ONNX folder for onnxruntime-genai, by its own model builder, run offline."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.weights.folders import onnx_lacks

# int4 in blocks of 32 with int8 arithmetic; k_quant_mixed keeps the most sensitive matrices at 8 bits. For a model as
# small as `tiny` that is worth 6 right capitals of 25 over plain rounding (rtn), for a third more disk.
OPTIONS = "-p int4 -e cpu --extra_options block_size=32 accuracy_level=4 algo_config=k_quant_mixed"

# Length is for the caller to choose; everything else in generation_config.json is a default of the model's own.
NOT_CARRIED = {"max_length", "min_length"}
PROCESSING = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def recipe(checkpoint: str) -> dict[str, str]:
    """What an export depends on, for `store.built`; `checkpoint` says in any words which checkpoint it is."""
    tools = {}
    for name in ("onnxruntime-genai", "onnxruntime", "transformers"):
        with contextlib.suppress(PackageNotFoundError):  # builds for a GPU go by other names
            tools[name] = version(name)
    return {"checkpoint": checkpoint, "options": OPTIONS, "exporter": "1", **tools}


def export(checkpoint: Path, folder: Path) -> None:
    """Write the int4 model of `checkpoint` into `folder`, with its tokenizer and its own generation defaults.

    Memory: about three times the checkpoint's size (22.7 GB were measured for one of 7.6 GB). Time on two cores:
    14 s for 0.27 GB, 112 s for 7.6 GB.

    Raises:
        WeightsError: the builder failed; the message ends with the last lines of its log, which stays beside `folder`
            as `export.log`.
    """
    log = folder.with_name("export.log")
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint.resolve())]
        with log.open("wb") as output:
            done = subprocess.run(
                [*command, "-o", str(folder.resolve()), "-c", scratch, *OPTIONS.split()],
                cwd=scratch,  # `-m` imports from here first, and must meet nobody's own onnx.py
                env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
    if not done.returncode:
        for name in PROCESSING:
            if (checkpoint / name).is_file() and not (folder / name).is_file():
                shutil.copyfile(checkpoint / name, folder / name)
    if done.returncode or (missing := onnx_lacks(folder)):
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        why = f"stopped with {done.returncode}" if done.returncode else f"made no {missing}"
        memory = " It was killed: most likely memory ran out." if done.returncode in (-9, 137) else ""
        raise WeightsError(f"The ONNX export of {checkpoint} {why}.{memory} Its log is {log} and ends:\n{tail}")
    _carry_defaults(checkpoint / "generation_config.json", folder / "genai_config.json")
    log.unlink()


def _carry_defaults(generation_config: Path, genai_config: Path) -> None:
    """Copy into `search` what `generation_config` sets; the builder leaves the repetition penalty behind."""
    if not generation_config.is_file():
        return
    defaults = json.loads(generation_config.read_text(encoding="utf-8"))
    config = json.loads(genai_config.read_text(encoding="utf-8"))
    for name in config["search"].keys() & defaults.keys() - NOT_CARRIED:
        if defaults[name] is not None:
            config["search"][name] = defaults[name]
    genai_config.write_text(json.dumps(config, indent=4), encoding="utf-8")
