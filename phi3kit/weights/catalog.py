"""The models that the workbook knows by name, and where the files of each come from.

`resolve` turns a catalog name, a local folder or a hub id into an `Entry`. It does not touch the network: a hub id is
checked when its files are fetched.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from phi3kit.errors import WeightsError
from phi3kit.system.targets import Target

HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
LIBRARIES = 600_000_000  # bytes of memory that torch and transformers take besides the weights


class Form(StrEnum):
    """The two forms in which a model's weights come."""

    CHECKPOINT = "checkpoint"  # Hugging Face's: config.json, safetensors, tokenizer
    ONNX = "onnx"  # int4, for onnxruntime-genai


@dataclass(frozen=True)
class Source:
    """Where one form of a model comes from, and what it needs.

    Attributes:
        repo: hub repository; None when the kit builds this form.
        revision: commit, tag or branch of `repo`. Catalog entries name a commit, so that everyone gets the files that
            the lessons were written for.
        subfolder: the folder inside `repo`.
        disk: bytes of its files.
        memory: bytes needed to load it and answer a short chat.
        read: bytes of weights that each new token reads; a separate table of embeddings does not count.

    The sizes are None for a model that the catalog does not list.
    """

    repo: str | None = None
    revision: str = "main"
    subfolder: str = ""
    disk: int | None = None
    memory: int | None = None
    read: int | None = None


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: its catalog name, the name of its local folder, or its hub id.
        checkpoint: the source of the Hugging Face checkpoint.
        onnx: the source of the int4 ONNX model; without a `repo`, the kit exports it from the checkpoint.
        gpus: the sources of the int4 ONNX models for other targets than a CPU.
        folder: the local folder, if the model was named by one.
        layers: decoder layers.
        context_length: tokens of prompt and answer together.
        parameters: number of weights, tied embeddings counted once.
        licence: SPDX identifier.

    The last four are None for a model that the catalog does not list.
    """

    name: str
    checkpoint: Source = Source()
    onnx: Source = Source()
    gpus: Mapping[Target, Source] = field(default_factory=dict)
    folder: Path | None = None
    layers: int | None = None
    context_length: int | None = None
    parameters: int | None = None
    licence: str | None = None

    @property
    def sources(self) -> dict[Form, Source]:
        """The sources of both forms; that of the ONNX model is for a CPU."""
        return {Form.CHECKPOINT: self.checkpoint, Form.ONNX: self.onnx}

    def onnx_for(self, target: Target) -> Source:
        """The source of the ONNX model for a target."""
        return self.onnx if target is Target.CPU else self.gpus.get(target, Source())


def _phi(
    repo: str,
    commit: str,
    onnx: dict[Target, tuple[str, str, int]],
    vocabulary: int,
    context: int,
    parameters: int,
) -> Entry:
    """A Phi of 32 layers and a hidden size of 3,072, whose ONNX models (commit, folder, bytes) lie in `repo`-onnx.

    Disk: two bytes per parameter of the checkpoint; the size of the ONNX folder as its repository shows it, rounded.
    Memory of the ONNX model: disk x 1.25, since random weights of Phi-3-mini's shape (2.6 GB on disk) were measured at
    3.2 GB; add 0.8 MB for each token of context (Phi-4-mini 0.26 MB). Bytes read: disk less the float32 table of
    embeddings; the remainder is 0.625 or 0.64 bytes per other parameter, as int4 in blocks of 32 takes.
    """
    size = 2 * parameters
    checkpoint = Source(repo, commit, disk=size, memory=size + LIBRARIES, read=size)
    gpus = {target: Source(f"{repo}-onnx", *published) for target, published in onnx.items()}
    cpu = gpus.pop(Target.CPU)
    cpu = replace(cpu, memory=cpu.disk * 5 // 4, read=cpu.disk - 4 * vocabulary * 3_072)
    shape = {"layers": 32, "context_length": context, "parameters": parameters}
    return Entry(Path(repo).name.lower(), checkpoint, cpu, gpus, **shape, licence="MIT")


# Parameters: counted from the shapes in each config.json. The repositories list checkpoints of 4.97 + 2.67,
# 4.97 + 2.67 and 4.90 + 2.77 GB, as two bytes per parameter give. `tiny`: measured on the built folders; it has no
# separate table of embeddings.
_TINY = Entry(
    name="tiny",
    checkpoint=Source(disk=270_812_154, memory=270_812_154 + LIBRARIES, read=270_812_154),
    onnx=Source(disk=117_152_871, memory=270_000_000, read=113_365_376),
    layers=30,
    context_length=8_192,
    parameters=134_515_008,
    licence="Apache-2.0",
)
_PHI_3_ONNX = "dbeff89043abdb320de21c49e669978d83c8f178"
_PHI_3_5_ONNX = "b444d92853c5aa44f3ec13c3e3ab4795645f7ef5"
_PHI_3 = _phi(
    repo="microsoft/Phi-3-mini-4k-instruct",
    commit="0a67737cc96d2554230f90338b163bc6380a2a85",
    onnx={
        Target.CPU: (_PHI_3_ONNX, "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4", 2_720_000_000),
        Target.CUDA: (_PHI_3_ONNX, "cuda/cuda-int4-rtn-block-32", 2_290_000_000),
        Target.DML: (_PHI_3_ONNX, "directml/directml-int4-awq-block-128", 2_130_000_000),
    },
    vocabulary=32_064,
    context=4_096,
    parameters=3_821_079_552,
)
_PHI_3_5 = _phi(
    repo="microsoft/Phi-3.5-mini-instruct",
    commit="2fe192450127e6a83f7441aef6e3ca586c338b77",
    onnx={
        Target.CPU: (_PHI_3_5_ONNX, "cpu_and_mobile/cpu-int4-awq-block-128-acc-level-4", 2_780_000_000),
        Target.CUDA: (_PHI_3_5_ONNX, "cuda/cuda-int4-awq-block-128", 2_310_000_000),
        Target.DML: ("main", "gpu/gpu-int4-awq-block-128", 2_310_000_000),  # of a later commit
    },
    vocabulary=32_064,
    context=131_072,
    parameters=3_821_079_552,
)
_PHI_4 = _phi(
    repo="microsoft/Phi-4-mini-instruct",
    commit="5a149550068a1eb93398160d8953f5f56c3603e9",
    onnx={  # no commit of it could be confirmed
        Target.CPU: ("main", "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4", 4_930_000_000),
        Target.CUDA: ("main", "gpu/gpu-int4-rtn-block-32", 3_440_000_000),
        Target.DML: ("main", "gpu/gpu-int4-rtn-block-32", 3_440_000_000),
    },
    vocabulary=200_064,
    context=131_072,
    parameters=3_836_021_760,
)
CATALOG: dict[str, Entry] = {entry.name: entry for entry in (_TINY, _PHI_3, _PHI_3_5, _PHI_4)}


def resolve(name: str | Path = "tiny") -> Entry:
    """The entry for a model's name.

    Args:
        name: a catalog name (in any case), else a local folder, else a hub id such as `microsoft/Phi-4-mini-instruct`,
            optionally with `@revision`. The hub id of a catalog entry returns that entry.

    Raises:
        WeightsError: `name` is none of these; the message lists the catalog and suggests a similar name.
    """
    text = str(name)
    for entry in CATALOG.values():
        if text.lower() in (entry.name, (entry.checkpoint.repo or entry.name).lower()):
            return entry
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        return Entry(name=folder.resolve().name, folder=folder.resolve())
    if hub_id := HUB_ID.fullmatch(text):
        return Entry(name=text, checkpoint=Source(repo=hub_id[1], revision=hub_id[2] or "main"))
    longer = [known for known in CATALOG if text and known.startswith(text.lower())]
    similar = longer or difflib.get_close_matches(text.lower(), CATALOG, n=1)
    raise WeightsError(
        f"There is no model {text!r}{f': did you mean {similar[0]!r}?' if similar else '.'} "
        f"Give one of {', '.join(CATALOG)}, a folder that exists, or a hub id such as {_PHI_3.checkpoint.repo}."
    )
