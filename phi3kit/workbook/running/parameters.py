"""A notebook's parameters: read from its cells tagged `parameters`, and checked before anything runs."""

import ast
import math
from pathlib import Path
from typing import Any

from phi3kit.errors import InvalidRequest
from phi3kit.generation.options import declared as options
from phi3kit.workbook.running.notebook import has_tag, read

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NOT_EMPTY = {"question", "experiment"}  # the model and MLflow refuse an empty one, after many cells


def defaults(notebook: str | Path) -> dict[str, Any]:
    """Read the parameters that a notebook declares, each with its default.

    Args:
        notebook: a notebook's file.

    Returns:
        Name to default, in the notebook's order; empty where no cell is tagged `parameters`.

    Raises:
        InvalidRequest: the file is no notebook, or such a cell is no Python.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    path, values = Path(notebook), {}
    for cell in read(path).cells:
        if cell.cell_type == "code" and has_tag(cell, "parameters"):
            try:
                statements = ast.parse(TransformerManager().transform_cell(cell.source)).body  # it may hold a %magic
            except (SyntaxError, ValueError) as error:
                reason = str(error).replace("<unknown>, ", "")
                problem = f"{path.name} has a syntax error in its cell tagged `parameters`: {reason}"
                raise InvalidRequest("NOTEBOOK", str(path), f"one that can run: {problem}") from None
            for statement in statements:
                is_assign = isinstance(statement, ast.Assign)  # else it may have a type: `name: str = "value"`
                for target in statement.targets if is_assign else [getattr(statement, "target", None)]:
                    if isinstance(target, ast.Name):
                        values[target.id] = _literal(statement.value)  # None where it is computed
    return values


def check(notebook: str | Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Check parameters, and convert them to the types of the notebook's own defaults.

    Args:
        notebook: a notebook's file.
        parameters: name to value; text is read as the type of the default, so that a shell can pass any of them.

    Returns:
        Name to value, for these names only; a folder as `model` is absolute.

    Raises:
        InvalidRequest: the file is no notebook, the notebook does not declare a name, or a value is not allowed.
        WeightsError: the parameter `model` names no model.
    """
    from phi3kit import weights

    declared = defaults(notebook)
    unknown = [name for name in parameters if name not in declared]
    if unknown:
        known = f"one that {Path(notebook).name} declares: {', '.join(declared)}" if declared else "none, it has none"
        raise InvalidRequest("parameter", unknown[0], known)
    values = {name: _checked(name, value, declared[name]) for name, value in parameters.items()}
    default = weights.CATALOG.get(str(declared.get("model")))
    if entry := weights.resolve(values["model"]) if "model" in values else default:
        check_window(values.get("max_tokens"), entry.context_length)
        if entry.folder:
            values["model"] = str(entry.folder)  # the kernel has another working directory
    return values


def check_window(max_tokens: int | None, window: int | None) -> None:
    """Refuse an answer that would fill a model's context window, in which the prompt has to fit as well.

    Args:
        max_tokens: the longest answer; None for the default.
        window: tokens of the model's context window; None where it is not known yet.

    Raises:
        InvalidRequest: naming `max_tokens` and the longest answer that is possible.
    """
    if isinstance(max_tokens, int) and window and max_tokens >= window:
        window_is = f"the model's context window holds {window} tokens, of prompt and answer together"
        raise InvalidRequest("max_tokens", max_tokens, f"at most {window - 1}: {window_is}")


def _checked(name: str, value: Any, default: Any) -> Any:
    value = _convert(name, value, default)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(name, value, "a text in UTF-8") from None
        if name in _NOT_EMPTY and default and not value.strip():
            raise InvalidRequest(name, value, "a text that is not empty")
    elif value is not None and _literal(repr(value)) is None:
        allowed = "text, a finite number, true, false, None, or a list, tuple, set or dict of these"
        raise InvalidRequest(name, value, allowed)
    for option in options():
        if option.name == name and value is not None:
            try:
                option.checked(option.default if default is None else default)
            except InvalidRequest:  # a notebook's own meaning of the name, such as the temperature of the air
                break
            option.checked(value)
    return value


def _literal(source: Any, otherwise: Any = None) -> Any:
    """The value of a literal; `otherwise` for any other code."""
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return otherwise


def _convert(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    if default is None:
        return _literal(value, value)
    if kind is bool:
        truth = value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower())
        if truth is None:
            raise InvalidRequest(name, value, "true or false")
        return truth
    if kind in (int, float):
        try:
            if isinstance(value, bool) or not isinstance(value, (str, int, kind)) or not math.isfinite(kind(value)):
                raise ValueError
            return kind(value)
        except (ValueError, OverflowError):
            raise InvalidRequest(name, value, "a whole number" if kind is int else "a number") from None
    if kind is str:
        if not isinstance(value, str):
            raise InvalidRequest(name, value, "text")
        return str(value)
    value = _literal(value, value)
    if not isinstance(value, kind):
        raise InvalidRequest(name, value, f"a {kind.__name__} as Python writes it, such as {default!r}")
    return value
