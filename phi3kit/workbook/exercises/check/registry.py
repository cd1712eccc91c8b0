"""The check of rolling back. It uses a registry of its own in a temporary folder, never the notebook's."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from phi3kit import tracking
from phi3kit.workbook.exercises.check.verdict import Wrong, call, exercise

_NAME, _ALIAS = "translator", "champion"
_MOVED = f"{_NAME}@{_ALIAS}"
_AS_TEXT = "A client of a server gives versions as texts, and as a text '8' comes after '10': convert them with `int`."


@exercise(steps=5)
def roll_back(my_roll_back: Callable[[Any, str, str], Any]) -> Iterator[str]:
    """Whether an alias moves to the newest version before the one that it names, and nothing else changes.

    Args:
        my_roll_back: takes an `MlflowClient`, the name of a registered model, and an alias of it.
    """
    client = _reset(_registry()[0])
    before = _unmoved(client)
    hint = "Use the `client`, the name and the alias that your function gets."
    _check_move(my_roll_back, client, 5, 4, {Exception: hint})
    yield "From version 5 the alias moves to version 4."
    hint = "Version 9 of this model was deleted: ask the client which versions this one model has."
    _check_move(my_roll_back, client, 10, 8, {ValueError: _AS_TEXT, Exception: hint})
    yield "From version 10 it moves to version 8, since 9 was deleted."
    if (after := _unmoved(client)) != before:
        hint = "Move only this alias of this model; delete nothing, and leave everything else as it is."
        raise Wrong(_difference(after, before), _difference(before, after), hint)
    yield "Every version, every other alias and the other model stay as they were."
    _check_refusal(my_roll_back, client)
    yield "From version 1 there is no way back: a ValueError says so, and the alias stays."
    over_http = _as_over_http(client)
    for start, target in ((5, 4), (10, 8), (11, 10)):
        _check_move(my_roll_back, over_http, start, target, {Exception: _AS_TEXT})
    _check_refusal(my_roll_back, over_http)
    yield "All of this holds for a client of a server, which gives versions as texts."


@cache
def _registry() -> tuple[Any, tempfile.TemporaryDirectory]:
    """A client of an empty registry, and the folder that holds it until this process ends."""
    import mlflow

    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # Windows removes no open database
    tracking.create(database := Path(folder.name) / "registry.db")
    uri = tracking.sqlite_address(database)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri), folder


def _as_over_http(client: Any) -> Any:
    """The same client, except that it returns what a server's client does, where each version is a text."""
    import mlflow

    def converted(value: Any) -> Any:
        if isinstance(value, list):
            result = copy.copy(value)  # it may have the token of a next page
            result[:] = map(converted, value)
            return result
        return type(value).from_proto(value.to_proto()) if hasattr(value, "to_proto") else value

    class Client(mlflow.MlflowClient):
        def __getattribute__(self, name: str) -> Any:
            method = getattr(client, name)
            if name.startswith("_") or not callable(method):
                return method
            return lambda *args, **kwargs: converted(method(*args, **kwargs))

    return Client.__new__(Client)


def _reset(client: Any) -> Any:
    """Fill the registry with two models of eleven versions and two aliases each; one version of one is missing."""
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for name in (_NAME, f"{_NAME}-2"):
        client.create_registered_model(name)
        for _ in range(11):
            client.create_model_version(name, "file:///nowhere")
        client.set_registered_model_alias(name, _ALIAS, "6")
        client.set_registered_model_alias(name, "shadow", "7")
    client.delete_model_version(_NAME, "9")
    for version in ("2", "8", "4"):  # a search now lists 4, 8 and 2 first
        client.update_model_version(_NAME, version, description="Good at proverbs.")
    return client


def _state(client: Any) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        state[f"versions of {model.name}"] = sorted(int(each.version) for each in versions)
        state |= {f"{model.name}@{alias}": int(version) for alias, version in model.aliases.items()}
    return state


def _unmoved(client: Any) -> dict[str, Any]:
    return {name: value for name, value in _state(client).items() if name != _MOVED}


def _difference(state: dict[str, Any], other: dict[str, Any]) -> str:
    names = dict.fromkeys([*state, *other])
    return "; ".join(f"{name}: {state.get(name, 'gone')}" for name in names if state.get(name) != other.get(name))


def _check_move(my_roll_back: Any, client: Any, start: int, target: int, hints: dict[type[Exception], str]) -> None:
    client.set_registered_model_alias(_NAME, _ALIAS, str(start))
    expected = f"@{_ALIAS} moves from version {start} to version {target}"
    call(my_roll_back, client, _NAME, _ALIAS, expected=expected, hints=hints)
    version = _state(client).get(_MOVED)
    if version != target:
        got = f"@{_ALIAS} now names {f'version {version}' if version else 'nothing'}"
        raise Wrong(got, expected, _move_hint(start, version))


def _move_hint(start: int, version: int | None) -> str:
    if version is None:
        return "The alias is gone, so that loading by it fails. To move an alias, set it to another version."
    if version == start:
        return "The alias did not move: `client.set_registered_model_alias` moves it."
    if version > start:
        return "That is a step forward: only versions before the current one are a way back."
    if (start, version) in ((10, 1), (11, 8)):
        return _AS_TEXT
    return "There is a newer version before the current one. A search does not sort by version: sort them yourself."


def _check_refusal(my_roll_back: Any, client: Any) -> None:
    client.set_registered_model_alias(_NAME, _ALIAS, "1")
    expected = f"a ValueError that names {_NAME}, and @{_ALIAS} still at version 1"
    try:
        call(my_roll_back, client, _NAME, _ALIAS, expected=expected)
    except Wrong as wrong:
        if not isinstance(wrong.__cause__, ValueError) or _NAME not in str(wrong.__cause__):
            hint = "This error does not explain the problem. Check first whether there is an earlier version."
            if isinstance(wrong.__cause__, ValueError):
                hint = "The error does not say which model it is about: name the model in its message."
            raise Wrong(wrong.got, expected, hint if wrong.__cause__ else wrong.hint) from wrong
    else:
        hint = (
            "The caller must learn that nothing was rolled back: without an earlier version, `raise ValueError(...)`."
        )
        raise Wrong("no error", expected, hint)
    if (version := _state(client).get(_MOVED)) != 1:
        hint = "Check whether there is an earlier version before you move the alias."
        raise Wrong(f"the error, and @{_ALIAS} at {version}", expected, hint)
