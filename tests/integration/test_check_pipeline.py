"""What the checks of TransformerPipeline say: to each solution, to the untouched stub, and to what people get wrong.

Stubs and solutions are read from the committed notebook; the model is the real pipeline.
"""

import copy

import nbformat
import pytest
from conftest import own_store

from phi3kit.workbook.exercises import exercises
from phi3kit.workbook.places import NOTEBOOKS

pytestmark = pytest.mark.tiny

EXERCISES = {one.name: one for one in exercises(nbformat.read(NOTEBOOKS / "TransformerPipeline.ipynb", as_version=4))}

# A part of the hint that the untouched stub gets.
BLANK = {
    "chat_prompt": "what must stand last",
    "short_answer": "its value is the number of tokens",
    "memory": "still too long",
    "roll_back": "did not move",
    "refused_request": "Give one field another type",
}


def prompt(turn, end="<|assistant|>\\n"):
    return f"def my_prompt(messages):\n    return ''.join({turn} for m in messages) + '{end}'"


def request(options, field=None):
    asked = f"{{'messages': messages, {options}}}"
    return f"my_request = {asked}" if field is None else f"my_bad_request = {asked}\nmy_field = {field!r}"


def memory(*lines):
    return "\n    ".join(["def my_memory(turns, limit, count_tokens):", *lines])


SEARCH = "versions = [v.version for v in client.search_model_versions(f\"name = '{name}'\")]"
MOVE = "client.set_registered_model_alias(name, alias, {})"
NONE = "raise ValueError(f'{name} has no version before')"


def roll_back(*lines):
    current = "current = client.get_model_version_by_alias(name, alias).version"
    return "\n    ".join(["def my_roll_back(client, name, alias):", current, *lines])


# For each exercise what people write, and a part of the hint that fits that mistake and no other.
MISTAKES = {
    "chat_prompt": {
        "no end": (prompt(r'''f"<|{m['role']}|>\n{m['content']}\n"'''), "ends with the same control token"),
        "all are users": (prompt(r'''f"<|user|>\n{m['content']}<|end|>\n"'''), "of its own role"),
        "ChatML": (
            prompt(r'''f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n"''', r"<|im_start|>assistant\n"),
            "another family of models",
        ),
        "no control tokens": (prompt("m['role'] + ': ' + m['content']", ""), "No control token"),
        "first message only": (
            "def my_prompt(messages):\n    return f'<|user|>{messages[0][\"content\"]}<|end|><|assistant|>'",
            "Every message has to be",
        ),
        "a space too many": (prompt(r'''f"<|{m['role']}|>{m['content']} .<|end|>"'''), "what stands between them"),
        "printed": ("def my_prompt(messages):\n    print(messages)", "`return` it"),
        "a wrong key": (prompt("m['text']"), "two keys"),
    },
    "short_answer": {
        "the name in transformers": (request("'max_new_tokens': 5"), "Each library has its own word"),
        "OpenAI's newer name": (request("'max_completion_tokens': 5"), "Each library has its own word"),
        "a text": (request("'max_tokens': '5'"), "A whole number has no quotes"),
        "half a token": (request("'max_tokens': 5.0"), "A whole number has no quotes"),
        "too many": (request("'max_tokens': 6"), "its value is the number of tokens"),
        "too few": (request("'max_tokens': 4"), "its value is the number of tokens"),
        "asked in words": (
            "my_request = {'messages': [{'role': 'user', 'content': 'Five words, please: who are you?'}]}",
            "only ask for a short answer",
        ),
        "no request": ("my_request = messages", "Keep the dict"),
    },
    "memory": {
        "the system message is lost": (
            memory("while count_tokens(turns) > limit:", "    turns = turns[2:]", "return turns"),
            "The system message says how",
        ),
        "an answer without its question": (
            memory("turns = [*turns]", "while count_tokens(turns) > limit:", "    turns.pop(1)", "return turns"),
            "belong together",
        ),
        "one exchange is forgotten, however long the rest": (
            memory("return turns if count_tokens(turns) <= limit else turns[:1] + turns[3:]"),
            "still too long",
        ),
        "only the last turn is kept": (
            memory("return turns if count_tokens(turns) <= limit else [turns[0], turns[-1]]"),
            "would have fit",
        ),
        "the limit itself is not used": (
            memory("rest = turns[1:]", "while count_tokens(turns[:1] + rest) >= limit:", "    rest = rest[2:]")
            + "\n    return turns[:1] + rest",
            "would have fit",
        ),
        "a system message where there is none": (
            memory("rest = turns[1:]", "while count_tokens(turns[:1] + rest) > limit:", "    rest = rest[2:]")
            + "\n    return turns[:1] + rest",
            "whether it is a system message",
        ),
        "the newest goes first": (
            memory("turns = [*turns]", "while count_tokens(turns) > limit:", "    del turns[-2:]", "return turns"),
            "The last turn is the question",
        ),
        "the caller's list is changed": (
            memory(
                "first = 1 if turns[0]['role'] == 'system' else 0",
                "while count_tokens(turns) > limit:",
                "    del turns[first : first + 2]",
                "return turns",
            ),
            "work on a copy",
        ),
        "a number": (memory("return count_tokens(turns)"), "Give back a list"),
    },
    "roll_back": {
        "one less": (roll_back(MOVE.format("current - 1")), "Version 9 of this model was deleted"),
        "the newest": (roll_back(SEARCH, MOVE.format("max(versions)")), "a step forward"),
        "compared as texts": (
            roll_back(SEARCH, MOVE.format("max(str(v) for v in versions if str(v) < str(current))")),
            "as texts, '8' comes after '10'",
        ),
        "compared as texts, and none found": (
            roll_back(
                SEARCH,
                "earlier = [v for v in versions if str(v) < str(current) and v > 1]",
                "if not earlier:",
                f"    {NONE}",
                MOVE.format("max(earlier, key=str)"),
            ),
            "as texts, '8' comes after '10'",
        ),
        "as a search gives them": (
            roll_back(SEARCH, MOVE.format("versions[versions.index(current) + 2]")),
            "order the versions yourself",
        ),
        "of any model": (
            roll_back(
                "versions = [v.version for v in client.search_model_versions()]",
                MOVE.format("max(v for v in versions if v < current)"),
            ),
            "Version 9 of this model was deleted",
        ),
        "a client of its own": (
            roll_back("import mlflow", "mlflow.MlflowClient().set_registered_model_alias(name, alias, current - 1)"),
            "Ask the `client`",
        ),
        "the alias deleted": (roll_back("client.delete_registered_model_alias(name, alias)"), "The alias is gone"),
        "the bad version deleted": (
            roll_back(
                SEARCH,
                MOVE.format("max(v for v in versions if v < current)"),
                "client.delete_model_version(name, current)",
            ),
            "delete nothing",
        ),
        "silent where there is none": (
            roll_back(SEARCH, MOVE.format("max([v for v in versions if v < current] or [current])")),
            "Nobody hears",
        ),
        "an error that says nothing": (
            roll_back(SEARCH, MOVE.format("max(v for v in versions if v < current)")),
            "does not say which model",
        ),
        "moved before it looked": (
            roll_back(
                SEARCH,
                "earlier = [v for v in versions if v < current]",
                MOVE.format("max(earlier or versions)"),
                "if not earlier:",
                f"    {NONE}",
            ),
            "before you move",
        ),
    },
    "refused_request": {
        "refused later": (request("'n': 1", "n"), "This error came after it"),
        "a bad value of the right type": (request("'max_tokens': -1", "max_tokens"), "This error came after it"),
        "an unknown field": (request("'seed': 7", "seed"), "here seed, is dropped"),
        "another field named": (request("'max_tokens': '8', 'top_p': 0.5", "top_p"), "mend one field at a time"),
        "no field named": (request("'max_tokens': '8'", ""), "as the table of the signature does"),
        "two at fault": (request("'max_tokens': '8', 'stop': 'x'", "stop"), "More than one field"),
        "refused later too": (request("'max_tokens': '8', 'n': 1", "max_tokens"), "Let one field alone"),
        "no request": ("my_bad_request = 'Hello!'\nmy_field = 'messages'", "Keep the dict"),
    },
}

ALSO_RIGHT = {
    "chat_prompt": prompt(r'''f"<|{m['role']}|>{m['content']}<|end|>"''', "<|assistant|>"),
    "short_answer": request("'max_tokens': 5, 'temperature': 0.0"),
    "refused_request": "my_bad_request = {'max_tokens': 8}\nmy_field = 'messages'",
}


@pytest.fixture(scope="module")
def names(models, tmp_path_factory):
    """What the notebook's cells find when they run."""
    import mlflow
    import transformers

    from phi3kit import chat, weights
    from phi3kit.workbook import check

    messages = [{"role": "user", "content": "What is the capital of Spain?"}]
    reply = {"role": "assistant", "content": "Madrid."}
    with own_store(tmp_path_factory.mktemp("learner")):
        yield {
            "chat": chat,
            "weights": weights,
            "check": check,
            "loaded": models["pipeline"],
            "max_tokens": 64,
            "messages": messages,
            "mlflow": mlflow,
            "tokenizer": transformers.AutoTokenizer.from_pretrained(weights.checkpoint("tiny")),
            "turns": [*messages, reply, *messages, reply],
        }


def verdict(name, code, names):
    """Run a learner's cells and then the check's, as it stands in the notebook."""
    cells = dict(names)
    exec(code, cells)
    exec(f"verdict = {EXERCISES[name].check}", cells)
    return cells["verdict"]


def test_every_exercise_has_its_cases_and_different_mistakes_get_different_hints():
    assert MISTAKES.keys() == BLANK.keys() == EXERCISES.keys()
    assert all(len({hint for _, hint in cases.values()}) >= 3 for cases in MISTAKES.values())


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes_every_step(names, name):
    before = copy.deepcopy((names["messages"], names["turns"]))
    said = verdict(name, "\n".join(EXERCISES[name].solutions), names)
    print(said)
    assert said.passed
    assert before == (names["messages"], names["turns"])
    assert 3 <= said.of <= 5


@pytest.mark.parametrize("name", ALSO_RIGHT)
def test_another_solution_passes_as_well(names, name):
    assert verdict(name, ALSO_RIGHT[name], names).passed


@pytest.mark.parametrize("name", EXERCISES)
def test_the_untouched_stub_runs_and_is_refused_with_a_helpful_word(names, name):
    said = verdict(name, "\n".join(EXERCISES[name].stubs), names)
    print(said)
    assert not said.passed
    assert said.came
    assert said.expected
    assert BLANK[name] in said.hint


@pytest.mark.parametrize(
    ("name", "mistake"), [(name, mistake) for name, cases in MISTAKES.items() for mistake in cases], ids=str
)
def test_a_typical_mistake_gets_the_hint_that_fits_and_no_other(names, name, mistake):
    code, hint = MISTAKES[name][mistake]
    said = verdict(name, code, names)
    print(said)
    assert not said.passed
    assert hint in said.hint
    assert {part for _, part in MISTAKES[name].values() if part in said.hint} == {hint}


def test_rolling_back_is_tried_in_a_registry_of_its_own(names):
    import mlflow

    before = mlflow.get_tracking_uri()
    assert verdict("roll_back", EXERCISES["roll_back"].solutions[0], names).passed
    assert mlflow.get_tracking_uri() == before
    assert mlflow.MlflowClient().search_registered_models() == []
