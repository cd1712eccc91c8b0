"""The check of rolling back: a registry of its own, in a temporary folder, and never the notebook's."""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from phi3kit.workbook.check.verdict import Wrong, called, exercise, shown

_NAME, _ALIAS = "translator", "champion"
_MOVED = f"{_NAME}@{_ALIAS}"


@exercise(of=4)
def roll_back(my_roll_back: Callable[[Any, str, str], Any]) -> Iterator[str]:
    """Whether an alias moves to the newest version before the one that it names, and nothing else does.

    Args:
        my_roll_back: takes an `MlflowClient`, the name of a registered model, and an alias of it.
    """
    client = _filled(_registry()[0])
    others = _others(client)
    hint = "Ask the `client` that your function is given, with the name and the alias that it is given."
    _moves(my_roll_back, client, 5, 4, {Exception: hint})
    yield "From version 5 the alias moves to version 4."
    hint = "Version 9 of this model was deleted: look which versions there are, of this model alone."
    too_soon = "Version 8 comes before version 10. Compare versions as numbers: as texts, '8' comes after '10'."
    _moves(my_roll_back, client, 10, 8, {ValueError: too_soon, Exception: hint})
    yield "From version 10 it moves to version 8, since 9 was deleted."
    if (now := _others(client)) != others:
        hint = "Move the one alias of the one model, by its name; delete nothing, and leave all others alone."
        raise Wrong(_told(now, others), _told(others, now), hint)
    yield "Every version, every other alias and the other model stay as they were."
    _says_so(my_roll_back, client)
    yield "From version 1 there is no way back: a ValueError says so, and the alias stays."


@cache
def _registry() -> tuple[Any, tempfile.TemporaryDirectory]:
    """A client of an empty registry, which takes seconds to make, and its folder, which goes when this process ends."""
    import mlflow

    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # Windows removes no open database
    uri = f"sqlite:///{(Path(folder.name) / 'registry.db').as_posix()}"
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri), folder


def _filled(client: Any) -> Any:
    """Begin anew, with two models of eleven versions and two aliases each; of one, a version is missing."""
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for name in (_NAME, "narrator"):
        client.create_registered_model(name)
        for _ in range(11):
            client.create_model_version(name, "file:///nowhere")
        client.set_registered_model_alias(name, _ALIAS, "6")
        client.set_registered_model_alias(name, "shadow", "7")
    client.delete_model_version(_NAME, "9")
    client.update_model_version(_NAME, "4", description="Good at proverbs.")  # a search now gives it first
    return client


def _state(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        found[f"versions of {model.name}"] = sorted(int(each.version) for each in versions)
        found |= {f"{model.name}@{alias}": int(version) for alias, version in model.aliases.items()}
    return found


def _others(client: Any) -> dict[str, Any]:
    return {what: value for what, value in _state(client).items() if what != _MOVED}


def _told(state: dict[str, Any], other: dict[str, Any]) -> str:
    """What differs from another state."""
    names = dict.fromkeys([*state, *other])
    return "; ".join(f"{name}: {state.get(name, 'gone')}" for name in names if state.get(name) != other.get(name))


def _moves(my_roll_back: Any, client: Any, version: int, wanted: int, hints: dict[type[Exception], str]) -> None:
    client.set_registered_model_alias(_NAME, _ALIAS, str(version))
    told = f"@{_ALIAS} moves from version {version} to version {wanted}"
    called(my_roll_back, client, _NAME, _ALIAS, expected=told, hints=hints)
    came = _state(client).get(_MOVED)
    if came != wanted:
        raise Wrong(f"@{_ALIAS} now names {f'version {came}' if came else 'nothing'}", told, _hint(version, came))


def _hint(version: int, came: int | None) -> str:
    if came is None:
        return "The alias is gone, and whoever loads by it gets an error. Setting it anew moves it."
    if came == version:
        return "The alias did not move: `client.set_registered_model_alias` moves it."
    if came > version:
        return "That is a step forward: only versions before the one that the alias names are a way back."
    if (version, came) == (10, 1):
        return "Compare versions as numbers: as texts, '8' comes after '10'."
    return "A newer one stands before it. A search gives first what was touched last: order the versions yourself."


def _says_so(my_roll_back: Any, client: Any) -> None:
    client.set_registered_model_alias(_NAME, _ALIAS, "1")
    told = f"a ValueError that names {_NAME}, and @{_ALIAS} still at version 1"
    try:
        my_roll_back(client, _NAME, _ALIAS)
    except Exception as error:
        came = f"{type(error).__name__}: {shown(str(error))}"
        if not isinstance(error, ValueError) or _NAME not in str(error):
            hint = "That error tells a colleague nothing. Look first whether there is a way back."
            if isinstance(error, ValueError):
                hint = "The error is there, and does not say which model it is about: name it in the message."
            raise Wrong(came, told, hint) from error
    else:
        hint = "Nobody hears that nothing was rolled back: where no version is left, `raise ValueError(...)`."
        raise Wrong("no error", told, hint)
    if (now := _state(client).get(_MOVED)) != 1:
        raise Wrong(f"the error, and @{_ALIAS} at {now}", told, "Look whether there is a way back before you move.")
