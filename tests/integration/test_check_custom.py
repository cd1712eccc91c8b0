"""The verdicts of CustomPythonWrapper's checks: on each solution, on the untouched stub, and on typical mistakes."""

import shutil
from contextlib import chdir, suppress
from pathlib import Path

import nbformat
import pytest
from conftest import own_store

from phi3kit.workbook.exercises.cells import exercises
from phi3kit.workbook.running.clean import LEFT_BY_RUNS
from phi3kit.workbook.running.paths import NOTEBOOKS, ROOT

pytestmark = pytest.mark.tiny

NOTEBOOK = nbformat.read(NOTEBOOKS / "CustomPythonWrapper.ipynb", as_version=4)
SOURCES = {cell.id: cell.source for cell in NOTEBOOK.cells}
EXERCISES = {one.name: one for one in exercises(NOTEBOOK)}

# The number of right steps of each untouched stub, and a part of its hint.
STUBS = {
    "every_row": (0, "`[0]` takes the row numbered 0"),
    "top_p_signature": (1, "without params"),
    "stop_sequence": (0, "params in the signature above"),
    "deadline": (1, "after each piece"),
    "own_wrapper": (0, "Fill in both cells"),
}

# Typical mistakes in each exercise, as changes to the solution, and a part of the hint for each.
ROWS = '[answer(prompt) for prompt in model_input["prompt"]]'
PARAMS = 'params={"top_p": 1.0}'
STOP = '["."]'
LOOP = """            text += piece
            if time.monotonic() >= end:
                break
"""
ENCODED = "[self.template.encode(messages) for messages in chats]"
TEXTS = "return [answer.text for answer in answers]"
URI = '"models:/my-wrapper@candidate"'
MISTAKES = {
    "every_row": [
        ({ROWS: '[answer(model_input["prompt"][i]) for i in range(len(model_input))]'}, "numbered from 7"),
        ({ROWS: '"; ".join(answer(prompt) for prompt in model_input["prompt"])'}, "Joined into one text"),
        ({ROWS: '[answer(prompt) for prompt in model_input["prompt"].unique()]'}, "keep repetitions"),
        ({ROWS: '{answer(prompt) for prompt in model_input["prompt"]}'}, "A set or a dict"),
        ({ROWS: 'sorted(answer(prompt) for prompt in model_input["prompt"])'}, "in another order"),
        ({ROWS: 'model_input["prompt"].map(answer)'}, "A Series is not a list"),
        ({ROWS: 'answer(model_input["prompt"])'}, "call it once for each row"),
        ({ROWS: '[answer(model_input["prompt"].iloc[0])]'}, "Some rows got no answer"),
        ({ROWS: f"{ROWS} if len(model_input) != 1 else answer(model_input.iloc[0, 0])"}, "One row is a table too"),
        ({ROWS: f"[answer(model_input.iloc[0, 0]), *{ROWS}[1:]]"}, "has no first row"),
        ({"return ": ""}, "is there a `return`"),
    ],
    "top_p_signature": [
        ({PARAMS: 'params={"top_p": 1}'}, "a whole number"),
        ({PARAMS: 'params={"top_p": "1.0"}'}, "in quotes"),
        ({PARAMS: 'params={"top-p": 1.0}'}, "spelling"),
        ({PARAMS: 'params={"top_p": [1.0]}'}, "Square brackets"),
        ({PARAMS: 'params={"top_p": 0.9}'}, "leaves every token in"),
        ({"input_example": '{**input_example, "top_p": 1.0}', f", {PARAMS}": ""}, "An input is a column"),
        ({f'infer_signature(input_example, ["Run"], {PARAMS})': '{"top_p": 1.0}'}, "Keep the call"),
    ],
    "stop_sequence": [
        ({STOP: '"."'}, "even if it holds only one"),
        ({"40": "9"}, "cut a sentence in half"),
        ({"40": "9", f', "stop": {STOP}': ""}, "cut a sentence in half"),
        ({STOP: '["Madrid", "Lima"]'}, "may be missing in the next"),
        ({STOP: '["<|end|>"]'}, "ends every answer anyway"),
        ({STOP: '[".", ","]'}, "inside this sentence"),
        ({"stop": "stops"}, "Copy its spelling"),
        ({STOP: '["."], "repetition_penalty": 2.0'}, "leave the other params"),
    ],
    "deadline": [
        ({"with closing(pieces)": "if True"}, "a method that ends it"),
        ({"                break": "                raise TimeoutError(text)"}, "the text so far, not an error"),
        ({LOOP: "".join(LOOP.splitlines(True)[1:]) + LOOP.splitlines(True)[0]}, "before you look at the clock"),
        ({"+ seconds": "+ 0.01"}, "wait for the whole answer"),
        ({"+ seconds": "+ seconds / 1000"}, "too early: `seconds`"),
        ({"+ seconds": "+ seconds / 2"}, "too early: `seconds`"),
        ({"return text": "print(text)"}, "is there a `return`"),
        ({"for piece in pieces": "while piece := next(pieces)"}, "a `for` loop ends"),
    ],
    "own_wrapper": [
        ({URI: "my_info.model_uri"}, "An alias can be moved"),
        ({URI: 'f"runs:/{my_info.run_id}/my-wrapper"'}, "An alias can be moved"),
        ({URI: '"models:/my-wrapper@unknown"'}, "does not know this name"),
        ({'{"question": question}': '{"prompt": question}'}, "derives the signature"),
        ({'{"phi3-mini-onnx": str(onnx_folder)}': "{}", "context.artifacts": "FOLDER"}, "stays on this machine"),
        ({TEXTS: "return answers[0].text"}, "answer every row"),
        ({ENCODED: 'list(model_input["question"]), Options(max_tokens=40)'}, "answers to the bare questions"),
        ({ENCODED: f"{ENCODED}, Options(temperature=1.5, max_tokens=40)"}, "sampling is on"),
        ({ENCODED: f"{ENCODED}, Options(max_tokens=4)"}, "cut short"),
        ({TEXTS: TEXTS.replace("answer.text", '"Well: " + answer.text', 1)}, "not alone"),
        (
            {ENCODED: """[f"<|user|>{one[0]['content']}<|end|><|assistant|>" for one in chats]"""},
            "the user can write control tokens",
        ),
    ],
}
# Further lines that some of these mistakes need.
PREAMBLE = "from phi3kit import weights\nfrom phi3kit.generation import Options\n\n"
PREAMBLE += 'FOLDER = {"phi3-mini-onnx": weights.onnx("tiny")}\n'


def remember(predict):
    """The same function, which computes the answers to the same rows and params once: the model is greedy."""
    answers = {}

    def predict_once(rows, params=None):
        key = repr((rows, params))
        if key not in answers:
            answers[key] = predict(rows, params)
        return answers[key]

    return predict_once


@pytest.fixture(scope="module")
def names(tiny_onnx, tmp_path_factory):
    """The names that the notebook's cells use."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    import phi3kit
    from phi3kit import tracking, wrappers
    from phi3kit.workbook.exercises import check

    model = tmp_path_factory.mktemp("learner") / "prompts"
    mlflow.pyfunc.save_model(model, **wrappers.packaged(wrappers.Phi3Model, "tiny"))
    prompts = mlflow.pyfunc.load_model(str(model))
    prompts.predict = remember(prompts.predict)
    return {
        "Path": Path,
        "capitals": pd.DataFrame({"prompt": ["<|user|>What is the capital of Peru?<|end|><|assistant|>"] * 2}),
        "check": check,
        "infer_signature": infer_signature,
        "input_example": {"prompt": "<|user|>Hello!<|end|><|assistant|>"},
        "max_tokens": 16,
        "mlflow": mlflow,
        "onnx_folder": tiny_onnx,
        "phi3kit": phi3kit,
        "prompts": prompts,
        "question": "Where is Oslo?",
        "tracking": tracking,
        "wrappers": wrappers,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of the learner's own."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    with own_store(folder), pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
            patch.setenv(name, "")  # so that the value that MLflow sets is removed at the end
            patch.delenv(name)
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("learner", (folder / "artifacts").as_uri()))
        yield folder


def execute(cells, names, ignored=()):
    """Run a learner's cells, and return all names; an `ignored` error ends its cell only."""
    scope = dict(names)
    for cell in cells:
        magic, _, rest = cell.partition("\n")
        if magic.startswith("%%writefile "):
            Path(magic.split()[1]).write_text(rest, encoding="utf-8")
        else:
            with suppress(*ignored):
                exec(cell, scope)
    return scope


@pytest.fixture
def verdict(names, store, tmp_path, monkeypatch):
    """Runs a learner's cells and then the check's, as the notebook has it."""
    monkeypatch.chdir(tmp_path)

    def check(name, cells, ignored=()):
        result = execute([f"result = {EXERCISES[name].check}"], execute(cells, names, ignored))["result"]
        print(result)
        return result

    yield check
    shutil.rmtree(store / "artifacts", ignore_errors=True)  # copies of the weights


def test_every_exercise_has_mistakes():
    assert STUBS.keys() == MISTAKES.keys() == EXERCISES.keys()


@pytest.mark.parametrize("name", EXERCISES)
def test_different_mistakes_get_different_hints(name):
    assert len({hint for _, hint in MISTAKES[name]} - {STUBS[name][1]}) >= 3


@pytest.mark.parametrize("name", [name for name in EXERCISES if name != "own_wrapper"])  # for which see below
def test_the_solution_passes_every_step(verdict, name):
    result = verdict(name, EXERCISES[name].solutions)
    assert (result.passed, 3 <= result.steps <= 5) == (True, True)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_untouched_stub_gets_a_helpful_verdict(verdict, name):
    result, (right, hint) = verdict(name, EXERCISES[name].stubs), STUBS[name]
    assert (len(result.right), hint in result.hint, result.got != "", result.expected != "") == (
        right,
        True,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("name", "changes", "hint"),
    [pytest.param(name, *case, id=f"{name}-{case[1]}") for name, cases in MISTAKES.items() for case in cases],
)
def test_a_mistake_gets_its_hint(verdict, name, changes, hint):
    cells = list(EXERCISES[name].solutions)
    for right, wrong in changes.items():
        assert any(right in cell for cell in cells), f"the solution has no {right}"
        cells = [cell.replace(right, wrong) for cell in cells]
    cells = [cell.replace("\nclass ", f"{PREAMBLE}\n\nclass ", 1) for cell in cells]
    result = verdict(name, cells, ignored=(Exception,))
    assert not result.passed and hint in result.hint


WRITTEN = {source.split()[1] for source in SOURCES.values() if source.startswith("%%writefile ")}


def test_the_learners_wrapper_is_a_written_file():
    assert "my_wrapper.py" in WRITTEN


@pytest.mark.parametrize("file", sorted(WRITTEN))
def test_the_last_cell_removes_each_written_file(file):
    assert f'"{file}"' in SOURCES["clean-up"]


@pytest.mark.parametrize("file", sorted(WRITTEN))
def test_cleaning_removes_each_written_file(file):
    assert f"notebooks/{file}" in LEFT_BY_RUNS


@pytest.mark.parametrize("file", sorted(WRITTEN))
def test_git_ignores_each_written_file(file):
    assert f"/notebooks/{file}" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


@pytest.fixture(scope="module")
def lesson(names, store, tmp_path_factory):
    """A notebook with the solution of `own_wrapper`, its check and the last cell: its folder and all its names."""
    import mlflow

    folder = tmp_path_factory.mktemp("notebook")
    with chdir(folder):
        own = EXERCISES["own_wrapper"]
        scope = execute([*own.solutions, f"result = {own.check}"], names)
        client = mlflow.MlflowClient()
        uri = scope["my_info"].model_uri
        infos = [mlflow.initialize_logged_model(name="lesson") for _ in range(4)]
        scope |= dict(zip(("first_info", "prompt_info", "chat_info", "pipeline_info"), infos, strict=True))
        scope["version"] = names["tracking"].register(uri, "lesson", alias="candidate", description="Its own.", tags={})
        scope["my_version"] = client.get_model_version_by_alias("my-wrapper", "candidate")
        return folder, execute([SOURCES["clean-up"]], scope | {"should_cleanup": True})


def test_the_solution_of_own_wrapper_passes(lesson):
    _, scope = lesson
    assert scope["result"].passed


def test_cleaning_up_removes_the_learners_file(lesson):
    folder, _ = lesson
    assert list(folder.glob("*.py")) == []


@pytest.mark.parametrize("name", ["version", "my_version"])
def test_cleaning_up_deletes_the_versions(lesson, name):
    _, scope = lesson
    version = scope[name]
    others = scope["client"].search_model_versions(f"name = '{version.name}'")
    assert version.version not in [other.version for other in others]


def test_cleaning_up_deletes_a_model_without_versions(lesson):
    _, scope = lesson
    assert scope["client"].search_registered_models("name = 'lesson'") == []


@pytest.mark.parametrize("name", ["my_info", "first_info", "prompt_info", "chat_info", "pipeline_info"])
def test_cleaning_up_deletes_the_logged_models(lesson, name):
    _, scope = lesson
    client = scope["client"]
    models = client.search_logged_models([client.get_experiment_by_name("learner").experiment_id])
    assert scope[name].model_id not in [model.model_id for model in models]
