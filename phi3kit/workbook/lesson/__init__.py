"""What a lesson shows: pictures, widgets, and measurements of two models side by side.

It knows nothing of exercises.
"""
