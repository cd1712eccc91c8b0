"""The engine on `tiny`: every promise of `phi3kit.generation`, proven on real weights."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from phi3kit import machine
from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.generation import Engine, Options
from phi3kit.generation import engine as engine_module
from phi3kit.generation.answer import Row

pytestmark = pytest.mark.tiny

# More than one batch, and of mixed lengths.
QUESTIONS = [
    "What is the capital of Spain?",
    "Hello!",
    "Tell me a joke about atom",
    "Write a haiku about snow and the winter wind in the mountains, and then explain it to a child in two sentences.",
    "What is 2 plus 2?",
    "Who wrote Hamlet?",
    "Name three planets.",
    "Why is the sky blue? Answer as if you were a pirate who has sailed all the seven seas for a hundred years.",
    "Grüße aus Zürich! 😀",
    "Thank you!",
    "What is the capital of France?",
]
SPAIN = f"<|user|>{QUESTIONS[0]}<|end|><|assistant|>"


@pytest.fixture(scope="module")
def prompts(template) -> list[list[int]]:
    return [template.encode([{"role": "user", "content": question}]) for question in QUESTIONS]


def told(answer) -> tuple:
    """What an answer says, without how long it took."""
    return answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens, answer.token_ids


# Batches and streams


def test_a_batch_answers_every_prompt_in_order_as_each_alone(engine, prompts):
    assert len(prompts) > engine_module.BATCH_SIZE
    options = Options(max_tokens=12)
    together = engine.generate(prompts, options)
    assert [told(answer) for answer in together] == [told(engine.generate([one], options)[0]) for one in prompts]
    assert len({answer.text for answer in together}) == len(prompts)
    backwards = engine.generate(prompts[::-1], options)
    assert list(map(told, backwards)) == list(map(told, together[::-1]))


def test_no_prompts_no_answers(engine):
    assert engine.generate([]) == []


@pytest.mark.parametrize("ending", ["<|endoftext|>", "<|end|>"])
def test_a_prompt_that_ends_with_the_padding_token_keeps_its_answer_in_a_batch(engine, ending):
    options = Options(max_tokens=8)
    batch = [SPAIN + ending, f"<|user|>{QUESTIONS[3]}<|end|><|assistant|>", SPAIN]
    together = engine.generate(batch, options)
    assert list(map(told, together)) == [told(engine.generate([one], options)[0]) for one in batch]


def test_texts_and_ids_are_both_prompts(engine, prompts):
    by_text, by_ids = engine.generate([SPAIN, prompts[0]], Options(max_tokens=12))
    assert told(by_text) == told(by_ids)
    assert "Madrid" in by_text.text


@pytest.mark.parametrize(
    "options",
    [Options(max_tokens=20), Options(max_tokens=20, stop=["apital of Sp", "!"]), Options(max_tokens=3)],
    ids=["end", "stop", "length"],
)
def test_a_streams_pieces_are_the_text(engine, prompts, options):
    for prompt in prompts[:4]:
        stream = engine.stream(prompt, options)
        assert stream.completion is None
        pieces = []
        for piece in stream:
            assert stream.completion is None
            pieces.append(piece)
        assert all(pieces), "no empty pieces"
        assert "".join(pieces) == stream.completion.text
        assert told(stream.completion) == told(engine.generate([prompt], options)[0])
        assert list(stream) == []


def test_the_totals(engine, prompts):
    for prompt, answer in zip(prompts, engine.generate(prompts, Options(max_tokens=12)), strict=True):
        assert answer.prompt_tokens == len(prompt)
        assert 1 <= answer.completion_tokens == len(answer.token_ids) <= 12
        assert answer.seconds_to_first_token > 0
        assert answer.tokens_per_second > 0


def test_finish_reason_and_end_token(engine):
    (whole,) = engine.generate([SPAIN], Options(max_tokens=64))
    assert whole.finish_reason == "stop"
    assert whole.completion_tokens < 64
    assert "<|" not in whole.text
    (cut,) = engine.generate([SPAIN], Options(max_tokens=3))
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 3)
    assert whole.token_ids[:3] == cut.token_ids
    (stopped,) = engine.generate([SPAIN], Options(max_tokens=64, stop="pital of Sp"))
    assert (stopped.text, stopped.finish_reason) == ("The ca", "stop")
    # The end token in the very last place is still an end.
    (just,) = engine.generate([SPAIN], Options(max_tokens=whole.completion_tokens))
    assert just.finish_reason == "stop"


# Many threads


def requests(engine: Engine, prompts: list[list[int]]) -> list[Callable[[], object]]:
    def stream(prompt: list[int], options: Options) -> tuple:
        stream = engine.stream(prompt, options)
        return "".join(stream), told(stream.completion)

    def batch(some: list[list[int]], options: Options) -> list[tuple]:
        return [told(answer) for answer in engine.generate(some, options)]

    sampled = Options(max_tokens=10, temperature=1.5, seed=5)
    return [
        lambda: batch(prompts[:3], Options(max_tokens=10)),
        lambda: stream(prompts[3], Options(max_tokens=14)),
        lambda: batch([prompts[4]], Options(max_tokens=10, stop=["4"])),
        lambda: stream(prompts[5], sampled),
        lambda: batch(prompts[6:8], sampled),
        lambda: stream(prompts[8], Options(max_tokens=6, repetition_penalty=1.5)),
    ]


def at_once(calls: list[Callable[[], object]]) -> list[object]:
    """Let every call begin at the same moment, each in a thread of its own; return results or exceptions, in order."""
    gate = threading.Barrier(len(calls))

    def guarded(call: Callable[[], object]) -> object:
        gate.wait(timeout=60)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(guarded, calls))


def test_many_threads_get_what_each_gets_alone(engine, prompts):
    calls = requests(engine, prompts)
    alone = [call() for call in calls]
    for _ in range(2):
        assert at_once(calls) == alone


def test_a_bad_request_among_threads_changes_nothing_for_the_others(engine, prompts):
    calls = requests(engine, prompts)
    alone = [call() for call in calls]
    bad = [
        lambda: engine.generate([prompts[0], ""], Options(max_tokens=4)),
        lambda: engine.stream([10**6], Options(max_tokens=4)),
        lambda: engine.generate([prompts[0]], Options(max_tokens=10**6)),
    ]
    together = at_once([*bad, *calls])
    assert [type(error) for error in together[: len(bad)]] == [InvalidRequest] * len(bad)
    assert together[len(bad) :] == alone


# Refused before the model sees it

LONG = "word " * 9000
REFUSED = [
    ("prompts[0]", "", "a prompt that is not empty"),
    ("prompts[0]", " \n", "a prompt that is not empty"),
    ("prompts[0]", [], "a prompt that is not empty"),
    ("prompts[0]", 3, "a text, or a list of token ids"),
    ("prompts[0]", None, "a text, or a list of token ids"),
    ("prompts[0]", b"bytes", "a text, or a list of token ids"),
    ("prompts[0]", [1.0, 2.0], "a text, or a list of token ids"),
    ("prompts[0]", [True], "a text, or a list of token ids"),
    ("prompts[0]", [5, -1], "a list of token ids below 49152"),
    ("prompts[0]", [5, 49152], "a list of token ids below 49152"),
    ("prompts[0]", "a\0lost", "a text in characters that the model's tokenizer knows"),
    ("prompts[0]", "half \ud83d", "a text in characters that the model's tokenizer knows"),
    ("prompts[0]", "a\x04b", "a text in characters that the model's tokenizer knows"),
    ("prompts[0]", LONG, "a prompt of less than 8192 tokens"),
]


@pytest.fixture
def untouchable(monkeypatch):
    import onnxruntime_genai as og

    def touched(*_):
        raise AssertionError("the model was touched")

    monkeypatch.setattr(og, "Generator", touched)
    monkeypatch.setattr(og, "GeneratorParams", touched)


@pytest.mark.parametrize(("field", "prompt", "allowed"), REFUSED, ids=range(len(REFUSED)))
def test_a_bad_prompt_never_reaches_the_model(engine, untouchable, field, prompt, allowed):
    with pytest.raises(InvalidRequest) as refused:
        engine.generate([prompt])
    assert refused.value.field == field
    assert refused.value.value is prompt
    assert allowed in str(refused.value)
    with pytest.raises(InvalidRequest) as refused:
        engine.stream(prompt)  # here, not at the first piece
    assert refused.value.field == "prompt"
    with pytest.raises(InvalidRequest) as refused:
        engine.generate([SPAIN, prompt, SPAIN])
    assert refused.value.field == "prompts[1]"


@pytest.mark.parametrize("prompts", [None, 3, "text", b"text", {"prompt": "text"}])
def test_prompts_are_a_list(engine, untouchable, prompts):
    with pytest.raises(InvalidRequest, match=r"^prompts=.* is not allowed: give a list of prompts"):
        engine.generate(prompts)


def test_options_are_options(engine, untouchable):
    with pytest.raises(InvalidRequest, match=r"^options="):
        engine.generate([SPAIN], {"max_tokens": 3})


def test_a_good_request_does_reach_the_model(engine, untouchable):
    with pytest.raises(AssertionError, match="touched"):
        engine.generate([SPAIN])


def linked(source: Path, to: Path, **genai_config: dict) -> Path:
    """A copy of a model folder, by links, with other entries in its `genai_config.json`."""
    for path in source.iterdir():
        (to / path.name).symlink_to(path)
    config = json.loads((source / "genai_config.json").read_text())
    for section, entries in genai_config.items():
        config[section] |= entries
    (to / "genai_config.json").unlink()
    (to / "manifest.json").unlink()  # the change is meant
    (to / "genai_config.json").write_text(json.dumps(config))
    return to


def test_prompt_and_answer_fill_the_context_and_no_more(tiny_onnx, tmp_path):
    engine = Engine(linked(tiny_onnx, tmp_path, model={"context_length": 40}))
    assert engine.context_length == 40
    for length, room in ((39, 1), (30, 10)):
        (answer,) = engine.generate([[20] * length], Options(max_tokens=room))
        assert answer.prompt_tokens + answer.completion_tokens <= 40
        with pytest.raises(InvalidRequest) as refused:
            engine.generate([[20] * length], Options(max_tokens=room + 1))
        assert (refused.value.field, refused.value.value) == ("max_tokens", room + 1)
        assert f"at most {room}: the prompt takes {length} of the model's 40 tokens" in str(refused.value)
    for length in (40, 41):
        with pytest.raises(InvalidRequest, match=f"less than 40 tokens \\(this one has {length}\\)"):
            engine.generate([[20] * length], Options(max_tokens=1))
    # In a batch the short prompt keeps its own room, whatever the long one takes.
    long, short = engine.generate([[20] * 30, [21]], Options(max_tokens=10, stop="never"))
    assert (long.prompt_tokens, short.prompt_tokens) == (30, 1)


# Memory

MEASURE = """
import sys
import psutil
from phi3kit.generation import Engine, Options
engine, megabytes = Engine(sys.argv[1]), lambda: psutil.Process().memory_info().rss / 1e6
engine.generate(["Hello"], Options(max_tokens=4))
before, found = megabytes(), {}
def measure(name, max_tokens, end):
    stream = engine.stream("Hello", Options(max_tokens=max_tokens))
    found[name] = [megabytes() - before]
    next(stream)
    found[name].append(megabytes() - before)
    end(stream)
    found[name].append(megabytes() - before)
measure("small", 16, lambda stream: stream.close())
measure("close", 8000, lambda stream: stream.close())
measure("with", 8000, lambda stream: stream.__exit__())
kept = []
def drain(stream):
    kept.append(stream)
    for _ in stream: pass
engine.stream("Hello")
measure("drained", 2000, drain)
import json; print(json.dumps(found))
"""


def test_memory_is_taken_for_prompt_and_max_tokens_and_given_back_at_once(tiny_onnx):
    # 30 layers x keys and values x 3 heads x 64 x 4 bytes: 46 kB for each token, 377 MB for the whole context window.
    # A fixed threshold: otherwise glibc now and then keeps freed blocks for the next request instead of the system.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tiny_onnx)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    for made, _, left in found.values():
        assert made < 30, "nothing is taken before the first piece is asked for"
        assert left < 30, "all is given back, though the stream itself is still there"
    assert found["small"][1] < 30
    assert found["close"][1] > 250
    assert found["with"][1] > 250
    assert 60 < found["drained"][1] < 150


def test_a_closed_stream_is_over(engine):
    with engine.stream(SPAIN) as stream:
        assert next(stream) == "The"
    assert list(stream) == []
    assert stream.completion is None
    stream.close()


def test_a_stream_never_begun_can_be_closed(engine, untouchable):
    with engine.stream(SPAIN) as stream:
        pass
    assert list(stream) == []


# Prefill


class Recorder:
    """`og.Generator`, and a note of how many tokens each `append_tokens` was given."""

    sizes: list[object]

    def __init__(self, *args: object) -> None:
        self._generator = Recorder.real(*args)

    def append_tokens(self, tokens: list) -> None:
        Recorder.sizes.append([len(row) for row in tokens] if isinstance(tokens[0], list) else len(tokens))
        self._generator.append_tokens(tokens)

    def __getattr__(self, name: str) -> object:
        return getattr(self._generator, name)


@pytest.fixture
def sizes(monkeypatch) -> list[object]:
    import onnxruntime_genai as og

    Recorder.real, Recorder.sizes = og.Generator, []
    monkeypatch.setattr(og, "Generator", Recorder)
    return Recorder.sizes


def test_a_prompt_is_read_in_slices_and_answered_as_if_read_whole(engine, template, sizes, monkeypatch):
    content = "Here is a list of cities: " + ", ".join(f"city number {i}" for i in range(30)) + ". How many are there?"
    prompt = template.encode([{"role": "user", "content": content}])
    options = Options(max_tokens=16)
    sliced = list(engine.stream(prompt, options))
    full, rest = divmod(len(prompt), 32)
    assert full > 3
    assert sizes == [32] * full + [rest] * (rest > 0)
    sizes.clear()
    monkeypatch.setattr(engine_module, "PREFILL_SLICE", 10**6)
    assert list(engine.stream(prompt, options)) == sliced
    assert sizes == [len(prompt)]


def test_a_batch_is_padded_on_the_right_and_read_whole(engine, prompts, sizes):
    engine.generate(prompts, Options(max_tokens=1))
    first, second = prompts[:8], prompts[8:]
    assert sizes == [[max(map(len, first))] * 8, [max(map(len, second))] * len(second)]


def test_long_prompts_are_read_in_slices_and_not_in_a_batch(engine, sizes):
    long = [500 + i for i in range(300)]
    engine.generate([long, long[:100]], Options(max_tokens=1))
    assert [size for size in sizes if isinstance(size, list)] == []
    assert max(sizes) == engine_module.PREFILL_SLICE


def test_a_batch_holds_no_more_tokens_than_other_threads_can_wait_for(engine, sizes):
    engine.generate([[500 + i for i in range(100)]] * 7, Options(max_tokens=1))
    assert sizes == [[100] * 5, [100] * 2]  # five of them are below 512 tokens, six are not


# UTF-8

TEXTS = ["😀 Grüße 你好 e", "👩‍👩‍👧‍👦 ok 🇪🇸!", "日本語のテキスト、そして한국어", "naïve Ω≈ç√∫ ’“”… ไทย हिन्दी"]


@pytest.mark.parametrize("text", TEXTS)
def test_no_piece_cuts_a_character(engine, tiny_onnx, text):
    ids = Tokenizer.from_file(str(tiny_onnx / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert len(ids) > len(text.split())
    for max_tokens in range(1, len(ids) + 1):
        row = Row(engine._tokenizer, engine._end_ids, 1, Options(max_tokens=max_tokens))
        pieces = [row.push(i) for i in ids[:max_tokens]]
        assert row.finish_reason == "length"
        assert not any("\ufffd" in piece for piece in pieces)
        assert text.startswith("".join(pieces))
    assert "".join(pieces) == text


def test_real_answers_hold_no_half_characters(engine, template):
    prompt = template.encode([{"role": "user", "content": "Repeat after me: 😀 你好 Grüße 😀 你好"}])
    for seed in range(4):
        stream = engine.stream(prompt, Options(max_tokens=24, temperature=0.7, seed=seed))
        for piece in stream:
            piece.encode()  # no half of a pair either
        assert stream.completion.token_ids


# Sampling


def test_a_seed_fixes_the_answer_whatever_its_neighbours(engine, prompts):
    options = Options(max_tokens=16, temperature=1.2, seed=11)
    joke = prompts[2]
    (alone,) = engine.generate([joke], options)
    among = engine.generate([prompts[7], joke, prompts[0], joke], options)
    assert told(among[1]) == told(among[3]) == told(alone)
    assert told(engine.generate([prompts[1], joke], options)[1]) == told(alone)
    stream = engine.stream(joke, options)
    assert "".join(stream) == alone.text
    others = {engine.generate([joke], options.model_copy(update={"seed": seed}))[0].text for seed in range(4)}
    assert len(others) > 2


def test_without_a_seed_sampling_differs(engine, prompts):
    options = Options(max_tokens=16, temperature=1.5)
    assert len({answer.text for answer in engine.generate([prompts[2]] * 4, options)}) > 1


def test_greedy_unless_a_temperature_is_given(engine, prompts):
    none, zero, seeded = (
        engine.generate(prompts[:4], options)
        for options in (
            Options(max_tokens=12),
            Options(max_tokens=12, temperature=0, top_p=0.5, top_k=3),
            Options(max_tokens=12, seed=4),
        )
    )
    assert list(map(told, none)) == list(map(told, zero)) == list(map(told, seeded))


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}])
def test_top_k_and_top_p_narrow_sampling_down_to_greedy(engine, prompts, narrow):
    greedy, sampled, wide = (
        engine.generate(prompts[:3], Options(max_tokens=8, **values))
        for values in ({}, {"temperature": 2.0, "seed": 1, **narrow}, {"temperature": 2.0, "seed": 1, "top_k": 10**12})
    )
    assert [answer.token_ids for answer in sampled] == [answer.token_ids for answer in greedy]
    assert [answer.token_ids for answer in wide] != [answer.token_ids for answer in greedy]


def test_the_repetition_penalty_comes_from_the_model_unless_given(engine, tiny_onnx, prompts, tmp_path):
    own = json.loads((tiny_onnx / "genai_config.json").read_text())["search"]["repetition_penalty"]
    options, stern = Options(max_tokens=12), Options(max_tokens=12, repetition_penalty=1.9)
    usual = engine.generate(prompts[:4], options)
    explicit = engine.generate(prompts[:4], Options(max_tokens=12, repetition_penalty=own))
    assert list(map(told, usual)) == list(map(told, explicit))
    other = Engine(linked(tiny_onnx, tmp_path, search={"repetition_penalty": 1.9}))
    changed = other.generate(prompts[:4], options)
    assert list(map(told, changed)) == list(map(told, engine.generate(prompts[:4], stern)))
    assert list(map(told, changed)) != list(map(told, usual))


# Opening a folder


def test_threads(tiny_onnx, monkeypatch):
    import psutil

    assert machine.physical_cores() >= 1
    before = psutil.Process().num_threads()
    single = Engine(tiny_onnx, threads=1)
    assert single.threads == 1
    between = psutil.Process().num_threads()
    monkeypatch.setenv("PHI3KIT_THREADS", "4")
    four = Engine(tiny_onnx)
    assert four.threads == 4
    # onnxruntime counts the calling thread among those that compute.
    assert (between - before, psutil.Process().num_threads() - between) == (0, 3)
    assert Engine(tiny_onnx, threads=1).threads == 1, "an argument wins"
    monkeypatch.setenv("PHI3KIT_THREADS", "two")
    with pytest.raises(InvalidRequest, match="PHI3KIT_THREADS='two' is not allowed: give a whole number"):
        Engine(tiny_onnx)
    monkeypatch.delenv("PHI3KIT_THREADS")
    assert Engine(tiny_onnx).threads == machine.physical_cores()


def test_a_folder_that_is_no_model(tiny_onnx, tmp_path):
    with pytest.raises(WeightsError, match=r"has no genai_config\.json: give an onnxruntime-genai model folder"):
        Engine(tmp_path)
    linked(tiny_onnx, tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(WeightsError, match=r"cannot open .* Fetch or export it again"):
        Engine(tmp_path)
