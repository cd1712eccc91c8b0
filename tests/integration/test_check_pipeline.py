"""The verdicts of TransformerPipeline's checks: on each solution, on the untouched stub, and on typical mistakes.

Stubs and solutions are read from the committed notebook; the model is the real pipeline.
"""

import copy

import nbformat
import pytest
from conftest import own_store

from phi3kit.workbook.exercises.cells import exercises
from phi3kit.workbook.running.paths import NOTEBOOKS

pytestmark = pytest.mark.tiny

EXERCISES = {one.name: one for one in exercises(nbformat.read(NOTEBOOKS / "TransformerPipeline.ipynb", as_version=4))}

# The number of right steps of each untouched stub, and a part of its hint.
STUBS = {
    "chat_prompt": (0, "at its end"),
    "short_answer": (2, "a change of yours is no limit"),
    "memory": (1, "still too long"),
    "roll_back": (0, "did not move"),
    "refused_request": (0, "Give one field a value of another type"),
}


def prompt(turn, end="<|assistant|>\\n"):
    return f"def my_prompt(messages):\n    return ''.join({turn} for m in messages) + '{end}'"


RENDERED = "messages=messages, add_generation_prompt=True"
APPLIED = "apply_chat_template(messages, tokenize=False, add_generation_prompt=True)"


def whole(expression):
    return f"def my_prompt(messages):\n    return {expression}"


def request(options, field=None):
    content = f"{{'messages': messages, {options}}}"
    return f"my_request = {content}" if field is None else f"my_bad_request = {content}\nmy_field = {field!r}"


def memory(*lines):
    return "\n    ".join(["def my_memory(turns, limit, count_tokens):", *lines])


SEARCH = "versions = [int(v.version) for v in client.search_model_versions(f\"name = '{name}'\")]"
MOVE = "client.set_registered_model_alias(name, alias, {})"
NONE = "raise ValueError(f'{name} has no version before')"


CURRENT = "current = int(client.get_model_version_by_alias(name, alias).version)"
AS_THEY_COME = (CURRENT.replace("int(", "(", 1), SEARCH.replace("int(v.version)", "v.version"))


def roll_back(*lines, current=CURRENT):
    return "\n    ".join(["def my_roll_back(client, name, alias):", current, *lines])


# Typical mistakes in each exercise, and a part of the hint that only this mistake gets.
MISTAKES = {
    "chat_prompt": {
        "no end": (prompt(r'''f"<|{m['role']}|>\n{m['content']}\n"'''), "ends with the same control token"),
        "all are users": (prompt(r'''f"<|user|>\n{m['content']}<|end|>\n"'''), "of its own role"),
        "ChatML": (
            prompt(r'''f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n"''', r"<|im_start|>assistant\n"),
            "another family of models",
        ),
        "no control tokens": (prompt("m['role'] + ': ' + m['content']", ""), "has no control token"),
        "first message only": (
            "def my_prompt(messages):\n    return f'<|user|>{messages[0][\"content\"]}<|end|><|assistant|>'",
            "Every message has to be",
        ),
        "a space too many": (prompt(r'''f"<|{m['role']}|>{m['content']} .<|end|>"'''), "the text between them"),
        "printed": ("def my_prompt(messages):\n    print(messages)", "has to `return`"),
        "a wrong key": (prompt("m['text']"), "two keys"),
        "an attribute": (prompt(r'''f"<|{m.role}|>\n{m.content}<|end|>\n"'''), "two keys"),
        "the tokenizer's template": (whole(f"tokenizer.{APPLIED}"), "by hand"),
        "the template of another tokenizer": (
            whole(f"type(tokenizer).from_pretrained(tokenizer.name_or_path).{APPLIED}"),
            "by hand",
        ),
        "the template's text": (
            whole(f"__import__('jinja2').Template(tokenizer.chat_template).render({RENDERED})"),
            "by hand",
        ),
        "the kit's template": (whole("chat.ChatTemplate(tokenizer.name_or_path).render(messages)"), "by hand"),
    },
    "short_answer": {
        "the name in transformers": (request("'max_new_tokens': 5"), "Each library has its own name"),
        "OpenAI's newer name": (request("'max_completion_tokens': 5"), "Each library has its own name"),
        "a text": (request("'max_tokens': '5'"), "A whole number has no quotes"),
        "half a token": (request("'max_tokens': 5.0"), "A whole number has no quotes"),
        "too many": (request("'max_tokens': 6"), "a change of yours is no limit"),
        "too few": (request("'max_tokens': 4"), "a change of yours is no limit"),
        "a limit in words": (
            "my_request = {'messages': [{'role': 'user', 'content': 'Five words, please: who are you?'}]}",
            "only ask for a short answer",
        ),
        "a limit in words, beside the field": (
            "my_request = {'messages': [{'role': 'user', 'content': 'Five tokens!'}], 'max_tokens': max_tokens}",
            "a change of yours is no limit",
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
        "only the last turn stays": (
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
            "check whether it is a system message",
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
        "nothing": (memory("turns = turns[2:]"), "Return a list of the turns"),
        "a number": (memory("return count_tokens(turns)"), "Yours has the type int: return the turns in a list"),
        "a tuple": (memory("return tuple(turns)"), "Yours has the type tuple: return the turns in a list"),
        "an iterator": (memory("yield from turns"), "Yours has the type generator: return the turns in a list"),
        "an attribute": (memory("return [turn for turn in turns if turn.role == 'system']"), "two keys"),
        "a loop without an end": (
            memory("while count_tokens(turns) > limit:", "    turns[2:]", "return turns"),
            "two turns have to go",
        ),
    },
    "roll_back": {
        "one less": (roll_back(MOVE.format("current - 1")), "Version 9 of this model was deleted"),
        "the newest": (roll_back(SEARCH, MOVE.format("max(versions)")), "a step forward"),
        "compared as texts": (
            roll_back(SEARCH, MOVE.format("max(str(v) for v in versions if str(v) < str(current))")),
            "as a text '8' comes after '10'",
        ),
        "compared as texts, with a check": (
            roll_back(
                SEARCH,
                "earlier = [v for v in versions if str(v) < str(current) and v > 1]",
                "if not earlier:",
                f"    {NONE}",
                MOVE.format("max(earlier, key=str)"),
            ),
            "as a text '8' comes after '10'",
        ),
        "as they come": (
            roll_back(
                AS_THEY_COME[1],
                "earlier = [v for v in versions if v < current]",
                "if not earlier:",
                f"    {NONE}",
                MOVE.format("max(earlier)"),
                current=AS_THEY_COME[0],
            ),
            "as a text '8' comes after '10'",
        ),
        "the newest of texts": (
            roll_back(
                AS_THEY_COME[1],
                "earlier = [v for v in versions if int(v) < int(current)]",
                "if not earlier:",
                f"    {NONE}",
                MOVE.format("max(earlier)"),
            ),
            "as a text '8' comes after '10'",
        ),
        "a text beside a number": (
            roll_back(
                AS_THEY_COME[1],
                "earlier = [v for v in versions if v < current]",
                "if not earlier:",
                f"    {NONE}",
                MOVE.format("max(earlier)"),
            ),
            "as a text '8' comes after '10'",
        ),
        "counted down from a text": (
            roll_back(
                AS_THEY_COME[1],
                "earlier = [v for v in range(current - 1, 0, -1) if v in versions]",
                "if not earlier:",
                f"    {NONE}",
                MOVE.format("earlier[0]"),
                current=AS_THEY_COME[0],
            ),
            "as a text '8' comes after '10'",
        ),
        "no end": (roll_back("while current > 1:", "    pass"), "A loop may never end"),
        "as a search gives them": (
            roll_back(SEARCH, MOVE.format("versions[versions.index(current) + 2]")),
            "sort them yourself",
        ),
        "of any model": (
            roll_back(
                "versions = [int(v.version) for v in client.search_model_versions()]",
                MOVE.format("max(v for v in versions if v < current)"),
            ),
            "Version 9 of this model was deleted",
        ),
        "a client of its own": (
            roll_back("import mlflow", "mlflow.MlflowClient().set_registered_model_alias(name, alias, current - 1)"),
            "Use the `client`",
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
            "The caller must learn",
        ),
        "an error that says nothing": (
            roll_back(SEARCH, MOVE.format("max(v for v in versions if v < current)")),
            "does not say which model",
        ),
        "moved before the check": (
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
        "refused later": (request("'n': 1", "n"), "This error comes from the pipeline"),
        "a bad value of the right type": (
            request("'max_tokens': -1", "max_tokens"),
            "This error comes from the pipeline",
        ),
        "an unknown field": (request("'seed': 7", "seed"), "here seed, is dropped"),
        "another field named": (request("'max_tokens': '8', 'top_p': 0.5", "top_p"), "correct one field at a time"),
        "no field named": (request("'max_tokens': '8'", ""), "as the table of the signature does"),
        "two at fault": (request("'max_tokens': '8', 'stop': 'x'", "stop"), "More than one field"),
        "refused later too": (request("'max_tokens': '8', 'n': 1", "max_tokens"), "Let only one field"),
        "no request": ("my_bad_request = 'Hello!'\nmy_field = 'messages'", "Keep the dict"),
    },
}

ALSO_RIGHT = {
    "chat_prompt, without line breaks": prompt(r'''f"<|{m['role']}|>{m['content']}<|end|>"''', "<|assistant|>"),
    "chat_prompt, by a template of one's own": (
        "import jinja2\n"
        "SOURCE = '{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>'\n"
        "def my_prompt(messages):\n    return jinja2.Template(SOURCE).render(messages=messages)"
    ),
    "chat_prompt, by recursion": (
        "def my_prompt(messages):\n"
        "    if not messages:\n"
        "        return '<|assistant|>'\n"
        "    (role, content), *_ = [(m['role'], m['content']) for m in messages]\n"
        "    return '<|' + role + '|>' + content + '<|end|>' + my_prompt(messages[1:])"
    ),
    "short_answer, with another option": request("'max_tokens': 5, 'temperature': 0.0"),
    "short_answer, with another message": (
        "my_request = {'messages': [{'role': 'user', 'content': 'Hi'}], 'max_tokens': 5}"
    ),
    "memory, on a copy": memory(
        "turns = list(turns)",
        "while count_tokens(turns) > limit:",
        "    first = turns[0]['role'] == 'system'",
        "    del turns[first : first + 2]",
        "return turns",
    ),
    "memory, by trying from the longest": memory(
        "first = turns[0]['role'] == 'system'",
        "tries = [turns[:first] + turns[i:] for i in range(first, len(turns), 2)]",
        "return next(each for each in tries if count_tokens(each) <= limit)",
    ),
    "roll_back, in the search's own order": roll_back(
        "search = client.search_model_versions",
        "newest_first = search(f\"name = '{name}'\", order_by=['version_number DESC'])",
        "for each in newest_first:",
        "    if int(each.version) < current:",
        "        return client.set_registered_model_alias(name, alias, each.version)",
        NONE,
    ),
    "roll_back, counting down": roll_back(
        "for number in reversed(range(1, current)):",
        "    try:",
        "        client.get_model_version(name, str(number))",
        "    except mlflow.exceptions.MlflowException:",
        "        continue",
        "    return client.set_registered_model_alias(name, alias, str(number))",
        NONE,
    ),
    "roll_back, from the model's aliases": roll_back(
        "assert isinstance(client, mlflow.MlflowClient)",
        SEARCH,
        "earlier = sorted(v for v in versions if v < current)",
        "if not earlier:",
        f"    {NONE}",
        MOVE.format("earlier[-1]"),
        current="current = int(client.get_registered_model(name).aliases[alias])",
    ),
    "refused_request, a missing field": "my_bad_request = {'max_tokens': 8}\nmy_field = 'messages'",
}


@pytest.fixture(scope="module")
def names(models, tmp_path_factory):
    """The names that the notebook's cells use."""
    import mlflow
    import transformers

    from phi3kit import chat, weights
    from phi3kit.workbook.exercises import check

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


@pytest.fixture
def verdict(names):
    """Runs a learner's cells and then the check's, as the notebook has it."""

    def run(name, *cells):
        scope = dict(names)
        for cell in (*cells, f"result = {EXERCISES[name].check}"):
            exec(cell, scope)
        print(scope["result"])
        return scope["result"]

    return run


def test_every_exercise_has_mistakes():
    assert MISTAKES.keys() == STUBS.keys() == EXERCISES.keys()


@pytest.mark.parametrize("name", EXERCISES)
def test_different_mistakes_get_different_hints(name):
    assert len({hint for _, hint in MISTAKES[name].values()}) >= 3


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes_every_step(verdict, name):
    result = verdict(name, *EXERCISES[name].solutions)
    assert (result.passed, 3 <= result.steps <= 5) == (True, True)


@pytest.mark.parametrize("name", ["chat_prompt", "memory"])
def test_a_check_keeps_the_notebooks_values(verdict, names, name):
    before = copy.deepcopy((names["messages"], names["turns"]))
    verdict(name, *EXERCISES[name].solutions)
    assert (names["messages"], names["turns"]) == before


@pytest.mark.parametrize("case", ALSO_RIGHT)
def test_another_solution_passes_too(verdict, case):
    assert verdict(case.partition(",")[0], ALSO_RIGHT[case]).passed


@pytest.mark.parametrize("name", EXERCISES)
def test_the_untouched_stub_gets_a_helpful_verdict(verdict, name):
    result, (right, hint) = verdict(name, *EXERCISES[name].stubs), STUBS[name]
    assert (len(result.right), hint in result.hint, result.got != "", result.expected != "") == (
        right,
        True,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("name", "mistake"), [(name, mistake) for name, cases in MISTAKES.items() for mistake in cases], ids=str
)
def test_a_mistake_gets_its_hint_and_no_other(verdict, name, mistake):
    code, hint = MISTAKES[name][mistake]
    result = verdict(name, code)
    assert {part for _, part in MISTAKES[name].values() if part in result.hint} == {hint}


def test_rolling_back_leaves_the_notebooks_store_alone(verdict):
    import mlflow

    before = mlflow.get_tracking_uri()
    verdict("roll_back", *EXERCISES["roll_back"].solutions)
    assert (mlflow.get_tracking_uri(), mlflow.MlflowClient().search_registered_models()) == (before, [])
