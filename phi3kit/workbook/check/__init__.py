"""One check for each exercise of the workbook: `check.NAME(what the learner made)` gives a `Verdict`.

A check runs the learner's code on inputs that the notebook does not show. It needs no network, and no model but `tiny`
or the notebook's own.
"""

from phi3kit.workbook.check.custom import deadline, every_row, stop_sequence
from phi3kit.workbook.check.pipeline import chat_prompt, memory, refused_request, short_answer
from phi3kit.workbook.check.registry import roll_back
from phi3kit.workbook.check.stored import own_wrapper, top_p_signature

__all__ = [
    "chat_prompt",
    "deadline",
    "every_row",
    "memory",
    "own_wrapper",
    "refused_request",
    "roll_back",
    "short_answer",
    "stop_sequence",
    "top_p_signature",
]
