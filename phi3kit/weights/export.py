"""Export a checkpoint to an int4 ONNX folder, with the model builder of onnxruntime-genai, offline."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.system import folders, process, requirements, targets
from phi3kit.system.targets import Target
from phi3kit.weights import store
from phi3kit.weights.layout import onnx_lacks

# int4 in blocks of 32; k_quant_mixed keeps the most sensitive matrices at 8 bits. For a model as small as `tiny` that
# is worth 6 right capitals of 25 over plain rounding (rtn), for a third more disk. On a CPU the arithmetic is in int8,
# on a GPU in float16. DirectML multiplies matrices of 4 bits only.
OPTIONS = {
    Target.CPU: "-p int4 -e cpu --extra_options block_size=32 accuracy_level=4 algo_config=k_quant_mixed",
    Target.CUDA: "-p int4 -e cuda --extra_options block_size=32 algo_config=k_quant_mixed",
    Target.DML: "-p int4 -e dml --extra_options block_size=32 algo_config=k_quant",
}

# What of generation_config.json is copied into genai_config.json; the builder omits some. Callers choose the length.
DEFAULTS = ("do_sample", "repetition_penalty", "no_repeat_ngram_size", "temperature", "top_k", "top_p")
DEFAULTS += ("num_beams", "length_penalty", "diversity_penalty")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def recipe(checkpoint: str, target: Target = Target.CPU) -> dict[str, str]:
    """What an export depends on, for `store.get_or_build`; `checkpoint` names a checkpoint and its version."""
    # transformers only reads the checkpoint, and need not be here. The packages for a GPU export the same.
    tools = dict(zip(targets.PACKAGES[Target.CPU], targets.versions().values(), strict=False))
    other = {} if target is Target.CPU else {"target": target}
    return {"checkpoint": checkpoint, "options": OPTIONS[target], "exporter": "1", **tools, **other}


def export(name: str, checkpoint: Path, folder: Path, target: Target = Target.CPU) -> None:
    """Write the int4 model of `checkpoint` into `folder`, with its tokenizer and its own generation defaults.

    The export for a GPU needs no GPU.

    Measured: 2.4 GB of memory and 14 s for a checkpoint of 0.27 GB; 22.7 GB and ten minutes or more for one of 7.6 GB,
    most of the time on one core. The result has a third of the checkpoint's size, plus the table of embeddings in
    float32 if the output layer has a table of its own.

    Args:
        name: of the model, for the messages.
        checkpoint: its folder.
        folder: an empty folder.
        target: what the model is to run on.

    Raises:
        MissingExtra: a package that the builder imports is not installed.
        InsufficientResources: memory or disk is too small.
        WeightsError: the builder failed; the message has its reason, and its log stays beside `folder` as `export.log`.
    """
    requirements.need_extra(f"Exporting {name} to ONNX", "checkpoint", "export")
    size = folders.weights_size(checkpoint)
    requirements.need_memory(f"Exporting {name} to ONNX", int(1.6e9 + 2.8 * size))
    shape = folders.read_json(checkpoint / "config.json")
    sizes = [shape.get(name) for name in ("vocab_size", "hidden_size")]
    table = 4 * sizes[0] * sizes[1] if all(isinstance(size, int) for size in sizes) else 0
    requirements.need_disk(f"Exporting {name} to ONNX", folder, int(0.35 * size + table), "PHI3KIT_CACHE")
    seconds = 10 + 70e-9 * size if size > 1e9 else 15
    time = f"{seconds / 60:.0f} min" if seconds > 120 else f"{seconds:.0f} s"
    what = f"exporting {name} to int4 ONNX{'' if target is Target.CPU else f' for {target}'}"
    store.say(f"{what}, once: about {time}; Ctrl-C stops it and leaves nothing behind")
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as scratch:
        command = [*process.PYTHON, "-m", "onnxruntime_genai.models.builder", *OPTIONS[target].split(), "-c", scratch]
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
        why = f"stopped with {result.returncode}" if result.returncode else f"made no {missing}"
        memory = " (it was killed: most likely memory ran out)" if result.returncode in (-9, 137) else ""
        reason = f"{why}{memory}: {_reason(result.stdout)}"
        error = WeightsError(f"The ONNX export of {checkpoint} {reason}. Its log is {log}.")
        if not store.is_disk_full(error):
            log.write_text(result.stdout, encoding="utf-8")
        raise error
    log.unlink(missing_ok=True)
    if random := re.search(r"^(\S+) +\| MISSING ", result.stdout, re.MULTILINE):  # so transformers reports them
        raise WeightsError(f"The weights in {checkpoint} lack {random[1]}, which its config.json wants. Copy it again.")
    config = folders.read_json(folder / "genai_config.json")
    config["search"] |= defaults(checkpoint)
    (folder / "genai_config.json").write_text(json.dumps(config, indent=4), encoding="utf-8")
    if target is Target.DML:  # whose newest package does not know the class that transformers 5 writes
        path = folder / "tokenizer_config.json"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'), encoding="utf-8")


def _reason(log: str) -> str:
    """The line of a log that tells of a full disk, else of the last error, else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    full = [line for line in lines if store.is_disk_full(OSError(line))]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (full or errors or lines)[-1].rstrip(".")


def with_provider(published: Path, folder: Path, target: Target) -> None:
    """Write a published ONNX model into `folder`, and name the target's provider in it; only small files are copied."""
    for path in published.iterdir():
        try:
            os.link(path, folder / path.name)
        except OSError:  # another disk, or one without hard links
            shutil.copyfile(path, folder / path.name)
    path = folder / "genai_config.json"
    config = folders.read_json(path)
    config["model"]["decoder"].setdefault("session_options", {})["provider_options"] = [{target: {}}]
    path.unlink()  # not to write into the published file
    path.write_text(json.dumps(config, indent=4), encoding="utf-8")


def defaults(checkpoint: Path) -> dict[str, float]:
    """The defaults of a checkpoint for generation, by their names.

    Raises:
        WeightsError: naming the one that is no number.
    """
    path = checkpoint / "generation_config.json"
    content = folders.read_json(path) if path.is_file() else {}
    found = {name: content[name] for name in DEFAULTS if content.get(name) is not None}
    for name, value in found.items():
        if not isinstance(value, int | float):
            raise WeightsError(f"{path} has {value!r} as `{name}`, where a number is needed. Copy or fetch it again.")
    return found
