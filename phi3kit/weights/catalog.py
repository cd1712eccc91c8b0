"""The models the workbook knows by name, and where the files of each come from.

`resolve` turns what a person writes (a catalog name, a local folder or a hub id) into an `Entry`. It looks at no
network: whether a hub id exists is found out when its files are asked for.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from phi3kit.errors import WeightsError

HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Entry:
    """One model: where its two forms come from, and what they cost.

    Attributes:
        name: the name it was asked for by; a catalog name where it has one.
        checkpoint: hub repository of the Hugging Face checkpoint; None when it is built here or lies in `folder`.
        revision: commit, tag or branch of `checkpoint`. Catalog entries name a commit, so that what a lesson was
            written for is what everybody gets.
        onnx_repo: hub repository of a published int4 CPU model; None when we export our own from the checkpoint.
        onnx_folder: the folder inside `onnx_repo`.
        onnx_revision: commit of `onnx_repo`, or a branch.
        folder: the local folder, when the name was one.
        checkpoint_bytes: size of the checkpoint on disk.
        onnx_bytes: size of the ONNX folder on disk.
        onnx_read_bytes: how much of that each new token reads: not the table of embeddings where it stands by itself.
        layers: decoder layers.
        memory_bytes: memory that the ONNX model needs to load and answer a short chat; an estimate but for `tiny`.
        context_length: tokens of prompt and answer together.
        parameters: number of weights, tied embeddings counted once.
        licence: SPDX identifier.

    The sizes of a folder or hub id that the catalog does not list are None: nobody has looked.
    """

    name: str
    checkpoint: str | None = None
    revision: str = "main"
    onnx_repo: str | None = None
    onnx_folder: str = ""
    onnx_revision: str = "main"
    folder: Path | None = None
    checkpoint_bytes: int | None = None
    onnx_bytes: int | None = None
    onnx_read_bytes: int | None = None
    layers: int | None = None
    memory_bytes: int | None = None
    context_length: int | None = None
    parameters: int | None = None
    licence: str | None = None


# Where the numbers come from.
# parameters: counted from the shapes in each config.json. checkpoint_bytes: the safetensors at two bytes per parameter
# (the repositories' file lists say 4.97 + 2.67, 4.97 + 2.67 and 4.90 + 2.77 GB); for `tiny`, the built folder.
# onnx_bytes: the file lists, rounded as they are shown there; for `tiny`, the built folder. memory_bytes of the three
# Phi: onnx_bytes x 1.25, since random weights of Phi-3-mini's shape (2.6 GB on disk) were measured at 3.2 GB; add
# 0.8 MB for each token of context (Phi-4-mini 0.26 MB). `tiny`: measured. onnx_read_bytes of the three Phi: onnx_bytes
# less a float32 table of vocabulary times 3,072; what remains is 0.625 or 0.64 bytes for each other parameter, as int4
# in blocks of 32 takes. `tiny` has no such table.
_TINY = Entry(
    name="tiny",
    checkpoint_bytes=270_812_154,
    onnx_bytes=117_152_871,
    onnx_read_bytes=113_365_376,
    layers=30,
    memory_bytes=270_000_000,
    context_length=8_192,
    parameters=134_515_008,
    licence="Apache-2.0",
)
_PHI_3 = Entry(
    name="phi-3-mini-4k-instruct",
    checkpoint="microsoft/Phi-3-mini-4k-instruct",
    revision="0a67737cc96d2554230f90338b163bc6380a2a85",
    onnx_repo="microsoft/Phi-3-mini-4k-instruct-onnx",
    onnx_folder="cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4",
    onnx_revision="dbeff89043abdb320de21c49e669978d83c8f178",
    checkpoint_bytes=7_642_159_104,
    onnx_bytes=2_720_000_000,
    onnx_read_bytes=2_326_000_000,
    layers=32,
    memory_bytes=3_400_000_000,
    context_length=4_096,
    parameters=3_821_079_552,
    licence="MIT",
)
_PHI_3_5 = Entry(
    name="phi-3.5-mini-instruct",
    checkpoint="microsoft/Phi-3.5-mini-instruct",
    revision="2fe192450127e6a83f7441aef6e3ca586c338b77",
    onnx_repo="microsoft/Phi-3.5-mini-instruct-onnx",
    onnx_folder="cpu_and_mobile/cpu-int4-awq-block-128-acc-level-4",
    onnx_revision="b444d92853c5aa44f3ec13c3e3ab4795645f7ef5",
    checkpoint_bytes=7_642_159_104,
    onnx_bytes=2_780_000_000,
    onnx_read_bytes=2_386_000_000,
    layers=32,
    memory_bytes=3_500_000_000,
    context_length=131_072,
    parameters=3_821_079_552,
    licence="MIT",
)
_PHI_4 = Entry(
    name="phi-4-mini-instruct",
    checkpoint="microsoft/Phi-4-mini-instruct",
    revision="5a149550068a1eb93398160d8953f5f56c3603e9",
    onnx_repo="microsoft/Phi-4-mini-instruct-onnx",
    onnx_folder="cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4",
    onnx_revision="main",  # no commit of this one could be confirmed
    checkpoint_bytes=7_672_043_520,
    onnx_bytes=4_930_000_000,
    onnx_read_bytes=2_472_000_000,
    layers=32,
    memory_bytes=6_200_000_000,
    context_length=131_072,
    parameters=3_836_021_760,
    licence="MIT",
)
CATALOG: dict[str, Entry] = {entry.name: entry for entry in (_TINY, _PHI_3, _PHI_3_5, _PHI_4)}


def resolve(name: str | Path = "tiny") -> Entry:
    """The entry that `name` means.

    Args:
        name: a catalog name (in any case), else a local folder, else a hub id such as `microsoft/Phi-4-mini-instruct`,
            with `@revision` if need be. The hub id of a catalog entry is that entry.

    Raises:
        WeightsError: `name` is none of these; the message lists the catalog and guesses what was meant.
    """
    text = str(name)
    for entry in CATALOG.values():
        if text.lower() in (entry.name, (entry.checkpoint or entry.name).lower()):
            return entry
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        return Entry(name=folder.resolve().name, folder=folder.resolve())
    if hub_id := HUB_ID.fullmatch(text):
        return Entry(name=text, checkpoint=hub_id[1], revision=hub_id[2] or "main")
    longer = [known for known in CATALOG if text and known.startswith(text.lower())]
    near = longer or difflib.get_close_matches(text.lower(), CATALOG, n=1)
    raise WeightsError(
        f"There is no model {text!r}{f': did you mean {near[0]!r}?' if near else '.'} "
        f"Give one of {', '.join(CATALOG)}, a folder that exists, or a hub id such as {_PHI_3.checkpoint}."
    )
