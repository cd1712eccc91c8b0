"""What a body of `/v1/chat/completions` may hold: honoured, accepted without effect, refused by name."""

import json

import pytest

from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.generation.options import declared
from phi3kit.serving import body, memory, schemas
from phi3kit.serving.guard import read_keys

MESSAGES = [{"role": "user", "content": "Hello!"}]


def parse(**fields):
    return body.parse(json.dumps({"messages": MESSAGES, **fields}).encode())


def test_options_arrive_under_their_names():
    options = parse(max_tokens=5, temperature=1, top_p=0.5, stop="a", seed=3, top_k=2, repetition_penalty=1.5).options
    assert (options.max_tokens, options.top_p, options.stop, options.seed) == (5, 0.5, ("a",), 3)


def test_the_newer_name_of_max_tokens_counts():
    assert parse(max_completion_tokens=7).options.max_tokens == 7


@pytest.mark.parametrize(
    "fields", [{"user": "me"}, {"metadata": {"a": "b"}}, {"store": False}, {"n": 1}, {"tools": []}]
)
def test_what_asks_for_nothing_is_accepted(fields):
    assert parse(**fields) == parse()


@pytest.mark.parametrize("name", [*(option.name for option in declared()), "n", "stream", "response_format", "model"])
def test_null_is_as_if_it_were_not_there(name):
    assert parse(**{name: None}) == parse()


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "!"}]
    assert parse(messages=[{"role": "user", "content": parts}]).messages == MESSAGES


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"n": True}, "n"),
        ({"frequency_penalty": False}, "frequency_penalty"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"store": True}, "store"),
        ({"audio": {}}, "audio"),
        ({"misspelt": 1}, "misspelt"),
        ({"model": 3}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"other": 1}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "include_usage"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": True}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"seed": 10**30}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"messages": None}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
        ),
    ],
)
def test_the_rest_is_refused_by_name(fields, name):
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)
    assert refused.value.field == name


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000, b"\0"],
    ids=range(10),
)
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(InvalidRequest, match="body"):
        body.parse(raw)


def test_the_documented_schema_names_every_field():
    assert body.json_schema()["properties"].keys() >= {option.name for option in declared()} | {"messages", "stream"}


# Schemas: sizes are refused before anything is compiled


def nested(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000},
        {"type": "string", "minLength": 10**6},
        {"type": "object", "properties": {"a": {"type": "array", "maxItems": 10**9}}},
        {"type": "string", "pattern": "(a{1000}){1000}"},
        {"type": "string", "pattern": "a" * 1000},
        {"type": "object", "patternProperties": {"b{100000}": {}}},
        {"enum": [str(i) for i in range(5000)]},
        {"description": "x" * 100_000},
        nested(100),
        nested(400),
    ],
    ids=range(10),
)
def test_a_schema_that_explodes_is_refused(schema):
    with pytest.raises(InvalidRequest, match="response_format"):
        schemas.checked({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})


@pytest.mark.parametrize(
    "response_format",
    ["json", {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": 3}}, 5],
    ids=range(5),
)
def test_an_unknown_response_format_is_refused(response_format):
    with pytest.raises(InvalidRequest, match="response_format"):
        schemas.checked(response_format)


@pytest.mark.parametrize("response_format", [None, {"type": "text"}])
def test_any_text_needs_no_schema(response_format):
    assert schemas.checked(response_format) is None


def test_a_schema_of_usual_size_passes():
    schema = nested(5)
    assert schemas.checked({"type": "json_schema", "json_schema": {"schema": schema}}) == schema


# Memory: a token of this graph takes 4 bytes


@pytest.fixture
def graph():
    from fake_session import graph

    return graph(context=1000)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"budget": 10**9}, (8, 1000)),
        ({"budget": 10**9, "slots": 3}, (3, 1000)),
        ({"budget": 10**9, "context": 100}, (8, 100)),
        ({"budget": 2 * 4 * 1000}, (2, 1000)),
        ({"budget": 4 * 500}, (1, 500)),
        ({"budget": 4 * 500, "slots": 3, "context": 250}, (2, 250)),
    ],
)
def test_memory_pays_for_the_context_first(graph, settings, expected):
    chosen = memory.plan(graph, **settings)
    assert (chosen.slots, chosen.context, chosen.bytes) == (
        *expected,
        expected[0] * expected[1] * graph.bytes_per_token,
    )


@pytest.mark.parametrize("settings", [{"budget": 100}, {"budget": 4 * 500, "context": 600}])
def test_memory_that_pays_for_no_slot_is_refused(graph, settings):
    with pytest.raises(WeightsError, match="--kv-memory"):
        memory.plan(graph, **settings)


@pytest.mark.parametrize("context", [-1, 5, 1001])
def test_a_context_that_the_model_lacks_is_refused(graph, context):
    with pytest.raises(InvalidRequest, match="context"):
        memory.plan(graph, context=context, budget=10**9)


# Keys


def test_keys_stand_one_in_a_line(tmp_path):
    (tmp_path / "keys").write_text("# ours\none\n\n two \n", encoding="utf-8")
    assert read_keys(tmp_path / "keys") == ["one", "two"]


@pytest.mark.parametrize("content", [None, "", "# none\n"])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "keys").write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest, match="api-key-file"):
        read_keys(tmp_path / "keys")
