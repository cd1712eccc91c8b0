"""A notebook's parameters: read from its cell tagged `parameters`, and checked before anything runs."""

import ast
from pathlib import Path
from typing import Any

from phi3kit.errors import InvalidRequest

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def defaults(notebook: str | Path) -> dict[str, Any]:
    """Read the parameters that a notebook declares, each with its default.

    Args:
        notebook: a notebook's file.

    Returns:
        Name to default, in the notebook's order; empty where no cell is tagged `parameters`.
    """
    import nbformat

    values: dict[str, Any] = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", ()):
            for statement in ast.parse(cell.source).body:
                is_assign = isinstance(statement, ast.Assign)  # else it may have a type: `name: str = "value"`
                for target in statement.targets if is_assign else [getattr(statement, "target", None)]:
                    if isinstance(target, ast.Name):
                        values[target.id] = _literal(statement.value)
    return values


def check(notebook: str | Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Check parameters, and convert them to the types of the notebook's own defaults.

    Args:
        notebook: a notebook's file.
        parameters: name to value; text is read as the type of the default, so that a shell can pass any of them.

    Returns:
        Name to value, for these names only.

    Raises:
        InvalidRequest: the notebook does not declare a name, or a value does not fit its default's type.
    """
    declared = defaults(notebook)
    unknown = [name for name in parameters if name not in declared]
    if unknown:
        known = f"one that {Path(notebook).name} declares: {', '.join(declared)}" if declared else "none, it has none"
        raise InvalidRequest("parameter", unknown[0], known)
    return {name: _convert(name, value, declared[name]) for name, value in parameters.items()}


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, AttributeError):
        return None  # a computed default has no type to check against


def _convert(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    if default is None:
        return _literal_text(value)
    if kind is bool:
        truth = value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower())
        if truth is None:
            raise InvalidRequest(name, value, "true or false")
        return truth
    if kind in (int, float):
        try:
            if isinstance(value, bool) or not isinstance(value, (str, int, kind)):
                raise ValueError
            return kind(value)
        except ValueError:
            raise InvalidRequest(name, value, "a whole number" if kind is int else "a number") from None
    if kind is str:
        if not isinstance(value, str):
            raise InvalidRequest(name, value, "text")
        return value
    value = _literal_text(value)
    if not isinstance(value, kind):
        raise InvalidRequest(name, value, f"a {kind.__name__} as Python writes it")
    return value


def _literal_text(value: Any) -> Any:
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value
