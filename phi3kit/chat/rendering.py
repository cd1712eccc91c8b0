"""Chat templates, compiled as transformers compiles them, so that the prompts come out equal.

The settings are those of `utils/chat_template_utils.py` in transformers 5.17.
"""

import json
from collections.abc import Callable
from typing import Any

from jinja2 import Template, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """`{% generation %}`, which marks what the assistant said; for a prompt it changes nothing."""

    tags = {"generation"}  # noqa: RUF012, the name that Jinja reads

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


def compiled(source: str, refuse: Callable[[str], None]) -> Template:
    """Compile a chat template.

    Args:
        source: in Jinja's language.
        refuse: what the template's `raise_exception` calls with its message; it raises.

    Raises:
        jinja2.TemplateError: the source is no template.
    """
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json  # Jinja's own escapes what HTML would obey
    environment.globals["raise_exception"] = refuse
    return environment.from_string(source)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)
