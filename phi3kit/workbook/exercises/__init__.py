"""Exercises: their cells in a notebook, the check of each, handouts for learners, and grading.

It knows nothing of pictures and widgets.
"""
