"""From a checkpoint to an int4 ONNX folder for onnxruntime-genai, by its own model builder, run offline."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.weights import child, room, store
from phi3kit.weights.folders import onnx_lacks, weights_size

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


def export(name: str, checkpoint: Path, folder: Path) -> None:
    """Write the int4 model of `checkpoint` into `folder`, with its tokenizer and its own generation defaults.

    What it takes, by measurement: 2.4 GB of memory and 14 s for a checkpoint of 0.27 GB, 22.7 GB and ten minutes
    or more for one of 7.6 GB, most of it on one core. On disk, the result: a third of the checkpoint, and the table of
    embeddings in float32 unless it is the output layer too.

    Args:
        name: of the model, for the line that says what is happening.
        checkpoint: its folder.
        folder: an empty one.

    Raises:
        WeightsError: there is no room for it, or the builder failed; the message ends with the last lines of its log,
            which stays beside `folder` as `export.log`.
    """
    size = weights_size(checkpoint)
    room.need_memory(f"Exporting {name} to ONNX", int(1.6e9 + 2.8 * size))
    shape = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    table = 4 * shape.get("vocab_size", 0) * shape.get("hidden_size", 0)
    room.need_disk(f"Exporting {name} to ONNX", folder, int(0.35 * size + table))
    seconds = 10 + 70e-9 * size if size > 1e9 else 15
    time = f"{seconds / 60:.0f} min" if seconds > 120 else f"{seconds:.0f} s"
    store.say(f"exporting {name} to int4 ONNX, once: about {time}; Ctrl-C stops it and leaves nothing behind")
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as scratch:
        done = child.run(
            *("onnxruntime_genai.models.builder", "-i", str(checkpoint.resolve()), "-o", str(folder.resolve())),
            *("-c", scratch, *OPTIONS.split()),
            scratch=Path(scratch),
            env={"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    if not done.returncode:
        for file in PROCESSING:
            if (checkpoint / file).is_file() and not (folder / file).is_file():
                shutil.copyfile(checkpoint / file, folder / file)
    log = folder.with_name("export.log")
    if done.returncode or (missing := onnx_lacks(folder)):
        tail = "\n".join(done.stdout.splitlines()[-12:])
        why = f"stopped with {done.returncode}" if done.returncode else f"made no {missing}"
        memory = " It was killed: most likely memory ran out." if done.returncode in (-9, 137) else ""
        error = WeightsError(f"The ONNX export of {checkpoint} {why}.{memory} Its log is {log} and ends:\n{tail}")
        if not store.full(error):
            log.write_text(done.stdout, encoding="utf-8")
        raise error
    log.unlink(missing_ok=True)
    _carry_defaults(checkpoint / "generation_config.json", folder / "genai_config.json")


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
