"""Chat templates, found and compiled as transformers does it, so that the prompts come out equal.

The settings are those of `utils/chat_template_utils.py` in transformers 5.17.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi3kit.errors import WeightsError
from phi3kit.system import folders


class Refused(TemplateError):
    """The template itself refuses a conversation, with `raise_exception`."""


class _Generation(Extension):
    """`{% generation %}`, which marks what the assistant said; for a prompt it changes nothing."""

    tags = {"generation"}  # noqa: RUF012, the name that Jinja reads

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


def read_source(folder: Path, config: Mapping[str, Any]) -> str:
    """Return a folder's chat template, from where transformers looks for it; of several with names, the default.

    Args:
        folder: of a model; files of templates in it win.
        config: what its `tokenizer_config.json` holds.

    Raises:
        WeightsError: the folder has none, or none of several is the default.
    """
    more = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    paths = [path for path in (*more, folder / "chat_template.jinja") if path.exists()]
    files = {path.stem.replace("chat_template", "default"): folders.read_text(path) for path in paths}
    source = files or config.get("chat_template")
    if isinstance(source, list):
        source = {each.get("name"): each.get("template") for each in source if isinstance(each, dict)}
    if source and isinstance(source, dict):
        if "default" not in source:
            names = ", ".join(map(str, source))
            raise WeightsError(f"{folder} has the chat templates {names}, and none of them is the default.")
        source = source["default"]
    if not source or not isinstance(source, str):
        raise WeightsError(f"{folder} has no chat template: give an instruct model, or use plain prompts.")
    return source


def compiled(source: str) -> Template:
    """Compile a chat template, given in Jinja's language.

    Raises:
        jinja2.TemplateError: the source is no template.
    """
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json  # Jinja's own escapes what HTML would obey
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> None:
    raise Refused(message)
