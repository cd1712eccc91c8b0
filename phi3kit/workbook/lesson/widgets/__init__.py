"""Forms to experiment with in JupyterLab. Under papermill or nbval, each prints an example of what it would show."""

from phi3kit.workbook.lesson.widgets.chat import ChatForm, talk
from phi3kit.workbook.lesson.widgets.sampling import SamplingForm, distribution, explore_sampling
from phi3kit.workbook.lesson.widgets.template import TemplateForm, inspect_template

__all__ = ["ChatForm", "SamplingForm", "TemplateForm", "distribution", "explore_sampling", "inspect_template", "talk"]
