"""Forms that help to understand; where nobody watches, each prints what it would show and leaves nothing behind."""

from phi3kit.workbook.widgets.chat import ChatForm, talk
from phi3kit.workbook.widgets.sampling import SamplingForm, drawn, explore_sampling
from phi3kit.workbook.widgets.template import TemplateForm, inspect_template

__all__ = ["ChatForm", "SamplingForm", "TemplateForm", "drawn", "explore_sampling", "inspect_template", "talk"]
