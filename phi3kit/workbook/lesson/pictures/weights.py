"""One matrix of a model: its float weights, and the four-bit numbers to which they were rounded."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from phi3kit.system import requirements
from phi3kit.workbook.lesson.pictures.display import DARK, INK, LIGHT, Marked, Picture, panels

_NAME = re.compile(r"layers\.(\d+)\.(attn|mlp)\.(\w+)\.MatMul")


def rounding(onnx_folder: Path, checkpoint: Path) -> Picture | Marked:
    """Draw the first four-bit matrix of an ONNX model over the same matrix of its checkpoint.

    Args:
        onnx_folder: the folder of the ONNX model.
        checkpoint: the folder of the checkpoint from which it was exported.

    Returns:
        The drawing, or a sentence where the ONNX model has no matrix of the checkpoint in four bits.

    Raises:
        MissingExtra: a package that reads one of the two is missing.
    """
    requirements.need_extra("The picture of the rounding", "checkpoint", "export")
    for name, levels, scales, zeros in four_bit_matrices(onnx_folder):
        if (floats := _float_matrix(checkpoint, name, levels)) is not None:
            return _draw(name, levels, floats / scales + zeros)
    words = "No matrix of this model is kept in four bits: there is no rounding to sixteen steps to be seen."
    return Marked(f"<p>{words}</p>", words)


def four_bit_matrices(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Read the matrices of an ONNX model that are stored in four bits.

    A weight is `scale * (level - zero)`. Each block of weights in a row has its own scale and zero.

    Yields:
        Each matrix's name in a checkpoint; its levels, 0 to 15, in the shape (rows, blocks, weights of a block); its
        scales and its zeros, in the shape (rows, blocks, 1).
    """
    import onnx_ir

    for node in onnx_ir.load(folder / "model.onnx").graph:
        name = _NAME.search(node.inputs[1].name) if node.op_type == "MatMulNBits" else None
        shape = {key: attribute.value for key, attribute in node.attributes.items()}
        if name is None or shape["bits"] != 4 or shape["K"] % shape["block_size"]:
            continue
        rows, blocks = shape["N"], shape["K"] // shape["block_size"]
        packed, scales, *rest = (value and _array(value.const_value) for value in node.inputs[1:])
        levels = _halves(packed.reshape(rows, blocks, -1))
        scales = scales.reshape(rows, blocks, 1).astype(np.float32)
        zeros = np.full_like(scales, 8)  # the default of MatMulNBits
        if rest and rest[0] is not None:
            zeros = _halves(rest[0].reshape(rows, -1))[:, :blocks, None]
        part = "self_attn" if name[2] == "attn" else name[2]
        yield f"model.layers.{name[1]}.{part}.{name[3]}.weight", levels, scales, zeros


def _array(tensor: Any) -> np.ndarray:
    """Read a tensor of the graph. onnx_ir itself refuses a file with hard links, such as those from the hub."""
    if hasattr(tensor, "offset"):
        return np.memmap(tensor.path, tensor.dtype.numpy(), "r", tensor.offset or 0, tuple(tensor.shape))
    return tensor.numpy()


def _halves(packed: np.ndarray) -> np.ndarray:
    """Unpack two numbers from each byte, the first from its lower half."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1).astype(np.int8)


def _float_matrix(checkpoint: Path, name: str, like: np.ndarray) -> np.ndarray | None:
    from safetensors import safe_open

    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:  # NumPy has no bfloat16
            if name in tensors.keys():  # noqa: SIM118  it is no dict
                floats = tensors.get_tensor(name).float().numpy()
                return floats.reshape(like.shape) if floats.size == like.size else None
    return None


def _draw(name: str, levels: np.ndarray, floats: np.ndarray) -> Picture:
    figure, (panel,) = panels(10, 3.8)
    hill, edges = np.histogram(floats, bins=np.arange(-1, 16.05, 0.1))
    steps = np.bincount(levels.ravel(), minlength=16)
    panel.stairs(hill * 10, edges, fill=True, facecolor=LIGHT, edgecolor=INK)
    panel.bar(range(16), steps, width=0.16, color=DARK)
    arrow = {"arrowstyle": "->", "edgecolor": INK}
    panel.annotate("the float weights: a hill", (2.6, hill[36] * 10), (0.5, 0.92 * steps.max()), arrowprops=arrow)
    panel.annotate("in four bits: 16 spikes", (11, steps[11]), (12, 0.92 * steps.max()), arrowprops=arrow)
    panel.set(xticks=range(16), xlabel="the sixteen steps of a weight's own block", ylabel="weights per step")
    panel.set_title(f"{name}: {levels.size:,} weights", fontsize=10)
    rounded_by = float(np.abs(floats - levels).mean())
    words = "as float numbers they make a hill, in four bits they stand in 16 narrow spikes, from 0 to 15"
    alt = f"Histogram of {name}, {levels.size:,} weights, each measured in steps of its own block: {words}. "
    return Picture(figure, f"{alt}Rounding moves a weight by {rounded_by:.2f} of a step on average.")
