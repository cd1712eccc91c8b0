"""Run notebooks: parameters, kernels, results, pages, and a model server for the length of a `with` block.

It knows notebooks as files and processes, and nothing of what they teach.
"""
