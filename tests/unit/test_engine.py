"""The engine over a model without weights: refusals, batches, streams, stop strings, and what og is asked for."""

import gc
import weakref

import pytest
from fake_og import PAD, FakeModel, FakeTokenizer

from phi3kit.errors import InvalidRequest
from phi3kit.generation import Engine, Options
from phi3kit.generation.engine import BATCH_SIZE, BATCH_TOKENS, PREFILL_SLICE


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def engine(model) -> Engine:
    return Engine(model, FakeTokenizer())


def texts(answers) -> list[str]:
    return [answer.text for answer in answers]


# Batches

PROMPTS = ["a", "bc" * 20, "d" * 9, "e", "fg", "h" * 33, "i", "jk", "l" * 17, "m", "n"]


def test_a_batch_is_answered_in_order(engine):
    assert len(PROMPTS) > BATCH_SIZE
    assert texts(engine.generate(PROMPTS)) == PROMPTS


def test_no_prompts_get_no_answers(engine):
    assert engine.generate([]) == []


def test_texts_and_token_ids_are_both_prompts(engine):
    assert texts(engine.generate(["abc", [97, 98, 99]])) == ["abc", "abc"]


def test_a_batch_is_padded_and_read_whole(engine, model):
    engine.generate(PROMPTS)
    assert model.reads == [[40] * 8, [17] * 3]


def test_a_batch_holds_few_tokens(engine, model):
    engine.generate(["a" * 100] * 7)
    assert model.reads == [[100] * 5, [100] * 2]
    assert 5 * 100 <= BATCH_TOKENS < 6 * 100


def test_long_prompts_are_read_alone_and_in_slices(engine, model):
    engine.generate(["a" * 300, "b" * 100])
    assert model.reads == [32] * 9 + [12] + [32] * 3 + [4]


def test_slices_are_read_in_order(engine):
    prompt = "".join(map(chr, range(32, 127)))
    assert len(prompt) > 2 * PREFILL_SLICE
    assert texts(engine.generate([prompt])) == [prompt]


def test_a_prompt_that_ends_with_padding_is_alone(engine, model):
    engine.generate([[97, PAD], [98]])
    assert model.reads == [2, 1]


def test_seeded_samples_are_drawn_alone(engine, model):
    engine.generate(["a", "b"], Options(temperature=1.0, seed=3))
    assert [search["batch_size"] for search in model.searches] == [1, 1]


def test_a_finished_row_waits_for_the_longest(engine):
    short, long = engine.generate(["a", "abcdef"])
    assert (short.text, short.completion_tokens) == ("a", 2)
    assert (long.text, long.completion_tokens) == ("abcdef", 7)


# Answers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), ("abcdef", "stop", 7)),
        (Options(max_tokens=3), ("abc", "length", 3)),
        (Options(max_tokens=7), ("abcdef", "stop", 7)),  # the end token in the last place is still an end
        (Options(stop="cd"), ("ab", "stop", 4)),
        (Options(stop=["xyz", "ef", "de"]), ("abc", "stop", 5)),
        (Options(stop="zzz"), ("abcdef", "stop", 7)),
    ],
    ids=["end", "length", "end last", "stop", "stops", "no stop"],
)
def test_how_an_answer_ends(engine, options, expected):
    (answer,) = engine.generate(["abcdef"], options)
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == expected


def test_an_answer_counts_its_prompt(engine):
    (answer,) = engine.generate(["abc"])
    assert (answer.prompt_tokens, answer.token_ids) == (3, (97, 98, 99, 0))


# Streams


def test_a_stream_yields_the_text_in_pieces(engine):
    assert list(engine.stream("abc")) == ["a", "b", "c"]


def test_a_streams_answer_comes_with_its_end(engine):
    stream = engine.stream("ab")
    assert [next(stream), stream.answer] == ["a", None]
    assert list(stream) == ["b"]
    assert stream.answer.text == "ab"


def test_a_stream_holds_back_a_possible_stop(engine):
    assert list(engine.stream("xyzxy!", Options(stop="xy!"))) == ["xyz"]


def test_a_closed_stream_yields_nothing(engine):
    with engine.stream("abc") as stream:
        next(stream)
    assert (list(stream), stream.answer) == ([], None)


def test_a_stream_that_never_began_can_be_closed(engine, model):
    with engine.stream("abc"):
        pass
    assert model.searches == []


def test_a_closed_stream_frees_its_generator(model, monkeypatch):
    generators = []
    build = model.generator
    monkeypatch.setattr(model, "generator", lambda **search: generators.append(weakref.ref(g := build(**search))) or g)
    with Engine(model, FakeTokenizer()).stream("abc") as stream:
        next(stream)
        assert generators[0]() is not None
    gc.collect()
    assert generators[0]() is None


# What og is asked for


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(max_tokens=5), {"do_sample": False}),
        (Options(max_tokens=5, top_p=0.5, top_k=3, seed=4), {"do_sample": False}),
        (
            Options(max_tokens=5, temperature=0.5, top_p=0.9, top_k=10**12, seed=7),
            {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 256, "random_seed": 7},
        ),
        (Options(max_tokens=5, repetition_penalty=1.5), {"do_sample": False, "repetition_penalty": 1.5}),
    ],
    ids=["greedy", "greedy all the same", "sampled", "penalty"],
)
def test_options_reach_og_under_its_names(engine, model, options, expected):
    engine.generate(["abc"], options)
    assert model.searches == [{"batch_size": 1, "max_length": 8} | expected]


def test_the_cache_holds_prompt_and_max_tokens_only(engine, model):
    engine.generate(["a", "abcd"], Options(max_tokens=10))
    assert model.searches[0]["max_length"] == 14


# Refusals, before the model sees anything

REFUSED = [
    ("", "a prompt that is not empty"),
    (" \n", "a prompt that is not empty"),
    ([], "a prompt that is not empty"),
    (3, "a text, or a list of token ids"),
    (None, "a text, or a list of token ids"),
    (b"bytes", "a text, or a list of token ids"),
    ([1.0, 2.0], "a text, or a list of token ids"),
    ([True], "a text, or a list of token ids"),
    ([5, -1], "a list of token ids below 256"),
    ([5, 256], "a list of token ids below 256"),
    ("a\0lost", "a text in characters that the model's tokenizer knows"),
    ("half \ud83d", "a text in characters that the model's tokenizer knows"),
    ("你好", "a text in characters that the model's tokenizer knows"),
    ("word " * 900, "a prompt of less than 4096 tokens"),
]


@pytest.mark.parametrize(("prompt", "allowed"), REFUSED, ids=range(len(REFUSED)))
def test_a_bad_prompt_is_refused(engine, model, prompt, allowed):
    with pytest.raises(InvalidRequest) as refused:
        engine.generate(["good", prompt])
    assert (refused.value.field, refused.value.value) == ("prompts[1]", prompt)
    assert allowed in refused.value.allowed
    assert model.searches == []


@pytest.mark.parametrize("prompt", ["", [256]])
def test_a_stream_refuses_before_its_first_piece(engine, prompt):
    with pytest.raises(InvalidRequest, match=r"^prompt="):
        engine.stream(prompt)


@pytest.mark.parametrize("prompts", [None, 3, "text", b"text", {"prompt": "text"}])
def test_prompts_are_a_list(engine, prompts):
    with pytest.raises(InvalidRequest, match=r"^prompts=.* give a list of prompts"):
        engine.generate(prompts)


def test_options_are_options(engine):
    with pytest.raises(InvalidRequest, match=r"^options="):
        engine.generate(["a"], {"max_tokens": 3})


def endless(_: list[int]) -> list[int]:
    return [97] * 400


@pytest.mark.parametrize(("length", "tokens"), [(3, 37), (39, 1)])
def test_without_a_limit_an_answer_has_what_fits(length, tokens):
    engine = Engine(FakeModel(context_length=40, answer=endless), FakeTokenizer())
    (answer,) = engine.generate([[97] * length])
    assert (answer.completion_tokens, answer.finish_reason) == (tokens, "length")


def test_without_a_limit_an_answer_has_256_tokens():
    engine = Engine(FakeModel(answer=endless), FakeTokenizer())
    assert engine.generate(["a"])[0].completion_tokens == 256


def test_a_long_neighbour_does_not_shorten_an_answer():
    engine = Engine(FakeModel(context_length=40, answer=endless), FakeTokenizer())
    answers = engine.generate([[97] * 30, [97] * 2])
    assert [answer.completion_tokens for answer in answers] == [10, 38]


@pytest.mark.parametrize(("length", "left"), [(39, 1), (30, 10)])
def test_prompt_and_answer_share_the_context(length, left):
    engine = Engine(FakeModel(context_length=40), FakeTokenizer())
    (answer,) = engine.generate([[97] * length], Options(max_tokens=left))
    assert answer.completion_tokens == left
    with pytest.raises(InvalidRequest) as refused:
        engine.generate([[97] * length], Options(max_tokens=left + 1))
    assert (refused.value.field, refused.value.value) == ("max_tokens", left + 1)


@pytest.mark.parametrize("length", [40, 41])
def test_a_prompt_leaves_room_for_an_answer(length):
    engine = Engine(FakeModel(context_length=40), FakeTokenizer())
    with pytest.raises(InvalidRequest, match=f"less than 40 tokens \\(this one has {length}\\)"):
        engine.generate([[97] * length], Options(max_tokens=1))
