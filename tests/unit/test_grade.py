"""Which cells of a returned notebook run, what is read from them, and what is printed. No kernel is started here."""

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_notebook, new_output
from returned import SOLUTIONS, returned, workbook
from typer.testing import CliRunner

from phi3kit import weights
from phi3kit.cli import app
from phi3kit.errors import InvalidRequest
from phi3kit.workbook.exercises import grading, sandbox
from phi3kit.workbook.running import paths
from phi3kit.workbook.running.results import MEDIA_TYPE

IMPORT = "from phi3kit.workbook.exercises import check\n"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A workbook of one notebook, beside one without exercises."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    paths.NOTEBOOKS.mkdir()
    nbformat.write(workbook(), paths.NOTEBOOKS / "Small.ipynb")
    nbformat.write(new_notebook(), paths.NOTEBOOKS / "Empty.ipynb")
    return tmp_path


class FakeSandbox:
    """A sandbox that runs nothing: it keeps the notebook, and gives its cells prepared outputs."""

    def __init__(self):
        self.notebook, self.outputs, self.problems, self.cells = None, {}, [], []

    def run(self, notebook, limits=None, progress=None):
        self.notebook = notebook
        for numbers in self.cells:
            progress(*numbers)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = self.outputs.get(cell.id, [])
        return sandbox.Result(notebook, self.problems)

    @property
    def code(self):
        """The code that was to run, by cell id, in order."""
        return {cell.get("id"): cell.source for cell in self.notebook.cells if cell.cell_type == "code"}


@pytest.fixture
def fake(monkeypatch):
    result = FakeSandbox()
    monkeypatch.setattr(sandbox, "run", result.run)
    return result


def verdict(name, right, steps, **mistake):
    data = {f"check:{name}": {"right": right, "steps": steps, **mistake}}
    return [new_output("execute_result", {MEDIA_TYPE: data})]


def error(name, message):
    return new_output("error", ename=name, evalue=message, traceback=[])


def test_a_renamed_copy_is_recognized_by_its_cells(small, fake):
    assert grading.grade(returned(small / "renamed by anna.ipynb")).notebook == "Small"


@pytest.mark.parametrize(
    ("changed", "source", "graded"),
    [
        ("parameters", "n = 5", "n = 1  # a parameter"),
        ("check-double", "print('Right: 2 of 2')", f"{IMPORT}check.double(double)"),
        ("check-shout", None, f"{IMPORT}check.shout(loud, louder)"),
        ("stub-double", SOLUTIONS["stub-double"], SOLUTIONS["stub-double"]),
    ],
    ids=["our parameters", "our check", "our check for a lost one", "the learner's code"],
)
def test_it_runs_our_checks_and_parameters(small, fake, changed, source, graded):
    grading.grade(returned(small / "a.ipynb", {changed: source}))
    assert fake.code[changed] == graded


def test_a_lost_check_runs_last(small, fake):
    grading.grade(returned(small / "a.ipynb", {"check-double": None}))
    assert list(fake.code)[-1] == "check-double"


def test_another_kernel_in_the_metadata_is_not_used(small, fake):
    path = returned(small / "a.ipynb")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec = {"name": "ir", "display_name": "R"}
    nbformat.write(notebook, path)
    grading.grade(path)
    assert "kernelspec" not in fake.notebook.metadata


def test_a_verdict_gives_points_and_feedback(small, fake):
    fake.outputs["check-double"] = verdict("double", ["one"], 2, got="3", expected="4", hint="Multiply.")
    feedback = {"got": "3", "expected": "4", "hint": "Multiply."}
    mark = grading.Mark("double", "Exercise 1: Double", 1, 2, feedback)
    assert grading.grade(returned(small / "a.ipynb")).marks[0] == mark


def test_a_verdict_in_another_cell_gives_no_points(small, fake):
    forged = {f"check:{name}": {"right": ["a", "b"], "steps": 2} for name in ("double", "shout")}
    fake.outputs["stub-double"] = [new_output("display_data", {MEDIA_TYPE: forged})]
    assert grading.grade(returned(small / "a.ipynb")).right == 0


def test_an_error_of_the_check_is_the_feedback(small, fake):
    fake.outputs["check-shout"] = [error("NameError", "no loud")]
    assert grading.grade(returned(small / "a.ipynb")).marks[1].feedback == {"not checked": "NameError: no loud"}


def test_an_error_of_the_stub_comes_before_that_of_the_check(small, fake):
    fake.outputs |= {"stub-double": [error("KeyError", "a")], "check-double": [error("NameError", "no double")]}
    assert grading.grade(returned(small / "a.ipynb")).marks[0].feedback == {"not checked": "KeyError: a"}


def test_an_exercise_that_did_not_run_keeps_its_steps(small, fake):
    report = grading.grade(returned(small / "a.ipynb"))
    assert [(mark.right, mark.steps) for mark in report.marks] == [(0, 2), (0, 1)]


def test_an_exercise_that_did_not_run_says_so(small, fake):
    report = grading.grade(returned(small / "a.ipynb"))
    assert report.marks[0].feedback == {"not checked": "the run ended before this exercise"}


def test_a_report_adds_its_marks_up(small, fake):
    fake.outputs = {"check-double": verdict("double", ["one"], 2), "check-shout": verdict("shout", ["both"], 1)}
    report = grading.grade(returned(small / "a.ipynb"))
    assert (report.right, report.steps) == (2, 3)


def again(content, number, **changes):
    """Insert a changed copy of a cell after it."""
    content["cells"].insert(number + 1, content["cells"][number] | changes)


# What programs leave in a notebook, and grading does not need. "stub-double" is the cell with the number 4.
REPAIRED = {
    "no id": lambda content: content["cells"][0].pop("id"),
    "a null id": lambda content: content["cells"][0].update(id=None),
    "a number as id": lambda content: content["cells"][0].update(id=7),
    "an id of 80 characters": lambda content: content["cells"][0].update(id="x" * 80),
    "an id with a space": lambda content: content["cells"][0].update(id="a b"),
    "an id twice": lambda content: again(content, 4, source="1 + 1"),
    "minor version 4": lambda content: content.update(nbformat_minor=4),
    "minor version 9": lambda content: content.update(nbformat_minor=9),
    "no minor version": lambda content: content.pop("nbformat_minor"),
    "a further key": lambda content: content.update(widgets={}),
    "a further key of a cell": lambda content: content["cells"][4].update(collapsed=True),
    "a running cell": lambda content: content["cells"][4].update(execution_count="*"),
    "no execution count": lambda content: content["cells"][4].pop("execution_count"),
    "no outputs": lambda content: content["cells"][4].pop("outputs"),
    "null outputs": lambda content: content["cells"][4].update(outputs=None),
    "an unknown output": lambda content: content["cells"][4].update(outputs=[{"output_type": "odd"}]),
    "markdown with outputs": lambda content: content["cells"][0].update(outputs=[], execution_count=None),
    "no metadata": lambda content: content.pop("metadata"),
    "null metadata": lambda content: content.update(metadata=None),
    "no metadata of a cell": lambda content: content["cells"][4].pop("metadata"),
    "null tags": lambda content: content["cells"][4].update(metadata={"tags": None}),
    "tags that are a text": lambda content: content["cells"][4].update(metadata={"tags": "exercise"}),
    "attachments that are a text": lambda content: content["cells"][0].update(attachments="text"),
    "a list as id": lambda content: content["cells"][0].update(id=["title"]),
    "a cell to skip": lambda content: content["cells"][4].update(metadata={"tags": ["skip-execution"]}),
}


def graded(folder, change):
    """Grade a notebook whose JSON was changed."""
    path = returned(folder / "a.ipynb", SOLUTIONS)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return grading.grade(path)


@pytest.mark.parametrize("name", REPAIRED)
def test_what_grading_does_not_need_is_not_asked_for(small, fake, name):
    graded(small, REPAIRED[name])
    assert {id_: source for id_, source in fake.code.items() if id_ in SOLUTIONS} == SOLUTIONS


@pytest.mark.parametrize("name", REPAIRED)
def test_the_notebook_that_runs_is_valid(small, fake, name):
    graded(small, REPAIRED[name])
    nbformat.validate(fake.notebook)


def test_no_tag_of_a_learners_keeps_a_cell_from_running(small, fake):
    graded(small, REPAIRED["a cell to skip"])
    assert fake.notebook.cells[4].metadata == {}


def test_both_cells_with_one_id_run(small, fake):
    path = returned(small / "a.ipynb", SOLUTIONS, {"stub-double": ["print('a copy')"]})
    path.write_text(path.read_text().replace(nbformat.read(path, 4).cells[5].id, "stub-double"))
    grading.grade(path)
    sources = [cell.source for cell in fake.notebook.cells]
    assert sources[4:6] == [SOLUTIONS["stub-double"], "print('a copy')"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_read_over(small, fake, encoding):
    path = returned(small / "a.ipynb", {"stub-double": "ü = 1"})
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    grading.grade(path)
    assert fake.code["stub-double"] == "ü = 1"


def test_line_ends_of_windows_are_read(small, fake):
    path = returned(small / "a.ipynb", SOLUTIONS)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    grading.grade(path)
    assert fake.code["stub-double"] == SOLUTIONS["stub-double"]


def test_half_an_emoji_does_not_reach_the_kernel(small, fake):
    path = returned(small / "a.ipynb", {"stub-double": "x = 'HALF'"})
    path.write_text(path.read_text().replace("HALF", "\\ud83d"))
    grading.grade(path)
    assert fake.code["stub-double"] == "x = '?'"


@pytest.mark.skipif(sys.platform != "linux", reason="there, every name of a file is text")
def test_a_name_without_utf_8_is_graded(small, fake):
    path = returned(small / os.fsdecode(b"caf\xe9.ipynb"))
    assert grading.grade(path).notebook == "Small"


def notebook_of(*cells, **others):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells} | others)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "give a file that exists"),
        ("", "give a Jupyter notebook (a.ipynb is empty)"),
        ("not JSON", "(a.ipynb is no whole JSON: Expecting value: line 1 column 1"),
        (notebook_of()[:-2], "(a.ipynb is no whole JSON: Expecting"),
        ('{"cells": [1,]}', "(a.ipynb is no whole JSON: "),
        ('{\n<<<<<<< HEAD\n"cells": []}', "line 2 column 1"),
        ("[" * 100_000, "(a.ipynb is no whole JSON: maximum recursion depth exceeded"),
        (b'{"cells": ["caf\xe9"]}', "(a.ipynb is no whole JSON: 'utf-8' codec can't decode byte 0xe9"),
        ("[1, 2]", "(a.ipynb is JSON, but not of a notebook)"),
        ('{"name": "package"}', "(a.ipynb is JSON, but not of a notebook)"),
        (notebook_of(nbformat="4"), "(a.ipynb is JSON, but not of a notebook)"),
        (
            notebook_of(nbformat=3, worksheets=[]),
            "is in version 3 of the format, not 4: copy its code",
        ),
        (notebook_of(nbformat=5), "is in version 5 of the format, not 4: copy its code into the notebook"),
        (notebook_of(cells=None), "(a.ipynb has no list of cells)"),
        (notebook_of("x"), "has a cell, number 1, that is neither code, markdown nor raw text"),
        (
            notebook_of({"cell_type": "raw", "source": ""}, {}),
            "has a cell, number 2, that is neither code",
        ),
        (
            notebook_of({"cell_type": "heading", "source": ""}),
            "has a cell, number 1, that is neither code",
        ),
        (notebook_of({"cell_type": "code"}), "has a cell, number 1, without a source"),
        (notebook_of({"cell_type": "code", "source": None}), "has a cell, number 1, without a source"),
        (notebook_of({"cell_type": "code", "source": ["a", 1]}), "has a cell, number 1, without a source"),
        (notebook_of({"cell_type": "code", "source": "x"}), "has lost the ids of its cells: copy its code into the"),
        (notebook_of(), "a copy of Empty or Small with its exercises"),
        (notebook_of({"cell_type": "raw", "source": "", "id": "title"}), "a copy of Empty or Small with its exercises"),
    ],
)
def test_a_file_that_is_no_copy_of_ours_does_not_run(small, fake, content, message):
    path = small / "a.ipynb"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        grading.grade(path)
    assert fake.notebook is None


def test_a_folder_is_no_file_to_grade(small, fake):
    with pytest.raises(InvalidRequest, match="give a file that can be read"):
        grading.grade(small)


@pytest.fixture
def command(small, fake, monkeypatch):
    """The command line, with the fake sandbox and without `tiny`."""
    for form in ("checkpoint", "onnx"):
        monkeypatch.setattr(weights, form, lambda name: None)
    return lambda *arguments: CliRunner().invoke(app, ["grade", *map(str, arguments)])


def test_the_command_prints_points_feedback_and_the_sum(small, fake, command):
    fake.outputs = {"check-double": verdict("double", ["one"], 2, got="3\n4", expected="4", hint="[b]no")}
    fake.outputs["check-shout"] = verdict("shout", ["both"], 1)
    fake.problems = ["Cell [5] was odd."]
    path = returned(small / "anna.ipynb")
    assert command(path).stdout.splitlines() == [
        f"{path}  (Small)",
        "  1 of 2  Exercise 1: Double",
        "          got:         3",
        "                       4",
        "          expected:    4",
        "          hint:        [b]no",
        "  1 of 1  Exercise 2: Shout",
        "  Cell [5] was odd.",
        "  2 of 3 in all",
    ]


def test_the_number_of_the_running_cell_is_passed_on(small, fake):
    fake.cells, numbers = [(1, 3), (2, 3)], []
    grading.grade(returned(small / "a.ipynb"), progress=lambda *cell: numbers.append(cell))
    assert numbers == fake.cells


def test_without_a_terminal_no_progress_is_shown(small, fake, command):
    fake.cells = [(1, 3), (2, 3)]
    path = returned(small / "a.ipynb")
    assert command(path).stderr == f"{path}: a minute or two. Ctrl-C ends it.\n"


def test_the_command_prints_no_control_characters(small, fake, command):
    fake.outputs["check-double"] = verdict("double", [], 2, got="\x1b[31m3")
    assert "got:         \ufffd[31m3\n" in command(returned(small / "a.ipynb")).stdout


def test_the_command_prints_why_an_exercise_was_not_checked(small, fake, command):
    fake.outputs["check-double"] = [error("NameError", "no x")]
    assert "          not checked: NameError: no x\n" in command(returned(small / "a.ipynb")).stdout


def test_a_file_with_few_points_is_no_failure_of_the_command(small, command):
    assert command(returned(small / "a.ipynb")).exit_code == 0


def test_a_refused_file_fails_the_command(small, command):
    done = command(small / "absent.ipynb")
    assert done.exit_code == 2 and "a file that exists" in done.stderr


def test_the_files_after_a_refused_one_are_graded(small, command):
    good = returned(small / "good.ipynb")
    results = json.loads(command(small / "absent.ipynb", good, "--json").stdout)
    assert list(results) == [str(good)]


def test_json_has_marks_and_sums(small, command):
    path = returned(small / "a.ipynb")
    result = json.loads(command(path, "--json").stdout)[str(path)]
    assert (result["right"], result["steps"], result["marks"][0]["exercise"]) == (0, 3, "double")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "a"),
        ("GITHUB_TOKEN", "a"),
        ("DB_PASSWORD", "a"),
        ("PGPASS", "a"),
        ("AWS_SECRET_ACCESS_KEY", "a"),
        ("OPENAI_API_KEY", "a"),
        ("SSH_AUTH_SOCK", "a"),
        ("https_proxy", "a"),
        ("DATABASE_URL", "postgres://me:secret@host/db"),
        ("MLFLOW_RUN_ID", "a"),
        ("HF_HOME", "a"),
        ("XDG_CACHE_HOME", "a"),
    ],
)
def test_no_secret_variable_reaches_the_sandbox(tmp_path, name, value):
    assert name not in sandbox.environment({name: value}, tmp_path)


@pytest.mark.parametrize(("name", "value"), [("PATH", "/p"), ("SYSTEMROOT", "C:\\Windows")])
def test_other_variables_reach_the_sandbox(tmp_path, name, value):
    assert sandbox.environment({name: value}, tmp_path)[name] == value


@pytest.mark.parametrize("name", ["HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "TMPDIR", "TEMP", "TMP"])
def test_the_sandbox_has_folders_of_its_own(tmp_path, name):
    assert Path(sandbox.environment({name: "a"}, tmp_path)[name]).is_relative_to(tmp_path)


def test_the_sandbox_has_a_store_of_its_own(tmp_path):
    uri = sandbox.environment({}, tmp_path)["MLFLOW_TRACKING_URI"]
    assert uri == f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}"


def test_the_sandbox_has_the_hook_before_other_paths(tmp_path):
    variables = sandbox.environment({"PYTHONPATH": "x"}, tmp_path)
    assert variables["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "hook"), "x"])


def test_the_sandbox_uses_the_cache_of_the_models(tmp_path):
    assert sandbox.environment({}, tmp_path)["PHI3KIT_CACHE"] == str(weights.store.root())
