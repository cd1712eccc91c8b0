"""Pictures of measurements, and text with marks in it; each carries its message in words as well."""

from phi3kit.workbook.lesson.pictures.display import Marked, Picture, folded
from phi3kit.workbook.lesson.pictures.memory import memory_curves
from phi3kit.workbook.lesson.pictures.timeline import queue_times, time_line
from phi3kit.workbook.lesson.pictures.tokens import Step, next_token, steps
from phi3kit.workbook.lesson.pictures.tree import signature_tree
from phi3kit.workbook.lesson.pictures.weights import rounding
from phi3kit.workbook.lesson.pictures.words import first_difference, token_probabilities

__all__ = [
    "Marked",
    "Picture",
    "Step",
    "first_difference",
    "folded",
    "memory_curves",
    "next_token",
    "queue_times",
    "rounding",
    "signature_tree",
    "steps",
    "time_line",
    "token_probabilities",
]
