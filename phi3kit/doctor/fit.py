"""Whether a model fits this machine and how fast it answers here: arithmetic from a few measured figures.

A new token needs every weight once: read from memory, then multiplied by some core. So its time has three parts:
bytes / what memory gives, bytes / what the cores multiply, and something for each layer, whatever its size. The
constants were fitted to `tiny` and to random weights in Phi-3-mini's shape, on two cores of an AMD EPYC (Zen 5, with
avx512_vnni and avx512_bf16), and are within a fifth there; a core without those extensions multiplies more slowly.
`phi3kit weights fit NAME --measure` tells how far off they are here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from phi3kit import machine
from phi3kit.doctor import cached
from phi3kit.errors import WeightsError
from phi3kit.weights import store
from phi3kit.weights.catalog import Entry
from phi3kit.weights.folders import checkpoint_lacks, onnx_lacks, weights_size

# By form: bytes of weights that one core multiplies in a second, and seconds for each layer besides.
CORE = {"checkpoint": 31e9, "ONNX": 60e9}
LAYER = {"checkpoint": 300e-6, "ONNX": 25e-6}

PROMPT = "<|user|>\nTell me a long story about the sea.<|end|>\n<|assistant|>\n"


@dataclass(frozen=True)
class Form:
    """What one form of a model takes.

    Attributes:
        form: `checkpoint` or `ONNX`.
        disk: bytes of its files.
        memory: bytes to load it and answer a short chat.
        read: bytes of weights that each new token reads.
        layers: decoder layers.
        here: bytes of its files that are here already.
        place: the folder where the others would go.
    """

    form: str
    disk: int
    memory: int
    read: int
    layers: int
    here: int = 0
    place: Path = Path()

    def tokens_per_second(self, bandwidth: float, cores: int) -> float:
        """The expected speed of an answer, one request at a time after a short prompt.

        Args:
            bandwidth: bytes a second that the cores read from memory together.
            cores: physical cores.
        """
        return 1 / (self.read / bandwidth + self.read / (cores * CORE[self.form]) + self.layers * LAYER[self.form])

    def short_of(self) -> list[str]:
        """What this machine has too little of, in words; what is here already needs no disk."""
        wanted = {
            "disk": (self.disk - self.here, machine.disk_free(self.place)),
            "memory": (self.memory, machine.memory()[1]),
        }
        return [
            f"{kind}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
            for kind, (needed, free) in wanted.items()
            if needed > free
        ]


def forms(entry: Entry) -> list[Form]:
    """What the forms of a model take: both of a catalog entry, of a local folder what it holds and what was made of it.

    Raises:
        WeightsError: nobody knows, for a hub id that the catalog does not list or a folder without a model.
    """
    from huggingface_hub import constants

    items = [item for item in cached.found() if not item.old]
    if entry.layers:
        size = entry.checkpoint_bytes
        both = [
            Form("checkpoint", size, _memory(size), size, entry.layers),
            Form("ONNX", entry.onnx_bytes, entry.memory_bytes, entry.onnx_read_bytes, entry.layers),
        ]
        mine = {item.form: item.size for item in items if item.name == entry.name}
        place = Path(constants.HF_HUB_CACHE) if entry.checkpoint else store.root()
        return [replace(form, here=mine.get(form.form, 0), place=place) for form in both]
    exported = [item.folder for item in items if item.name == str(entry.folder)]
    folders = [entry.folder, *exported] if entry.folder else []
    known = [_checkpoint(folder) for folder in folders if not checkpoint_lacks(folder)]
    known += [_onnx(folder) for folder in folders if not onnx_lacks(folder)]
    if not known:
        raise WeightsError(f"What {entry.name} takes is not known: give a name of the catalog, or a model's folder.")
    return known


def _checkpoint(folder: Path) -> Form:
    layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    size = weights_size(folder)
    return Form("checkpoint", size, _memory(size), size, layers, size, folder)


def _memory(checkpoint: int) -> int:
    return checkpoint + 600_000_000  # torch and transformers themselves


def _onnx(folder: Path) -> Form:
    import onnx

    decoder = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
    graph = onnx.load(folder / decoder["filename"], load_external_data=False).graph
    # A token takes one row of what is only gathered from, and all of what is multiplied.
    multiplied = {name for node in graph.node if not node.op_type.startswith("Gather") for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in multiplied]
    read = sum(int(at.value) for tensor in tensors for at in tensor.external_data if at.key == "length")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return Form("ONNX", size, size * 5 // 4, read, decoder["num_hidden_layers"], size, folder)


def measured(form: str, folder: Path, tokens: int = 48) -> float:
    """Tokens a second that the model in `folder` gives after the first, which comes with the prompt: the best of three.

    Args:
        form: `checkpoint` or `ONNX`.
        folder: as `weights.checkpoint` and `weights.onnx` return it.
        tokens: how long each answer is.
    """
    return max(_onnx_speeds(folder, tokens) if form == "ONNX" else _checkpoint_speeds(folder, tokens))


def _onnx_speeds(folder: Path, tokens: int) -> Iterator[float]:
    from phi3kit.generation import Engine, Options

    engine = Engine(folder)
    for _ in range(3):
        yield engine.generate([PROMPT], Options(max_tokens=tokens))[0].tokens_per_second


def _checkpoint_speeds(folder: Path, tokens: int) -> Iterator[float]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    class Times(list):
        def put(self, _: object) -> None:
            self.append(perf_counter())

        def end(self) -> None:
            pass

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)(PROMPT, return_tensors="pt")
    for _ in range(3):
        times = Times()  # of the prompt, then of each token
        model.generate(**ids, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False, streamer=times)
        yield (len(times) - 2) / (times[-1] - times[1])
