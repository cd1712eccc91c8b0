"""The exercises of CustomPythonWrapper: solutions pass, stubs do not, and each mistake gets the hint that fits."""

import shutil
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from conftest import own_store

from phi3kit.workbook.clean import LEFT_BY_RUNS
from phi3kit.workbook.exercises import exercises
from phi3kit.workbook.places import NOTEBOOKS, ROOT

pytestmark = pytest.mark.tiny

NOTEBOOK = nbformat.read(NOTEBOOKS / "CustomPythonWrapper.ipynb", as_version=4)
SOURCES = {cell.id: cell.source for cell in NOTEBOOK.cells}
EXERCISES = {one.name: one for one in exercises(NOTEBOOK)}

# How many steps an untouched stub gets right, and a part of the hint that it gets.
STUBS = {
    "every_row": (0, "`[0]` takes the row numbered 0"),
    "top_p_signature": (1, "without params"),
    "stop_sequence": (0, "params in the signature above"),
    "deadline": (1, "after each piece"),
    "own_wrapper": (0, "Fill both cells in"),
}

# For each exercise what a learner has in place of parts of the solution, and a part of the hint that fits.
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
        ({ROWS: '[answer(prompt) for prompt in model_input["prompt"].unique()]'}, "Who asks twice"),
        ({ROWS: '{answer(prompt) for prompt in model_input["prompt"]}'}, "A set or a dict"),
        ({ROWS: 'sorted(answer(prompt) for prompt in model_input["prompt"])'}, "in another order"),
        ({ROWS: 'model_input["prompt"].map(answer)'}, "A Series is no list"),
        ({ROWS: 'answer(model_input["prompt"])'}, "call it once for each row"),
        ({ROWS: '[answer(model_input["prompt"].iloc[0])]'}, "Rows are dropped"),
        ({ROWS: f"{ROWS} if len(model_input) != 1 else answer(model_input.iloc[0, 0])"}, "One row is a table too"),
        ({ROWS: f"[answer(model_input.iloc[0, 0]), *{ROWS}[1:]]"}, "no first row"),
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
        ({STOP: '"."'}, "even if it holds one"),
        ({"40": "9"}, "may cut one in half"),
        ({"40": "9", f', "stop": {STOP}': ""}, "may cut one in half"),
        ({STOP: '["Madrid", "Lima"]'}, "need not stand in the next"),
        ({STOP: '["<|end|>"]'}, "ends every answer anyway"),
        ({STOP: '[".", ","]'}, "stands within this sentence"),
        ({"stop": "stops"}, "Spell it as there"),
        ({STOP: '["."], "repetition_penalty": 2.0'}, "leave the other params"),
    ],
    "deadline": [
        (
            {LOOP: "            text += piece\n        if time.monotonic() >= end:\n            pass\n"},
            "after each piece",
        ),
        ({"with closing(pieces)": "if True"}, "a method that ends it"),
        ({"                break": "                raise TimeoutError(text)"}, "the text so far, and no error"),
        ({LOOP: "".join(LOOP.splitlines(True)[1:]) + LOOP.splitlines(True)[0]}, "before you look at the clock"),
        ({"+ seconds": "+ 0.01"}, "leave it the time it has"),
        ({"+ seconds": "+ seconds / 1000"}, "too early: `seconds` are seconds"),
        ({"+ seconds": "+ seconds / 2"}, "too early: `seconds`"),
        ({"return text": "print(text)"}, "is there a `return`"),
        ({"for piece in pieces": "while piece := next(pieces)"}, "`for` ends with it"),
    ],
    "own_wrapper": [
        ({URI: "my_info.model_uri"}, "An alias can be moved"),
        ({URI: 'f"runs:/{my_info.run_id}/my-wrapper"'}, "An alias can be moved"),
        ({URI: '"models:/my-wrapper@nobody"'}, "does not know this name"),
        ({'{"question": question}': '{"prompt": question}'}, "derives the signature"),
        ({'{"phi3-mini-onnx": str(onnx_folder)}': "{}", "context.artifacts": "FOLDER"}, "stays on this machine"),
        ({TEXTS: "return answers[0].text"}, "answer every row"),
        ({ENCODED: 'list(model_input["question"])'}, "answers the bare questions"),
        ({ENCODED: f"{ENCODED}, Options(temperature=1.5, max_tokens=40)"}, "sampling is on"),
        ({ENCODED: f"{ENCODED}, Options(max_tokens=4)"}, "cut short"),
        ({TEXTS: TEXTS.replace("answer.text", '"Well: " + answer.text', 1)}, "not alone"),
        ({ENCODED: """[f"<|user|>{one[0]['content']}<|end|><|assistant|>" for one in chats]"""}, "lets the user write"),
    ],
}
# What some of these mistakes need besides.
BESIDES = "from phi3kit import weights\nfrom phi3kit.generation import Options\n\n"
BESIDES += 'FOLDER = {"phi3-mini-onnx": weights.onnx("tiny")}\n'


@pytest.fixture(scope="module")
def names(tiny_onnx, tmp_path_factory):
    """What the cells of the notebook find when they run."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    import phi3kit
    from phi3kit import tracking, wrappers
    from phi3kit.workbook import check

    stored = tmp_path_factory.mktemp("learner") / "prompts"
    mlflow.pyfunc.save_model(stored, **wrappers.packaged(wrappers.Phi3Model, "tiny"))
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
        "prompts": mlflow.pyfunc.load_model(str(stored)),
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
            patch.setenv(name, "")  # so that what MLflow sets there is undone at the end
            patch.delenv(name)
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("learner", (folder / "artifacts").as_uri()))
        yield folder


@pytest.fixture
def desk(store, tmp_path, monkeypatch):
    """The folder in which cells run; the copies of the model that they log are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    shutil.rmtree(store / "artifacts", ignore_errors=True)


def run(cells, names, survived=()):
    """Run a learner's cells one after the other, and return all names; what a cell defined outlives its error."""
    found = dict(names)
    for cell in cells:
        magic, _, rest = cell.partition("\n")
        if magic.startswith("%%writefile "):
            Path(magic.split()[1]).write_text(rest, encoding="utf-8")
        else:
            with suppress(*survived):
                exec(cell, found)
    return found


def verdict(name, cells, names, survived=()):
    """What the check, as it stands in the notebook, says of these cells."""
    said = run([f"said = {EXERCISES[name].check}"], run(cells, names, survived))["said"]
    print(said)
    return said


def test_every_exercise_has_a_stub_and_mistakes_that_get_hints_of_their_own():
    assert STUBS.keys() == MISTAKES.keys() == EXERCISES.keys()
    for name, mistakes in MISTAKES.items():
        assert len({hint for _, hint in mistakes} - {STUBS[name][1]}) >= 3


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes_every_step(name, names, desk):
    said = verdict(name, EXERCISES[name].solutions, names)
    assert said.passed
    assert 3 <= said.of <= 5


@pytest.mark.parametrize("name", EXERCISES)
def test_the_untouched_stub_runs_and_gets_a_helpful_word(name, names, desk):
    said = verdict(name, EXERCISES[name].stubs, names)
    steps, hint = STUBS[name]
    assert (said.passed, len(said.right)) == (False, steps)
    assert hint in said.hint
    assert said.came
    assert said.expected


@pytest.mark.parametrize(
    ("name", "changes", "hint"),
    [pytest.param(name, *case, id=f"{name}-{case[1]}") for name, cases in MISTAKES.items() for case in cases],
)
def test_a_mistake_gets_the_hint_that_fits(name, changes, hint, names, desk):
    cells = list(EXERCISES[name].solutions)
    for right, wrong in changes.items():
        assert any(right in cell for cell in cells), f"the solution has no {right}"
        cells = [cell.replace(right, wrong) for cell in cells]
    cells = [cell.replace("\nclass ", f"{BESIDES}\n\nclass ", 1) for cell in cells]
    said = verdict(name, cells, names, survived=(Exception,))
    assert not said.passed
    assert hint in said.hint


def test_what_cells_write_is_removed_by_the_last_cell_and_by_clean_and_ignored_by_git():
    written = {source.split()[1] for source in SOURCES.values() if source.startswith("%%writefile ")}
    assert "my_wrapper.py" in written
    assert all(f'"{file}"' in SOURCES["clean-up"] for file in written)
    assert {f"notebooks/{file}" for file in written} <= set(LEFT_BY_RUNS)
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {f"/notebooks/{file}" for file in written} <= set(ignored)


def test_cleaning_up_removes_what_the_learner_made(names, desk):
    import mlflow

    client = mlflow.MlflowClient()
    found = run(EXERCISES["own_wrapper"].solutions, names)
    mine, info = client.get_model_version_by_alias("my-wrapper", "candidate"), found["my_info"]
    lesson = names["tracking"].register(info.model_uri, "lesson", alias="candidate", description="Its own.", tags={})
    logged = [mlflow.initialize_logged_model(name="lesson") for _ in range(4)]
    infos = dict(zip(("first_info", "prompt_info", "chat_info", "pipeline_info"), logged, strict=True))
    run([SOURCES["clean-up"]], {**found, **infos, "version": lesson, "should_cleanup": True})
    assert mine.version not in [each.version for each in client.search_model_versions("name = 'my-wrapper'")]
    assert client.search_model_versions("name = 'lesson'") == []
    left = client.search_logged_models([client.get_experiment_by_name("learner").experiment_id])
    assert not {info.model_id, *(each.model_id for each in logged)} & {each.model_id for each in left}
    assert not (desk / "my_wrapper.py").exists()
