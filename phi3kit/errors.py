"""What can go wrong, each with what to do next. It knows nothing of the rest of the kit.

Every error that the kit raises on purpose is a `Phi3KitError`. Its message names what was asked, what was wrong with
it and the next thing to do, so it can be shown to a person as it stands.
"""

from collections.abc import Sequence


class Phi3KitError(Exception):
    """Base of everything the kit raises on purpose."""


class InvalidRequest(Phi3KitError, ValueError):
    """A value was refused before the model saw it.

    Args:
        field: the name of the field as the caller wrote it, for example `temperature` or `messages[2].role`.
        value: the refused value.
        allowed: the accepted values, in words, for example `a number from 0 to 2`.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}={_short(value)} is not allowed: give {allowed}.")
        self.field, self.value, self.allowed = field, value, allowed

    def renamed(self, field: str, name: str) -> "InvalidRequest":
        """Return the same refusal by the name that the caller wrote, where it is about `field`."""
        return InvalidRequest(name, self.value, self.allowed) if self.field == field else self


class InvalidSetting(Phi3KitError):
    """An environment variable of the kit has a value that it cannot use: the operator's mistake, not the caller's.

    Args:
        variable: its name.
        value: the refused value.
        allowed: the accepted values, in words.
    """

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(f"The environment variable {variable}={_short(value)} cannot be used: set it to {allowed}.")
        self.variable, self.value, self.allowed = variable, value, allowed


class MissingExtra(Phi3KitError):
    """A step needs a package that comes with one of the kit's extras.

    Args:
        what: the step, as the subject of a sentence.
        module: the module that is missing.
        extras: the extras that the step takes.
    """

    def __init__(self, what: str, module: str, extras: Sequence[str]) -> None:
        command = f"pip install 'phi3kit[{','.join(extras)}]'"
        super().__init__(f"{what} needs {module}, which is not installed: type `{command}`.")
        self.module, self.extras = module, extras


class WeightsError(Phi3KitError):
    """A model's files could not be obtained, or are not what they should be."""


class NotebookFailed(Phi3KitError):
    """A notebook stopped at a cell; the message names the cell and its error."""


class InsufficientResources(WeightsError):
    """A step was not begun, because the disk or the memory would not have held its result.

    Args:
        what: the step, as the subject of a sentence.
        kind: `disk` or `memory`.
        needed: bytes that the step takes.
        free: bytes that are available.
        remedy: what would make more available, as an imperative.
    """

    def __init__(self, what: str, kind: str, needed: int, free: int, remedy: str) -> None:
        required, available = (f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB" for n in (needed, free))
        super().__init__(
            f"{what} needs about {required} of {kind}, and {available} are free: {remedy}. "
            "If you know better, go on with --force (in a notebook and with make: PHI3KIT_FORCE=1)."
        )
        self.kind, self.needed, self.free = kind, needed, free


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
