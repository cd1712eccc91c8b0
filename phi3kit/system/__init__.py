"""This computer: what it has, the processes that the kit starts on it, and the folders whose files it hashes.

It knows nothing of models, hubs or MLflow.
"""
