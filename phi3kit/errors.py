"""What can go wrong, each with what to do next.

Every error that the kit raises on purpose is a `Phi3KitError`: one message that names what was asked, what came
and the next thing to do, fit to be shown to a person as it stands.
"""


class Phi3KitError(Exception):
    """Base of everything the kit raises on purpose."""


class InvalidRequest(Phi3KitError, ValueError):
    """A value was refused before the model saw it.

    Args:
        field: the name of the field as the caller wrote it, for example `temperature` or `messages[2].role`.
        value: what came.
        allowed: what would have been accepted, in words, for example `a number from 0 to 2`.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        super().__init__(f"{field}={shown} is not allowed: give {allowed}.")
        self.field, self.value, self.allowed = field, value, allowed


class WeightsError(Phi3KitError):
    """A model's files could not be obtained, or are not what they should be."""


class NotebookFailed(Phi3KitError):
    """A notebook stopped at a cell; the message names the cell and its error."""


class NoRoom(WeightsError):
    """Something was not begun, since the disk or the memory would not have held it.

    Args:
        what: what was not begun, as the beginning of a sentence.
        kind: `disk` or `memory`.
        needed: bytes that it takes.
        free: bytes that are to be had.
        remedy: what would make room, as an order.
    """

    def __init__(self, what: str, kind: str, needed: int, free: int, remedy: str) -> None:
        wanted, left = (f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB" for n in (needed, free))
        super().__init__(
            f"{what} needs about {wanted} of {kind}, and {left} are free: {remedy}. "
            "If you know better, go on with --force (in a notebook and with make: PHI3KIT_FORCE=1)."
        )
        self.kind, self.needed, self.free = kind, needed, free
