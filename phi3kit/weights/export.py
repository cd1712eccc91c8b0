"""Export a checkpoint to an int4 ONNX folder, with the model builder of onnxruntime-genai, offline."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.system import folders, process, requirements
from phi3kit.weights import store
from phi3kit.weights.layout import onnx_lacks

# int4 in blocks of 32 with int8 arithmetic; k_quant_mixed keeps the most sensitive matrices at 8 bits. For a model as
# small as `tiny` that is worth 6 right capitals of 25 over plain rounding (rtn), for a third more disk.
OPTIONS = "-p int4 -e cpu --extra_options block_size=32 accuracy_level=4 algo_config=k_quant_mixed"

# Callers choose the length; everything else in generation_config.json is a default of the model.
LENGTHS = {"max_length", "min_length"}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def recipe(checkpoint: str) -> dict[str, str]:
    """What an export depends on, for `store.get_or_build`; `checkpoint` names a checkpoint and its version."""
    tools = {}
    for name in ("onnxruntime-genai", "onnxruntime"):  # transformers only reads the checkpoint, and need not be here
        with contextlib.suppress(PackageNotFoundError):  # builds for a GPU have other names
            tools[name] = version(name)
    return {"checkpoint": checkpoint, "options": OPTIONS, "exporter": "1", **tools}


def export(name: str, checkpoint: Path, folder: Path) -> None:
    """Write the int4 model of `checkpoint` into `folder`, with its tokenizer and its own generation defaults.

    Measured: 2.4 GB of memory and 14 s for a checkpoint of 0.27 GB; 22.7 GB and ten minutes or more for one of 7.6 GB,
    most of the time on one core. The result has a third of the checkpoint's size, plus the table of embeddings in
    float32 if the output layer has a table of its own.

    Args:
        name: of the model, for the messages.
        checkpoint: its folder.
        folder: an empty folder.

    Raises:
        MissingExtra: a package that the builder imports is not installed.
        InsufficientResources: memory or disk is too small.
        WeightsError: the builder failed; the message ends with the last lines of its log, which stays beside `folder`
            as `export.log`.
    """
    requirements.need_extra(f"Exporting {name} to ONNX", "checkpoint", "export")
    size = folders.weights_size(checkpoint)
    requirements.need_memory(f"Exporting {name} to ONNX", int(1.6e9 + 2.8 * size))
    shape = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    table = 4 * shape.get("vocab_size", 0) * shape.get("hidden_size", 0)
    requirements.need_disk(f"Exporting {name} to ONNX", folder, int(0.35 * size + table), "PHI3KIT_CACHE")
    seconds = 10 + 70e-9 * size if size > 1e9 else 15
    time = f"{seconds / 60:.0f} min" if seconds > 120 else f"{seconds:.0f} s"
    store.say(f"exporting {name} to int4 ONNX, once: about {time}; Ctrl-C stops it and leaves nothing behind")
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as scratch:
        command = [*process.PYTHON, "-m", "onnxruntime_genai.models.builder", *OPTIONS.split(), "-c", scratch]
        result = process.run(
            [*command, "-i", str(checkpoint.resolve()), "-o", str(folder.resolve())],
            scratch=Path(scratch),
            # The builder writes the commit of a repository around it into the graph: there is to be none.
            env={"HF_HUB_OFFLINE": "1", "GIT_DIR": scratch},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    for file in TOKENIZER:
        if (checkpoint / file).is_file() and not (folder / file).is_file():
            shutil.copyfile(checkpoint / file, folder / file)
    log = folder.with_name("export.log")
    if result.returncode or (missing := onnx_lacks(folder)):
        tail = "\n".join(result.stdout.splitlines()[-12:])
        why = f"stopped with {result.returncode}" if result.returncode else f"made no {missing}"
        memory = " It was killed: most likely memory ran out." if result.returncode in (-9, 137) else ""
        error = WeightsError(f"The ONNX export of {checkpoint} {why}.{memory} Its log is {log} and ends:\n{tail}")
        if not store.is_disk_full(error):
            log.write_text(result.stdout, encoding="utf-8")
        raise error
    log.unlink(missing_ok=True)
    _copy_defaults(checkpoint / "generation_config.json", folder / "genai_config.json")


def _copy_defaults(generation_config: Path, genai_config: Path) -> None:
    """Copy the defaults of `generation_config` into `search`; the builder omits the repetition penalty."""
    if not generation_config.is_file():
        return
    defaults = json.loads(generation_config.read_text(encoding="utf-8"))
    config = json.loads(genai_config.read_text(encoding="utf-8"))
    for name in config["search"].keys() & defaults.keys() - LENGTHS:
        if defaults[name] is not None:
            config["search"][name] = defaults[name]
    genai_config.write_text(json.dumps(config, indent=4), encoding="utf-8")
