"""The engine on `tiny`: what only real weights and the real onnxruntime-genai can show."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tokenizers import Tokenizer

from phi3kit.errors import InvalidRequest, InvalidSetting, WeightsError
from phi3kit.generation import Engine, Options
from phi3kit.generation import engine as engine_module
from phi3kit.generation.answer import Answer, Row
from phi3kit.system import machine

pytestmark = pytest.mark.tiny

SPAIN = "<|user|>What is the capital of Spain?<|end|><|assistant|>"
JOKE = "<|user|>Tell me a joke about atom<|end|><|assistant|>"
# `tiny` repeats the country in its answer, which tells whose answer it is. More than one batch, of mixed lengths: a
# batch is computed in another order than a single prompt, so nearly equal tokens may swap, and texts may differ.
COUNTRIES = ["Spain", "France", "Germany", "Italy", "Egypt", "Greece", "Norway", "Peru", "Kenya", "Canada", "Cuba"]


def contents(answer: Answer) -> tuple:
    """An answer without its times."""
    return answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens, answer.token_ids


def question(i: int) -> str:
    return f"{'Please tell me: ' * (i % 4)}What is the capital of {COUNTRIES[i]}?"


@pytest.fixture(scope="module")
def prompts(template) -> list[list[int]]:
    return [template.encode([{"role": "user", "content": question(i)}]) for i in range(len(COUNTRIES))]


# Batches and streams


@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_a_batch_answers_each_prompt_in_order(engine, prompts, order):
    assert len(prompts) > engine_module.BATCH_SIZE
    answers = engine.generate(prompts[::order], Options(max_tokens=12))
    expected = COUNTRIES[::order]
    named = [next((c for c in COUNTRIES if c in answer.text), answer.text) for answer in answers]
    assert named == expected


def test_a_trailing_pad_token_changes_no_neighbour(engine):
    options = Options(max_tokens=8)
    batch = [SPAIN + "<|endoftext|>", JOKE, SPAIN]  # og pads with this token
    alone = [engine.generate([prompt], options)[0] for prompt in batch]
    assert [contents(answer) for answer in engine.generate(batch, options)] == list(map(contents, alone))


def test_texts_and_ids_get_the_same_answer(engine, template):
    ids = template.encode([{"role": "user", "content": "What is the capital of Spain?"}])
    by_text, by_ids = (engine.generate([prompt], Options(max_tokens=12))[0] for prompt in (SPAIN, ids))
    assert contents(by_text) == contents(by_ids)


@pytest.mark.parametrize(
    "options",
    [Options(max_tokens=20), Options(max_tokens=20, stop=["apital of Sp", "!"]), Options(max_tokens=3)],
    ids=["end", "stop", "length"],
)
def test_a_stream_is_the_answer_in_pieces(engine, prompts, options):
    for prompt in prompts[:3]:
        stream = engine.stream(prompt, options)
        pieces = list(stream)
        (answer,) = engine.generate([prompt], options)
        assert (all(pieces), "".join(pieces)) == (True, answer.text)
        assert contents(stream.answer) == contents(answer)


def test_an_answer_has_times_and_totals(engine, prompts):
    (answer,) = engine.generate(prompts[:1], Options(max_tokens=12))
    assert answer.prompt_tokens == len(prompts[0])
    assert 1 <= answer.completion_tokens == len(answer.token_ids) <= 12
    assert answer.seconds_to_first_token > 0
    assert answer.tokens_per_second > 0


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        (Options(max_tokens=64), "The capital of Spain is Madrid.", "stop"),
        (Options(max_tokens=3), "The capital of", "length"),
        (Options(max_tokens=64, stop="pital of Sp"), "The ca", "stop"),
    ],
    ids=["end", "length", "stop"],
)
def test_how_an_answer_ends(engine, options, text, reason):
    (answer,) = engine.generate([SPAIN], options)
    assert (answer.text, answer.finish_reason) == (text, reason)


# Many threads


def mixed_calls(engine: Engine, prompts: list[list[int]]) -> list[Callable[[], object]]:
    def stream(prompt: list[int], options: Options) -> tuple:
        stream = engine.stream(prompt, options)
        return "".join(stream), contents(stream.answer)

    def batch(some: list[list[int]], options: Options) -> list[tuple]:
        return [contents(answer) for answer in engine.generate(some, options)]

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
    calls = mixed_calls(engine, prompts)
    alone = [call() for call in calls]
    for _ in range(2):
        assert at_once(calls) == alone


def test_a_bad_request_disturbs_no_other_thread(engine, prompts):
    calls = mixed_calls(engine, prompts)
    alone = [call() for call in calls]
    bad = [
        lambda: engine.generate([prompts[0], ""], Options(max_tokens=4)),
        lambda: engine.stream([10**6], Options(max_tokens=4)),
        lambda: engine.generate([prompts[0]], Options(max_tokens=10**6)),
    ]
    together = at_once([*bad, *calls])
    assert [type(error) for error in together[: len(bad)]] == [InvalidRequest] * len(bad)
    assert together[len(bad) :] == alone


def linked(source: Path, to: Path, **genai_config: dict) -> Path:
    """A copy of a model folder, by links, with other entries in its `genai_config.json`."""
    for path in source.iterdir():
        (to / path.name).symlink_to(path)
    config = json.loads((source / "genai_config.json").read_text())
    for section, entries in genai_config.items():
        config[section] |= entries
    (to / "genai_config.json").unlink()
    (to / "manifest.json").unlink()  # which forbids the change
    (to / "genai_config.json").write_text(json.dumps(config))
    return to


# Memory

MEASURE = """
import sys
import psutil
from phi3kit.generation import Engine, Options
engine, megabytes = Engine.open(sys.argv[1]), lambda: psutil.Process().memory_info().rss / 1e6
engine.generate(["Hello"], Options(max_tokens=4))
before, memory = megabytes(), {}
def measure(name, max_tokens, end):
    stream = engine.stream("Hello", Options(max_tokens=max_tokens))
    memory[name] = [megabytes() - before]
    next(stream)
    memory[name].append(megabytes() - before)
    end(stream)
    memory[name].append(megabytes() - before)
measure("small", 16, lambda stream: stream.close())
measure("close", 8000, lambda stream: stream.close())
measure("with", 8000, lambda stream: stream.__exit__())
drained = []
def drain(stream):
    drained.append(stream)
    for _ in stream: pass
engine.stream("Hello")
measure("drained", 2000, drain)
import json; print(json.dumps(memory))
"""


@pytest.fixture(scope="module")
def memory(tiny_onnx) -> dict[str, list[float]]:
    """Megabytes that streams take: before their first piece, after it, and after their end."""
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
    return json.loads(done.stdout)


# 30 layers x keys and values x 3 heads x 64 x 4 bytes: 46 kB for each token, 377 MB for the whole context window.
@pytest.mark.parametrize(
    ("stream", "least", "most"), [("small", 0, 30), ("close", 250, 600), ("with", 250, 600), ("drained", 60, 150)]
)
def test_memory_is_taken_for_prompt_and_max_tokens(memory, stream, least, most):
    assert least <= memory[stream][1] < most


def test_no_memory_is_taken_before_the_first_piece(memory):
    assert max(before for before, _, _ in memory.values()) < 30


def test_memory_is_given_back_at_once(memory):
    assert max(after for _, _, after in memory.values()) < 30


# Prefill


def test_slices_give_the_answer_of_a_whole_prompt(engine, template, monkeypatch):
    content = "Here is a list of cities: " + ", ".join(f"city number {i}" for i in range(30)) + ". How many are there?"
    prompt = template.encode([{"role": "user", "content": content}])
    assert len(prompt) > 3 * engine_module.PREFILL_SLICE
    sliced = list(engine.stream(prompt, Options(max_tokens=16)))
    monkeypatch.setattr(engine_module, "PREFILL_SLICE", 10**6)
    assert list(engine.stream(prompt, Options(max_tokens=16))) == sliced


# UTF-8

TEXTS = ["😀 Grüße 你好 e", "👩‍👩‍👧‍👦 ok 🇪🇸!", "日本語のテキスト、そして한국어", "naïve Ω≈ç√∫ ’“”… ไทย हिन्दी"]


@pytest.mark.parametrize("text", TEXTS)
def test_no_piece_cuts_a_character(engine, tiny_onnx, text):
    ids = Tokenizer.from_file(str(tiny_onnx / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    assert len(ids) > len(text.split())
    for max_tokens in range(1, len(ids) + 1):
        row = Row(engine.model.tokenizer(), frozenset(), (), 1, max_tokens)
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
        assert stream.answer.token_ids


# Sampling


@pytest.fixture(scope="module")
def joke(template) -> list[int]:
    return template.encode([{"role": "user", "content": "Tell me a joke about atom"}])


def test_a_seed_fixes_the_answer_among_any_neighbours(engine, prompts, joke):
    options = Options(max_tokens=16, temperature=1.2, seed=11)
    (alone,) = engine.generate([joke], options)
    for neighbours in ([prompts[7], joke, prompts[0], joke], [prompts[1], joke]):
        assert contents(engine.generate(neighbours, options)[1]) == contents(alone)
    assert "".join(engine.stream(joke, options)) == alone.text


def test_another_seed_gives_another_answer(engine, joke):
    options = [Options(max_tokens=16, temperature=1.2, seed=seed) for seed in range(4)]
    assert len({engine.generate([joke], one)[0].text for one in options}) > 2


def test_without_a_seed_samples_differ(engine, joke):
    options = Options(max_tokens=16, temperature=1.5)
    assert len({answer.text for answer in engine.generate([joke] * 4, options)}) > 1


@pytest.mark.parametrize("values", [{"temperature": 0, "top_p": 0.5, "top_k": 3}, {"seed": 4}], ids=str)
def test_greedy_unless_a_temperature_is_given(engine, prompts, values):
    greedy, other = (engine.generate(prompts[:4], Options(max_tokens=12, **options)) for options in ({}, values))
    assert list(map(contents, other)) == list(map(contents, greedy))


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_top_k_and_top_p_narrow_sampling(engine, prompts, narrow):
    greedy, sampled = (
        engine.generate([prompts[0]], Options(max_tokens=8, **values))[0].token_ids
        for values in ({}, {"temperature": 2.0, "seed": 1, **narrow})
    )
    assert sampled == greedy


def test_a_huge_top_k_cuts_nothing(engine, joke):
    (wild,) = engine.generate([joke], Options(max_tokens=8, temperature=2.0, seed=1, top_k=10**12))
    assert wild.token_ids != engine.generate([joke], Options(max_tokens=8))[0].token_ids


@pytest.fixture(scope="module")
def stern(tiny_onnx, tmp_path_factory) -> Engine:
    """`tiny` with a high repetition penalty among its own defaults."""
    folder = tmp_path_factory.mktemp("stern")
    return Engine.open(linked(tiny_onnx, folder, search={"repetition_penalty": 1.9}))


def test_the_models_own_repetition_penalty_holds(engine, stern, joke):
    options = Options(max_tokens=16)
    assert contents(stern.generate([joke], options)[0]) != contents(engine.generate([joke], options)[0])


@pytest.mark.parametrize("own", [True, False])
def test_a_given_repetition_penalty_wins(engine, stern, tiny_onnx, joke, own):
    config = json.loads((tiny_onnx / "genai_config.json").read_text())
    penalty = config["search"]["repetition_penalty"] if own else 1.9
    given, default = (stern, engine) if own else (engine, stern)
    (answer,) = given.generate([joke], Options(max_tokens=16, repetition_penalty=penalty))
    assert contents(answer) == contents(default.generate([joke], Options(max_tokens=16))[0])


# Opening a folder


def threads_of(folder: Path, threads: int | None = None) -> tuple[int, int]:
    """The threads that an engine says it has, and those that opening it started."""
    before = psutil.Process().num_threads()
    engine = Engine.open(folder, threads)
    return engine.model.threads, psutil.Process().num_threads() - before


@pytest.mark.parametrize(("variable", "argument", "expected"), [("", 1, 1), ("4", None, 4), ("4", 1, 1)])
def test_the_number_of_threads(tiny_onnx, monkeypatch, variable, argument, expected):
    monkeypatch.setenv("PHI3KIT_THREADS", variable)
    # onnxruntime counts the calling thread among those that compute.
    assert threads_of(tiny_onnx, argument) == (expected, expected - 1)


def test_every_physical_core_computes_by_default(tiny_onnx, monkeypatch):
    monkeypatch.delenv("PHI3KIT_THREADS", raising=False)
    assert Engine.open(tiny_onnx).model.threads == machine.physical_cores()


def test_a_wrong_setting_is_the_operators_mistake(tiny_onnx, monkeypatch):
    monkeypatch.setenv("PHI3KIT_THREADS", "two")
    with pytest.raises(InvalidSetting, match="PHI3KIT_THREADS='two'") as error:
        Engine.open(tiny_onnx)
    assert not isinstance(error.value, InvalidRequest)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"has no genai_config\.json"):
        Engine.open(tmp_path)


def test_a_model_that_og_cannot_open_is_refused(tiny_onnx, tmp_path):
    linked(tiny_onnx, tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(WeightsError, match=r"cannot open .* Fetch or export it again"):
        Engine.open(tmp_path)
