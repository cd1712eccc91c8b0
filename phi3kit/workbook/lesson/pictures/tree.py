"""A model's signature as a tree of its fields."""

import io
from typing import Any


def signature_tree(signature: Any, *parts: str) -> str:
    """Draw a signature with one line per field: its name, its type, and whether it is optional.

    Args:
        signature: a logged model's, `ModelInfo.signature`.
        parts: `inputs`, `outputs`, `params`; all three unless some are named.
    """
    from rich.console import Console
    from rich.tree import Tree

    root = Tree("signature")
    for part in parts or ("inputs", "outputs", "params"):
        if schema := getattr(signature, part):
            branch = root.add(part)
            for field in schema:
                _add(branch, getattr(field, "name", None) or "(unnamed)", field)
    output = io.StringIO()
    # In Jupyter, rich would display the tree as HTML instead of writing it to the file.
    Console(file=output, width=120, highlight=False, markup=False, force_jupyter=False).print(root)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def _add(branch: Any, name: str, field: Any) -> None:
    words, inner = _type(getattr(field, "type", None) or getattr(field, "dtype", field))
    if hasattr(field, "default"):  # a field of params; it is a list where it has a shape
        words = f"{'list of ' if field.shape else ''}{words}, {field.default!r} unless given"
    elif not getattr(field, "required", True):
        words += ", optional"
    node = branch.add(f"{name}: {words}")
    for property in inner:
        _add(node, property.name, property)


def _type(kind: Any) -> tuple[str, list[Any]]:
    """A type in words, and the fields of the objects in it."""
    from mlflow.types.schema import Array, Map, Object

    match kind:
        case Object():
            return "object", kind.properties
        case Array():
            words, inner = _type(kind.dtype)
            return f"list of {words}", inner
        case Map():
            words, inner = _type(kind.value_type)
            return f"map from string to {words}", inner
    return getattr(kind, "name", str(kind)), []
