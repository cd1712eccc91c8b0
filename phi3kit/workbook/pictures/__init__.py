"""What is easier to look at than to read; each made from what was measured, with the same said in words."""

from phi3kit.workbook.pictures.bars import bar_charts
from phi3kit.workbook.pictures.memory import memory_curves
from phi3kit.workbook.pictures.shown import Marked, Picture
from phi3kit.workbook.pictures.timeline import in_one_queue, time_line
from phi3kit.workbook.pictures.tokens import Step, next_token, steps
from phi3kit.workbook.pictures.tree import signature_tree
from phi3kit.workbook.pictures.weights import rounding
from phi3kit.workbook.pictures.words import coloured, parting

__all__ = [
    "Marked",
    "Picture",
    "Step",
    "bar_charts",
    "coloured",
    "in_one_queue",
    "memory_curves",
    "next_token",
    "parting",
    "rounding",
    "signature_tree",
    "steps",
    "time_line",
]
