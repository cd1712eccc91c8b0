"""What the forms share: their style, their box, and how they are displayed.

An HTML widget renders markup, so the forms pass every text of a person or a model through `html.escape`. Their only
colour is the theme's own (`currentColor`), and it carries no meaning.
"""

from typing import Any, TypeVar

LABELLED = {"layout": {"width": "44em", "max_width": "98%"}, "style": {"description_width": "8em"}}
AS_TYPED = "white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5"

AnyForm = TypeVar("AnyForm")


def box(name: str, *parts: Any) -> Any:
    """Put the parts of a form, one below the other, into a box with the CSS class `phi3kit-NAME`."""
    import ipywidgets as w

    widget = w.VBox(parts)
    widget.add_class(f"phi3kit-{name}")
    return widget


def display(form: AnyForm) -> AnyForm:
    """Display a form's box and return the form."""
    from IPython import display

    display.display(form.box)
    return form
