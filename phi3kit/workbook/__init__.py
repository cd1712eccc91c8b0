"""What only notebooks need: running them, what their lessons show, and their exercises.

Nothing else in the kit but the command line imports it.
"""
