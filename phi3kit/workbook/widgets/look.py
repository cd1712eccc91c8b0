"""What the forms have in common: their looks, and how one comes onto the screen.

An HTML widget obeys markup, so whatever a person or a model says passes through `html.escape` on its way there.
Colours are the theme's own (`currentColor`), and none carries a meaning.
"""

from typing import Any, TypeVar

LABELLED = {"layout": {"width": "44em", "max_width": "98%"}, "style": {"description_width": "8em"}}
AS_TYPED = "white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5"

Form = TypeVar("Form")


def boxed(name: str, *parts: Any) -> Any:
    """The parts of a form, one below the other, in a box with the CSS class `phi3kit-NAME`."""
    import ipywidgets as w

    box = w.VBox(parts)
    box.add_class(f"phi3kit-{name}")
    return box


def shown(form: Form) -> Form:
    """Display a form's box and return the form."""
    from IPython.display import display

    display(form.box)
    return form
