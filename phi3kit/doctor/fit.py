"""Whether a model fits this machine and how fast it answers here: arithmetic with a few measured constants.

Each new token needs every weight once: it is read from memory, then multiplied by some core. So its time has three
parts: bytes / memory bandwidth, bytes / the cores' speed, and a constant for each layer. The constants were fitted to
`tiny` and to random weights in Phi-3-mini's shape, on two cores of an AMD EPYC (Zen 5, with avx512_vnni and
avx512_bf16). There the estimates are within a fifth; a core without those extensions multiplies more slowly.
`phi3kit weights fit NAME --measure` shows the error on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from phi3kit import tracking
from phi3kit.errors import WeightsError
from phi3kit.system import folders, machine, requirements
from phi3kit.weights import cached, check, store
from phi3kit.weights.catalog import LIBRARIES, Entry, Form
from phi3kit.weights.layout import checkpoint_lacks, onnx_lacks

CORE = {Form.CHECKPOINT: 31e9, Form.ONNX: 60e9}  # bytes of weights that one core multiplies in a second
LAYER = {Form.CHECKPOINT: 300e-6, Form.ONNX: 25e-6}  # additional seconds for each layer

# How many pipelines and how many ONNX models each notebook logs.
LOGGED = {"TransformerPipeline": (2, 0), "CustomPythonWrapper": (1, 4)}

PROMPT = "<|user|>\nTell me a long story about the sea.<|end|>\n<|assistant|>\n"


@dataclass(frozen=True)
class Needs:
    """What one form of a model needs.

    Attributes:
        form: checkpoint or ONNX.
        disk: bytes of its files.
        memory: bytes to load it and answer a short chat.
        read: bytes of weights that each new token reads.
        layers: decoder layers.
        cached: bytes of its files that this machine has already.
        folder: where the remaining files would be written.
        notebook_disk: bytes that the notebook about this form writes besides; 0 where that is not known.
        notebook_memory: bytes of memory that the notebook takes; 0 where that is not known.
    """

    form: Form
    disk: int
    memory: int
    read: int
    layers: int
    cached: int = 0
    folder: Path = Path()
    notebook_disk: int = 0
    notebook_memory: int = 0

    def tokens_per_second(self, bandwidth: float, cores: int) -> float:
        """The expected speed of an answer, for one request at a time after a short prompt.

        Args:
            bandwidth: bytes a second that the cores read from memory together.
            cores: physical cores.
        """
        return 1 / (self.read / bandwidth + self.read / (cores * CORE[self.form]) + self.layers * LAYER[self.form])

    def shortages(self) -> tuple[list[str], list[str]]:
        """What this machine has too little of, in words: for the model alone, and for its notebook.

        Cached files need no more disk.
        """
        missing, memory = self.disk - self.cached, machine.memory()[1]
        alone = {"disk": (missing, machine.disk_free(self.folder)), "memory": (self.memory, memory)}
        notebook = {
            "disk": (missing + self.notebook_disk, machine.disk_free(tracking.ROOT)),
            "memory": (self.notebook_memory, memory),
        }
        return _shortages("", alone), _shortages("its notebook, ", notebook)


def _shortages(whose: str, needs: dict[str, tuple[int, int]]) -> list[str]:
    return [
        f"{whose}{kind}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
        for kind, (needed, free) in needs.items()
        if needed > free
    ]


def list_needs(entry: Entry) -> list[Needs]:
    """What the forms of a model need: both forms of a catalog entry; of a local folder, its form and its export.

    Raises:
        MissingExtra: the graph of a local ONNX folder cannot be read without the package onnx.
        WeightsError: the sizes are unknown, for a hub id that the catalog does not list or a folder without a model.
    """
    from huggingface_hub import constants

    items = [item for item in cached.list_cached() if not item.obsolete]
    if layers := entry.layers:
        sizes = {item.form: item.size for item in items if item.name == entry.name}
        cache = Path(constants.HF_HUB_CACHE) if entry.checkpoint.repo else store.root()
        checkpoint, onnx = entry.checkpoint, entry.onnx
        # CustomPythonWrapper needs the checkpoint too: it compares a pipeline with the ONNX models.
        pipelines, models = LOGGED["CustomPythonWrapper"]
        written = (1 + pipelines) * checkpoint.disk - sizes.get(Form.CHECKPOINT, 0) + models * onnx.disk
        notebooks = {
            Form.CHECKPOINT: _pipeline_notebook(checkpoint.disk),
            Form.ONNX: (written, checkpoint.memory + onnx.memory),
        }
        return [
            Needs(form, source.disk, source.memory, source.read, layers, sizes.get(form, 0), cache, *notebooks[form])
            for form, source in entry.sources.items()
        ]
    exported = [item.folder for item in items if item.name == str(entry.folder)]
    local = [entry.folder, *exported] if entry.folder else []
    needs = [_checkpoint(folder) for folder in local if not checkpoint_lacks(folder)]
    needs += [_onnx(folder) for folder in local if not onnx_lacks(folder)]
    if not needs and entry.folder:
        check(entry.folder)
    if not needs:
        raise WeightsError(f"What {entry.name} takes is not known: give a name of the catalog, or a model's folder.")
    return needs


def _pipeline_notebook(size: int) -> tuple[int, int]:
    """The disk and memory of TransformerPipeline: it logs checkpoints, and for a moment holds one twice.

    With random weights of Phi-3's shape, 7.6 GB, its largest process was measured at 15.2 GB.
    """
    return LOGGED["TransformerPipeline"][0] * size, 2 * size + LIBRARIES


def _checkpoint(folder: Path) -> Needs:
    config = folder / "config.json"
    layers, size = folders.number(config, folders.read_json(config), "num_hidden_layers"), folders.weights_size(folder)
    return Needs(Form.CHECKPOINT, size, size + LIBRARIES, size, layers, size, folder, *_pipeline_notebook(size))


def _onnx(folder: Path) -> Needs:
    requirements.need_extra(f"Estimating the speed of {folder}", "export")
    import onnx

    config = folder / "genai_config.json"
    content = folders.read_json(config)
    layers = folders.number(config, content, "model.decoder.num_hidden_layers")
    file = folder / str(folders.entry(content, "model.decoder.filename"))
    try:
        graph = onnx.load(file, load_external_data=False).graph
    except Exception as error:  # protobuf's own, which is in no module to import from
        raise WeightsError(f"{file} cannot be read as an ONNX model: {error}. Copy or fetch it again.") from None
    # A token reads one row of a tensor that is only gathered from, and all of a tensor that is multiplied.
    multiplied = {name for node in graph.node if not node.op_type.startswith("Gather") for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in multiplied]
    read = sum(int(entry.value) for tensor in tensors for entry in tensor.external_data if entry.key == "length")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return Needs(Form.ONNX, size, size * 5 // 4, read, layers, size, folder)


def measure(form: Form, folder: Path, tokens: int = 48) -> float:
    """Measure the speed of the model in `folder`.

    Args:
        form: checkpoint or ONNX.
        folder: as `weights.checkpoint` and `weights.onnx` return it.
        tokens: the length of each answer.

    Returns:
        tokens a second after the first token, which comes with the prompt; the best of three answers.

    Raises:
        MissingExtra: a checkpoint needs torch and transformers.
    """
    return max(_onnx_speeds(folder, tokens) if form is Form.ONNX else _checkpoint_speeds(folder, tokens))


def _onnx_speeds(folder: Path, tokens: int) -> Iterator[float]:
    from phi3kit.generation import Engine, Options

    engine = Engine.open(folder)
    for _ in range(3):
        yield engine.generate([PROMPT], Options(max_tokens=tokens))[0].tokens_per_second


def _checkpoint_speeds(folder: Path, tokens: int) -> Iterator[float]:
    requirements.need_extra("Measuring a checkpoint", "checkpoint")
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
