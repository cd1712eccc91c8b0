"""A notebook's parameters: read from its cell tagged `parameters`, and checked before anything runs."""

import ast
from pathlib import Path
from typing import Any

from phi3kit.errors import InvalidRequest

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def defaults(notebook: str | Path) -> dict[str, Any]:
    """The parameters a notebook declares, each with its default.

    Args:
        notebook: a notebook's file.

    Returns:
        name to default, in the notebook's order; empty where no cell is tagged `parameters`.
    """
    import nbformat

    found: dict[str, Any] = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", ()):
            for statement in ast.parse(cell.source).body:
                targets = (
                    statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
                )
                for target in targets:
                    if isinstance(target, ast.Name):
                        found[target.id] = _literal(statement.value)
    return found


def checked(notebook: str | Path, given: dict[str, Any]) -> dict[str, Any]:
    """The given parameters as the types that the notebook's own defaults have.

    Args:
        notebook: a notebook's file.
        given: name to value; text is read as the type of the default, so that a shell can give any of them.

    Returns:
        name to value, for the given names only.

    Raises:
        InvalidRequest: a name the notebook does not declare, or a value that does not fit its default's type.
    """
    declared = defaults(notebook)
    unknown = [name for name in given if name not in declared]
    if unknown:
        known = f"one that {Path(notebook).name} declares: {', '.join(declared)}" if declared else "none, it has none"
        raise InvalidRequest("parameter", unknown[0], known)
    return {name: _as(name, value, declared[name]) for name, value in given.items()}


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, AttributeError):
        return None  # computed: any value may be given


def _as(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    if default is None:
        if not isinstance(value, str):
            return value
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    if kind is bool:
        known = value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower())
        if known is None:
            raise InvalidRequest(name, value, "true or false")
        return known
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
    value = _literal_text(value) if isinstance(value, str) else value
    if not isinstance(value, kind):
        raise InvalidRequest(name, value, f"a {kind.__name__} as Python writes it")
    return value


def _literal_text(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
