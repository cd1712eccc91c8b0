"""Both signatures name every generation option, with the types and defaults of their one declaration."""

import pytest

from phi3kit.chat import openai
from phi3kit.generation.options import declared
from phi3kit.wrappers import Phi3Chat, Phi3Model

TYPES = {int: "long", float: "double", str: "string"}
# MLflow takes no null for a whole number, and no single text for a list.
NULLABLE = {option.name: ("double" if option.type is float else "any", False) for option in declared()}


def test_the_prompt_signature_has_a_param_for_each_option():
    params = {p["name"]: (p["type"], p["default"], p["shape"]) for p in Phi3Model.signature().params.to_dict()}
    assert params == {
        option.name: (TYPES[option.type], [] if option.many else option.default, (-1,) if option.many else None)
        for option in declared()
    }


def test_the_prompt_signature_requires_a_text_alone():
    assert columns(Phi3Model) == {"prompt": ("string", True), **NULLABLE, "params": ("object", False)}


def test_the_prompt_signature_gives_text():
    assert Phi3Model.signature().outputs.input_types()[0].name == "string"


def test_the_chat_signature_has_no_params():
    """MLflow's server would move options out of a chat request, and refuse nulls and single texts among them."""
    assert Phi3Chat.signature().params is None


def columns(wrapper):
    return {c["name"]: (c["type"], c["required"]) for c in wrapper.signature().inputs.to_dict()}


def test_the_chat_signature_requires_messages_alone():
    required = {name for name, (_, required) in columns(Phi3Chat).items() if required}
    assert required == {"messages"}


@pytest.mark.parametrize("name", ["max_completion_tokens", "params", "max_new_tokens", *openai.NEUTRAL])
def test_the_chat_signature_names_what_is_refused(name):
    assert columns(Phi3Chat)[name] == ("any", False)


def test_the_chat_signature_has_a_column_for_each_option():
    assert NULLABLE.items() <= columns(Phi3Chat).items()
