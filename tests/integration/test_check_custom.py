"""The verdicts of CustomPythonWrapper's checks: on each solution, on the untouched stub, and on typical mistakes."""

import re
import shutil
from contextlib import chdir, suppress
from pathlib import Path

import nbformat
import pytest
from conftest import own_store

from phi3kit.workbook.exercises.cells import exercises
from phi3kit.workbook.exercises.check.elsewhere import ask
from phi3kit.workbook.exercises.supervisor import Limits
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
    "stop_sequence": (0, "One of the params in the signature"),
    "deadline": (1, "after each piece"),
    "own_wrapper": (0, "Fill in both cells"),
}

# Typical mistakes in each exercise, as changes to the solution, and a part of the hint for each.
ROWS = '[answer(prompt) for prompt in model_input["prompt"]]'
BY_ROW = 'model_input.apply(lambda row: answer(row["prompt"]), axis=1)'
PARAMS = 'params={"top_p": 1.0}'
STOP = '["."]'
LOOP = """            text += piece
            if time.monotonic() >= end:
                break
"""
SLEPT = "    with closing(pieces):"
CLOCK = """        for piece in pieces:
            text += piece
            if time.monotonic() >= end:
                break
"""
THREADED = """    import threading

    texts = []
    reader = threading.Thread(target=lambda: texts.extend(pieces), daemon=True)
    reader.start()
    reader.join(seconds)
    return "".join(texts)

"""
ASKED = "my_deadline(pieces, seconds=0.1)"
ENCODED = "prompts = [self.template.encode(messages) for messages in chats]"
GENERATED = "self.engine.generate(prompts)"
TEXTS = f"return [answer.text for answer in {GENERATED}]"
LONG = "self.engine.generate(prompts, Options(max_tokens=40))"
QUESTIONS = 'questions = model_input["question"]'
ARTIFACT = 'context.artifacts["phi3-mini-onnx"]'
CODE = "code_paths=[str(Path(phi3kit.__file__).parent)]"
WRAPPER = EXERCISES["own_wrapper"].solutions[0]
URI = '"models:/my-wrapper@candidate"'
# A right answer without the kit.
BY_HAND = """%%writefile my_wrapper.py
from pathlib import Path

import mlflow
import onnxruntime_genai as og
from tokenizers import Tokenizer


class MyWrapper(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        folder = Path(context.artifacts["phi3-mini-onnx"])
        self.model = og.Model(str(folder))
        self.tokenizer = og.Tokenizer(self.model)
        self.plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.plain.encode_special_tokens = True

    def answer(self, question):
        user, end, assistant = (self.tokenizer.to_token_id(f"<|{name}|>") for name in ("user", "end", "assistant"))
        ids = [user, *self.plain.encode(question, add_special_tokens=False).ids, end, assistant]
        params = og.GeneratorParams(self.model)
        params.set_search_options(max_length=len(ids) + 48)
        generator = og.Generator(self.model, params)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        return self.tokenizer.decode(generator.get_sequence(0)[len(ids) :])

    def predict(self, context, model_input):
        return [self.answer(question) for question in model_input["question"]]


mlflow.models.set_model(MyWrapper())
"""
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
        ({ROWS: f"{ROWS[:-1]} if prompt]"}, "An empty prompt gets an answer too"),
        ({ROWS: '[answer(prompt) for prompt in model_input.sort_index()["prompt"]]'}, "a label"),
        ({ROWS: '[answer(model_input["prompt"][i]) for i in sorted(set(model_input.index))]'}, "a label"),
        ({ROWS: '[answer(model_input["prompt"][i]) for i in model_input.index]'}, "the same number"),
        ({ROWS: '[answer(p) for p in model_input["prompt"].to_dict().values()]'}, "the same number"),
        ({ROWS: f"{BY_ROW}.tolist()"}, "returns a table and no column"),
        ({ROWS: f"list({BY_ROW})"}, "returns a table and no column"),
        ({ROWS: f"{ROWS} if len(model_input) != 1 else answer(model_input.iloc[0, 0])"}, "One row is a table too"),
        ({ROWS: f"[answer(model_input.iloc[0, 0]), *{ROWS}[1:]]"}, "has no first row"),
        ({"return ": ""}, "is there a `return`"),
    ],
    "top_p_signature": [
        ({PARAMS: 'params={"top_p": 1}'}, "a whole number"),
        ({PARAMS: 'params={"top_p": "1.0"}'}, "in quotes"),
        ({PARAMS: 'params={"top-p": 1.0}'}, "spelling"),
        ({PARAMS: 'params={"top_p": [1.0]}'}, "Square brackets"),
        ({PARAMS: 'params={"top_p": __import__("numpy").float32(1)}'}, "32 bits and seven digits"),
        ({PARAMS: 'params={"top_p": 0.9}'}, "leaves every token in"),
        ({"input_example": '{**input_example, "top_p": 1.0}', f", {PARAMS}": ""}, "An input is a column"),
        ({f'infer_signature(input_example, ["Run"], {PARAMS})': '{"top_p": 1.0}'}, "Keep the call"),
    ],
    "stop_sequence": [
        ({STOP: '"."'}, "even if it holds only one"),
        ({"40": "9"}, "cut a sentence in half"),
        ({"40": "9", f', "stop": {STOP}': ""}, "cut a sentence in half"),
        ({"40": "64"}, "Leave `max_tokens` at 40"),
        ({"40": "40.5"}, "Leave `max_tokens` at 40"),
        ({'"max_tokens": 40, ': ""}, "Leave `max_tokens` at 40"),
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
        ({SLEPT: f"    time.sleep(seconds)\n{SLEPT}"}, "not for the clock"),
        ({CLOCK: "        while time.monotonic() < end:\n            text += next(pieces, '')\n"}, "not for the clock"),
        ({SLEPT: f"{THREADED}{SLEPT}"}, "in this thread"),
        (
            {CLOCK: f"{CLOCK}        while True:\n            text += next(pieces, '')\n", ASKED: ""},
            "not for the clock",
        ),
    ],
    "own_wrapper": [
        ({URI: "my_info.model_uri"}, "An alias can be moved"),
        ({URI: 'f"runs:/{my_info.run_id}/my-wrapper"'}, "An alias can be moved"),
        ({URI: '"models:/my-wrapper@unknown"'}, "does not know this name"),
        ({'{"question": question}': '{"prompt": question}'}, "derives the signature"),
        ({'{"phi3-mini-onnx": str(onnx_folder)}': "{}", ARTIFACT: "CACHE"}, "stays on this machine"),
        ({TEXTS: f"return {GENERATED}[0].text"}, "answer every row"),
        ({ENCODED: "prompts = list(questions)", GENERATED: LONG}, "answers to the bare questions"),
        ({GENERATED: LONG.replace("max", "temperature=1.5, max")}, "sampling is on"),
        ({GENERATED: LONG.replace("40", "4")}, "cut short"),
        ({TEXTS: TEXTS.replace("answer.text", '"Well: " + answer.text', 1)}, "not alone"),
        ({TEXTS: TEXTS.replace("answer.text", "answer", 1)}, "has the type Answer"),
        ({TEXTS: TEXTS.replace("answer.text", "str(answer)", 1)}, "its attribute `text`"),
        ({TEXTS: f"{TEXTS}[::-1]"}, "in another order"),
        (
            {ENCODED: """prompts = [f"<|user|>{one}<|end|><|assistant|>" for one in questions]"""},
            "the user can write control tokens",
        ),
        ({QUESTIONS: f"{QUESTIONS}.str.replace('<|', '< |')"}, "encode each question unchanged"),
        ({QUESTIONS: f"{QUESTIONS}.str.replace('<[|].*?[|]>', '', regex=True)"}, "encode each question unchanged"),
        ({QUESTIONS: f"{QUESTIONS}.map(__import__('html').escape)"}, "encode each question unchanged"),
        ({f"        {CODE},": "       "}, "travels along"),
        ({CODE: CODE.replace(".parent)", '.parent / "chat")')}, "travels along"),
        ({"import pandas as pd": "import pandas as pd\nimport my_helper"}, "travels along"),
        ({ARTIFACT: '__import__("phi3kit.weights").weights.onnx("tiny")'}, "`context.artifacts` names"),
        ({"folder = Path": "__import__('os')._exit(3)\n        folder = Path"}, "only this computer has"),
        ({QUESTIONS: 'questions = model_input["questions"]'}, "The column's name"),
        ({QUESTIONS: f"{QUESTIONS}\n        1 / 0"}, "The error is in `predict`"),
        ({ARTIFACT: "CACHE"}, "Another computer has no such path"),
        ({"ChatTemplate(folder)": "ChatTemplate(CACHE)"}, "Another computer has no such path"),
        ({WRAPPER: BY_HAND.replace("og.Model(str(folder))", "og.Model(CACHE)")}, "from another folder"),
        ({ARTIFACT: "COPY"}, "from another folder than your model's artifact"),
        ({URI: '"my-wrapper@candidate"'}, "begins with `models:/`"),
        ({URI: '"models:my-wrapper@candidate"'}, "begins with `models:/`"),
        ({URI: '"models://my-wrapper@candidate"'}, "begins with `models:/`"),
    ],
}
# Right answers in another style, as changes to the solution.
RIGHT = {
    "every_row": [
        {ROWS: 'model_input["prompt"].map(answer).tolist()'},
        {ROWS: "[answer(row.prompt) for row in model_input.itertuples()]"},
        {ROWS: '[answer(row["prompt"]) for row in model_input.to_dict("records")]'},
        {ROWS: '[answer(model_input["prompt"].iloc[i]) for i in range(len(model_input))]'},
        {ROWS: '[answer(row["prompt"]) for _, row in model_input.reset_index().iterrows()]'},
        {ROWS: f"{BY_ROW}.tolist() if len(model_input) else []"},
    ],
    "top_p_signature": [
        {
            f'infer_signature(input_example, ["Run"], {PARAMS})': "mlflow.models.ModelSignature("
            'infer_signature(input_example).inputs, params=mlflow.types.ParamSchema([mlflow.types.ParamSpec("top_p", '
            '"double", 1.0)]))'
        },
        {PARAMS: 'params={"top_p": 1.0, "top_k": 50}'},
    ],
    "stop_sequence": [{STOP: '["."], "temperature": 0.0'}, {STOP: '[".", "NEVER SAID"]'}],
    "deadline": [
        {SLEPT: "    try:", "    return text": "    finally:\n        pieces.close()\n    return text"},
        {"for piece in pieces": "while (piece := next(pieces, None)) is not None"},
        {"break": "pieces.close()"},
    ],
    "own_wrapper": [
        {WRAPPER: BY_HAND, f"        {CODE},": "       "},
        {CODE: 'code_paths=wrappers.packaged(wrappers.Phi3Model, "tiny")["code_paths"]'},
        {"import pandas as pd": "import pandas as pd\nimport my_helper", "parent)]": 'parent), "my_helper.py"]'},
        {GENERATED: "[self.engine.generate([prompt])[0] for prompt in prompts]"},
    ],
}
OPTIONS = "from phi3kit.generation import Options\n\n"  # which some of the changes need


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


@pytest.fixture(scope="module")
def copy(tiny_onnx, tmp_path_factory):
    """A copy of the ONNX folder in no cache, of which the check does not know."""
    return shutil.copytree(tiny_onnx, tmp_path_factory.mktemp("copy") / "onnx")


@pytest.fixture
def verdict(names, store, tmp_path, monkeypatch):
    """Runs a learner's cells and then the check's, as the notebook has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # a notebook imports what lies beside it
    (tmp_path / "my_helper.py").touch()

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


def mistakes():
    """All of them. Where the check asks a model in a process, seconds each, only the first with a hint runs by day."""
    for name, cases in MISTAKES.items():
        hints = set()
        for changes, hint in cases:
            repeated = name == "own_wrapper" and hint in hints
            marks = [pytest.mark.night] if repeated else []
            yield pytest.param(name, changes, hint, id=f"{name}-{hint}", marks=marks)
            hints.add(hint)


@pytest.mark.parametrize(("name", "changes", "hint"), list(mistakes()))
def test_a_mistake_gets_its_hint(verdict, copy, names, name, changes, hint):
    paths = {"CACHE": repr(str(names["onnx_folder"])), "COPY": repr(str(copy))}
    for path, literal in paths.items():
        changes = {right: wrong.replace(path, literal) for right, wrong in changes.items()}
    result = verdict(name, changed(name, changes), ignored=(Exception,))
    assert not result.passed and hint in result.hint


@pytest.mark.parametrize(("name", "changes"), [(name, changes) for name, cases in RIGHT.items() for changes in cases])
def test_a_right_answer_in_another_style_passes(verdict, name, changes):
    assert verdict(name, changed(name, changes)).passed


def changed(name, changes):
    """The cells of the solution with other parts in them."""
    cells = list(EXERCISES[name].solutions)
    for right, wrong in changes.items():
        assert any(right in cell for cell in cells), f"the solution has no {right}"
        cells = [cell.replace(right, wrong) for cell in cells]
    return [cell.replace("\nclass ", f"{OPTIONS}\nclass ", 1) if "Options(" in cell else cell for cell in cells]


LOGGED = sorted(set(re.findall(r"\b\w+_info\b", SOURCES["clean-up"])) - {"get_model_info"})
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
        scope |= {name: mlflow.initialize_logged_model(name="lesson") for name in LOGGED}
        scope["version"] = names["tracking"].register(uri, "lesson", alias="candidate", description="Its own.", tags={})
        scope["my_version"] = client.get_model_version_by_alias("my-wrapper", "candidate")
        return folder, execute([SOURCES["clean-up"]], scope | {"should_cleanup": True})


def test_the_solution_of_own_wrapper_passes(lesson):
    _, scope = lesson
    assert scope["result"].passed


@pytest.fixture
def kept(names, tmp_path, monkeypatch):
    """The folder of a notebook with the learner's file, after its last cell without `should_cleanup`."""
    monkeypatch.chdir(tmp_path)
    for file in WRITTEN:
        Path(file).touch()
    execute([SOURCES["clean-up"]], names | {"should_cleanup": False, "my_uri": None})
    return tmp_path


def test_the_learners_file_stays_without_cleaning_up(kept):
    assert [path.name for path in kept.glob("*.py")] == ["my_wrapper.py"]


def test_the_last_cell_says_that_the_learners_file_stays(capsys, kept):
    assert "my_wrapper.py" in capsys.readouterr().out


def test_the_stub_says_how_much_an_attempt_stores(names, tiny_onnx, capsys):
    execute(EXERCISES["own_wrapper"].stubs[1:], names)
    size = sum(file.stat().st_size for file in tiny_onnx.iterdir())
    assert f"{size / 1e6:.0f} MB" in capsys.readouterr().out


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


@pytest.mark.parametrize("name", ["my_info", *LOGGED])
def test_cleaning_up_deletes_the_logged_models(lesson, name):
    _, scope = lesson
    client = scope["client"]
    models = client.search_logged_models([client.get_experiment_by_name("learner").experiment_id])
    assert scope[name].model_id not in [model.model_id for model in models]


def test_a_slow_model_is_given_up_before_its_cell_is(tmp_path, monkeypatch):
    monkeypatch.setattr(Limits, "cell", 0.5)
    (tmp_path / "MLmodel").write_text("flavors: {}", encoding="utf-8")
    assert "took longer than 0.4 s" in ask(str(tmp_path), [], [["Hi!"]])["error"][1]
