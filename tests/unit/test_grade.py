"""What of a returned notebook is run, what is read from it, and what is said; no kernel is started here."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from returned import SOLUTIONS, returned, workbook
from typer.testing import CliRunner

from phi3kit import weights
from phi3kit.cli import app
from phi3kit.errors import InvalidRequest
from phi3kit.workbook import grade, places, sandbox
from phi3kit.workbook.results import MEDIA_TYPE

IMPORT = "from phi3kit.workbook import check\n"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A workbook of one notebook, beside one that has no exercises."""
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path / "notebooks")
    places.NOTEBOOKS.mkdir()
    nbformat.write(workbook(), places.NOTEBOOKS / "Small.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), places.NOTEBOOKS / "Empty.ipynb")
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """A sandbox that runs nothing: what it was given, and what the checks are to have said."""
    seen = {"outputs": {}, "troubles": []}

    def run(notebook, limits=None):
        seen["notebook"] = notebook
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = seen["outputs"].get(cell.id, [])
        return sandbox.Ran(notebook, seen["troubles"])

    monkeypatch.setattr(sandbox, "run", run)
    return seen


def verdict(name, right, of, **trouble):
    told = {"right": right, "of": of, **trouble}
    return [nbformat.v4.new_output("execute_result", {MEDIA_TYPE: {f"check:{name}": told}})]


def sources(notebook):
    return [(cell.get("id"), cell.source) for cell in notebook.cells if cell.cell_type == "code"]


def test_our_checks_and_parameters_take_the_place_of_the_learners(small, ran):
    changes = {"parameters": "n = 5", "check-double": "print('Right: 2 of 2')", "check-shout": None}
    path = returned(small / "renamed by anna.ipynb", SOLUTIONS | changes)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec = {"name": "ir", "display_name": "R"}
    nbformat.write(notebook, path)
    assert grade.grade(path).notebook == "Small"
    cells = dict(sources(ran["notebook"]))
    assert cells["parameters"] == "n = 1  # a parameter"
    assert cells["check-double"] == f"{IMPORT}check.double(double)"
    assert sources(ran["notebook"])[-1] == ("check-shout", f"{IMPORT}check.shout(loud, louder)")
    assert cells["stub-double"] == SOLUTIONS["stub-double"]
    assert "kernelspec" not in ran["notebook"].metadata


def test_a_score_is_read_from_our_own_check_cells_alone(small, ran):
    forged = {f"check:{name}": {"right": ["a", "b"], "of": 2} for name in ("double", "shout")}
    ran["outputs"] = {
        "stub-double": [nbformat.v4.new_output("display_data", {MEDIA_TYPE: forged})],
        "check-double": verdict("double", ["one"], 2, came="3", expected="4", hint="Multiply."),
        "check-shout": [nbformat.v4.new_output("error", ename="NameError", evalue="no loud", traceback=[])],
    }
    report = grade.grade(returned(small / "a.ipynb"))
    double, shout = report.marks
    assert (double.right, double.of) == (1, 2)
    assert double.told == {"came": "3", "expected": "4", "hint": "Multiply."}
    assert (shout.right, shout.of, shout.told) == (0, 1, {"not checked": "NameError: no loud"})
    assert (report.right, report.of) == (1, 3)


def test_an_exercise_that_was_not_reached_keeps_its_points_in_the_sum(small, ran):
    report = grade.grade(returned(small / "a.ipynb"))
    assert (report.right, report.of) == (0, 3)
    assert report.marks[0].told == {"not checked": "the notebook did not come so far"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "give a file that exists"),
        ("not JSON", "give a Jupyter notebook, which that file is not"),
        (
            '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}',
            "a Jupyter notebook",
        ),
        ("[1, 2]", "a Jupyter notebook"),
        (nbformat.writes(nbformat.v4.new_notebook()), "a copy of Empty or Small with its exercises"),
        (
            nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("x", id="title")])),
            "a copy of Empty or Small with its exercises",
        ),
    ],
)
def test_what_is_no_notebook_of_ours_is_refused_in_a_sentence(small, ran, content, message):
    path = small / "a.ipynb"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRequest, match=message):
        grade.grade(path)
    assert "notebook" not in ran


@pytest.fixture
def no_weights(monkeypatch):
    for form in ("checkpoint", "onnx"):
        monkeypatch.setattr(weights, form, lambda name: None)


def test_the_command_tells_scores_words_and_the_sum(small, ran, no_weights):
    ran["outputs"] = {"check-double": verdict("double", ["one"], 2, came="\x1b[31m3\n4", expected="4", hint="[b]no")}
    ran["outputs"]["check-shout"] = verdict("shout", ["both"], 1)
    ran["troubles"] = ["Cell [5] was odd."]
    path = returned(small / "anna.ipynb")
    done = CliRunner().invoke(app, ["grade", str(path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"{path}  (Small)",
        "  1 of 2  Exercise 1: Double",
        "          came:        \ufffd[31m3",
        "                       4",
        "          expected:    4",
        "          hint:        [b]no",
        "  1 of 1  Exercise 2: Shout",
        "  Cell [5] was odd.",
        "  2 of 3 in all",
    ]


def test_the_command_says_why_something_was_not_checked(small, ran, no_weights):
    ran["outputs"] = {"check-double": [nbformat.v4.new_output("error", ename="NameError", evalue="no x", traceback=[])]}
    done = CliRunner().invoke(app, ["grade", str(returned(small / "anna.ipynb"))])
    assert "          not checked: NameError: no x" in done.stdout.splitlines()


def test_one_refused_file_does_not_keep_the_others_from_being_graded(small, ran, no_weights):
    good = returned(small / "good.ipynb")
    done = CliRunner().invoke(app, ["grade", str(small / "absent.ipynb"), str(good), "--json"])
    assert done.exit_code == 2
    assert "a file that exists" in done.stderr
    told = json.loads(done.stdout)
    assert told[str(good)]["of"] == 3 and told[str(good)]["marks"][0]["exercise"] == "double"


def test_no_secret_reaches_the_sandbox_and_the_models_do(tmp_path):
    secret = {
        "HF_TOKEN": "a",
        "GITHUB_TOKEN": "a",
        "DB_PASSWORD": "a",
        "PGPASS": "a",
        "AWS_SECRET_ACCESS_KEY": "a",
        "OPENAI_API_KEY": "a",
        "SSH_AUTH_SOCK": "a",
        "https_proxy": "a",
        "DATABASE_URL": "postgres://me:secret@host/db",
        "MLFLOW_RUN_ID": "a",
        "HF_HOME": "a",
        "XDG_CACHE_HOME": "a",
    }
    made = sandbox.environment({**secret, "PATH": "/p", "SYSTEMROOT": "C:\\Windows", "PYTHONPATH": "x"}, tmp_path)
    assert not secret.keys() & made.keys()
    assert (made["PATH"], made["SYSTEMROOT"]) == ("/p", "C:\\Windows")
    assert made["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "hook"), "x"])
    assert made["PHI3KIT_CACHE"] == str(weights.store.root())
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "TMPDIR", "TEMP", "TMP"):
        assert Path(made[name]).is_relative_to(tmp_path)
    assert made["MLFLOW_TRACKING_URI"] == f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}"
