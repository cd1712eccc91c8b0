"""Both signatures name every generation option, with the types and defaults of their one declaration."""

from phi3kit.generation.options import declared
from phi3kit.wrappers import Phi3Chat, Phi3Model

TYPES = {int: "long", float: "double", str: "string"}


def test_the_prompt_signature_has_a_param_for_each_option():
    params = {p["name"]: (p["type"], p["default"], p["shape"]) for p in Phi3Model.signature().params.to_dict()}
    assert params == {
        option.name: (TYPES[option.type], [] if option.many else option.default, (-1,) if option.many else None)
        for option in declared()
    }


def test_the_prompt_signature_takes_and_gives_text():
    signature = Phi3Model.signature()
    inputs = [(column["name"], column["type"]) for column in signature.inputs.to_dict()]
    assert (inputs, signature.outputs.input_types()[0].name) == ([("prompt", "string")], "string")


def test_the_chat_signature_has_a_column_for_each_option():
    columns = {c["name"]: (c["type"], c["required"]) for c in Phi3Chat.signature().inputs.to_dict()}
    options = {option.name: ("array" if option.many else TYPES[option.type], False) for option in declared()}
    assert columns == {"messages": ("array", True), **options, "n": ("long", False), "stream": ("boolean", False)}
