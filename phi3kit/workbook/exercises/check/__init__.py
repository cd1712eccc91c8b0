"""One check for each exercise of the workbook: `check.NAME(...)` takes the learner's work and returns a `Verdict`.

A check runs the learner's code on inputs that the notebook does not show. It needs no network, and no model except
`tiny` or the notebook's own.
"""

from phi3kit.workbook.exercises.check.conversation import chat_prompt, memory
from phi3kit.workbook.exercises.check.custom import deadline, every_row, stop_sequence
from phi3kit.workbook.exercises.check.pipeline import refused_request, short_answer
from phi3kit.workbook.exercises.check.registry import roll_back
from phi3kit.workbook.exercises.check.stored import own_wrapper, top_p_signature

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
