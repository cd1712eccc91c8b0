"""One check for each exercise of the workbook: `check.NAME(what the learner made)` gives a `Verdict`.

A check runs the learner's code on inputs that the notebook does not show. It needs no network, and no model but `tiny`.
"""
