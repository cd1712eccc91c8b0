"""The exercises of a notebook, and the two folders that are made for teachers."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from returned import SOLUTIONS, STUBS, workbook

from phi3kit.workbook.exercises import handout
from phi3kit.workbook.exercises.cells import Exercise, Incomplete, exercises, for_learners, solved
from phi3kit.workbook.exercises.check.elsewhere import marked
from phi3kit.workbook.running import paths


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A workbook of one small notebook, together with the other files of the repository."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(handout, "FOLDER", tmp_path / "handout")
    paths.NOTEBOOKS.mkdir()
    nbformat.write(workbook(), paths.NOTEBOOKS / "Small.ipynb")
    return tmp_path


def by_id(notebook):
    return {cell.id: cell.source for cell in notebook.cells}


def without(*ids):
    notebook = workbook()
    notebook.cells = [cell for cell in notebook.cells if cell.id not in ids]
    return notebook


def test_exercises_are_read_in_order_with_all_parts():
    double, shout = (tuple(code[id_] for id_ in code if "double" in id_) for code in (STUBS, SOLUTIONS))
    assert exercises(workbook())[0] == Exercise("double", "Exercise 1: Double", double, "check.double(double)", shout)


def test_an_exercise_may_have_several_stubs():
    shout = exercises(workbook())[1]
    assert shout.stubs == (STUBS["stub-shout"], STUBS["stub-shout-2"])
    assert shout.solutions == (SOLUTIONS["stub-shout"], SOLUTIONS["stub-shout-2"])


def test_a_learners_copy_has_exercises_without_solutions():
    assert [exercise.solutions for exercise in exercises(for_learners(workbook()))] == [(), ()]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("exercise-double", "The exercise double is not complete: add the cell exercise-double."),
        ("check-double", "The exercise double is not complete: add the cell check-double."),
        ("hints-double", "The exercise double is not complete: add the cell hints-double."),
        ("stub-double", "The exercise double is not complete: add the cell stub-double."),
        ("stub-shout-2", "The exercise shout has 1 stubs and 2 solutions"),
    ],
)
def test_a_missing_cell_of_an_exercise_is_named(missing, message):
    with pytest.raises(Incomplete, match=re.escape(message)):
        exercises(without(missing))


def test_a_solved_copy_needs_every_solution():
    with pytest.raises(Incomplete, match="shout has no solution: add the cell solution-shout"):
        solved(without("solution-shout"))


@pytest.mark.parametrize("convert", [for_learners, solved])
def test_a_copy_is_a_valid_notebook_without_outputs(convert):
    copy = convert(workbook())
    nbformat.validate(copy)
    assert not [cell for cell in copy.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]


@pytest.mark.parametrize("convert", [for_learners, solved])
def test_copying_does_not_change_the_notebook(convert):
    notebook = workbook()
    convert(notebook)
    assert notebook == workbook()


def test_a_learners_copy_differs_by_its_solutions_alone():
    assert by_id(for_learners(workbook())) == by_id(without("solution-double", "solution-shout"))


def test_a_solved_copy_differs_by_its_stubs_alone():
    assert by_id(solved(workbook())) == by_id(workbook()) | SOLUTIONS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both folders, of the committed notebooks."""
    folder = tmp_path_factory.mktemp("handout")
    return {kind: handout.write(kind, folder / kind) for kind in ("learner", "solutions")}


@pytest.fixture(scope="module")
def texts(folders):
    """The text of each file of the learner's folder, by its path there."""
    files = [path for path in folders["learner"].rglob("*") if path.is_file()]
    return {path.relative_to(folders["learner"]): path.read_bytes().decode("utf-8", "replace") for path in files}


@pytest.fixture(scope="module")
def learner_cells(folders):
    notebooks = folders["learner"].glob("notebooks/*.ipynb")
    return [cell for path in notebooks for cell in nbformat.read(path, as_version=4).cells]


def test_the_learners_folder_has_what_a_new_machine_needs(folders):
    expected = {"README.md", "Makefile", "notebooks", handout.MARK, *handout.FILES}
    assert {path.name for path in folders["learner"].iterdir()} == expected


def test_the_learners_folder_has_the_whole_kit(texts):
    kit = {path.relative_to(paths.ROOT) for path in (paths.ROOT / "phi3kit").rglob("*.py")}
    assert {path for path in texts if path.parts[0] == "phi3kit" and path.suffix == ".py"} == kit


def test_the_learners_folder_has_no_tests_or_caches(texts):
    assert not [path for path in texts if "__pycache__" in path.parts or path.name.startswith("test_")]


def test_the_learners_folder_has_no_path_of_this_machine(texts):
    assert not [path for path, text in texts.items() if str(paths.ROOT) in text]


def test_the_learners_readme_is_short(texts):
    lines = texts[Path("README.md")].splitlines()
    assert len(lines) <= 20 and max(map(len, lines)) <= 120


@pytest.mark.parametrize("words", ["make lab", "python install.py", "`TransformerPipeline` and `CustomPythonWrapper`"])
def test_the_learners_readme_says_how_to_start(texts, words):
    assert words in texts[Path("README.md")]


@pytest.mark.parametrize("source", paths.notebooks(), ids=lambda path: path.stem)
def test_no_solution_is_in_the_learners_folder(source, texts, learner_cells):
    everything = [*texts.values(), *(cell.source for cell in learner_cells)]
    solutions = [text for one in exercises(nbformat.read(source, as_version=4)) for text in one.solutions]
    assert not [solution for solution in solutions if any(solution in text for text in everything)]


@pytest.mark.parametrize("source", paths.notebooks(), ids=lambda path: path.stem)
def test_a_stub_is_not_its_solution(source):
    for exercise in exercises(nbformat.read(source, as_version=4)):
        pairs = zip(exercise.stubs, exercise.solutions, strict=True)
        assert all(stub.strip() != solution.strip() for stub, solution in pairs)


def test_no_cell_of_a_learner_is_marked_as_a_solution(learner_cells):
    assert not [cell.id for cell in learner_cells if "solution" in cell.id or "solution" in str(cell.metadata)]


def test_every_link_in_a_learners_notebook_leads_to_a_file(folders, learner_cells):
    prose = "\n".join(cell.source for cell in learner_cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)", prose)
    assert not [link for link in links if not (folders["learner"] / "notebooks" / link).exists()]


def test_the_solutions_folder_has_the_notebooks_alone(folders):
    assert {path.name for path in folders["solutions"].iterdir()} == {"notebooks", handout.MARK}


@pytest.mark.parametrize("source", paths.notebooks(), ids=lambda path: path.stem)
def test_a_solved_notebook_differs_by_all_its_stubs(source, folders):
    original, copy = (
        by_id(nbformat.read(path, as_version=4)) for path in (source, folders["solutions"] / "notebooks" / source.name)
    )
    changed = {id_ for id_ in original.keys() | copy.keys() if original.get(id_) != copy.get(id_)}
    assert changed == {id_ for id_ in original if id_.startswith("stub-")}


def test_the_learners_makefile_explains_its_targets(texts):
    assert re.findall(r"^# make ([\w-]+) ", texts[Path("Makefile")], re.MULTILINE) == ["run", "lab", "clean"]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(("target", "status"), [("lab", 0), ("run", 0), ("clean", 0), ("test", 2), ("learner", 2)])
def test_the_learners_makefile_has_the_targets_for_learners(folders, target, status):
    assert subprocess.run(["make", "-n", target], cwd=folders["learner"], capture_output=True).returncode == status


def test_an_older_folder_is_replaced(small):
    folder = handout.write("solutions")
    (folder / "older").touch()
    assert handout.write("solutions") == folder and not (folder / "older").exists()


def test_a_folder_with_changed_notebooks_is_kept(small):
    notebook = handout.write("solutions") / "notebooks" / "Small.ipynb"
    notebook.write_text("changed", encoding="utf-8")
    with pytest.raises(handout.NotReplaced, match="move it away"):
        handout.write("solutions")
    assert notebook.read_text(encoding="utf-8") == "changed"


def test_a_folder_of_another_origin_is_kept(small):
    folder = small / "handout" / "solutions"
    folder.mkdir(parents=True)
    with pytest.raises(handout.NotReplaced, match="move it away"):
        handout.write("solutions")
    assert list(folder.iterdir()) == []


def test_an_incomplete_exercise_keeps_the_older_folder(small):
    folder = handout.write("solutions")
    nbformat.write(without("solution-double"), paths.NOTEBOOKS / "Small.ipynb")
    with pytest.raises(Incomplete):
        handout.write("solutions")
    assert (folder / "notebooks" / "Small.ipynb").is_file()


def test_the_command_prints_where_the_folder_is(small, monkeypatch, capsys):
    monkeypatch.chdir(small)
    handout.main(["solutions"])
    assert capsys.readouterr().out.startswith(f"{Path('handout', 'solutions')}: ")


def test_the_command_says_why_a_folder_is_not_replaced(small):
    (small / "handout" / "solutions").mkdir(parents=True)
    with pytest.raises(SystemExit, match="move it away"):
        handout.main(["solutions"])


@pytest.mark.parametrize("arguments", [["bogus"], [], ["learner", "solutions"]])
def test_the_command_refuses_anything_but_one_kind(small, capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        handout.main(arguments)
    assert "learner" in capsys.readouterr().err and not handout.FOLDER.exists()


VOCABULARY = {"a": 0, ".": 1, "!": 2}


def refused(*_):
    raise OSError("this file system has no links")


@pytest.fixture(params=["links", "no links"])
def marked_copy(request, tmp_path, monkeypatch):
    """A model's folder and a marked copy of it."""
    source = tmp_path / "model" / "artifacts" / "onnx"
    source.mkdir(parents=True)
    (source / "tokenizer.json").write_text(json.dumps({"model": {"vocab": VOCABULARY}}), encoding="utf-8")
    for name in ("manifest.json", "model.onnx"):
        (source / name).write_text(name, encoding="utf-8")
    if request.param == "no links":
        monkeypatch.setattr(os, "link", refused)
        monkeypatch.setattr(os, "symlink", refused)
    return source, marked(tmp_path / "model", tmp_path / "copy") / "artifacts" / "onnx"


def vocabulary(folder):
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]


def test_a_marked_copy_exchanges_two_tokens(marked_copy):
    assert vocabulary(marked_copy[1]) == {"a": 0, ".": 2, "!": 1}


def test_marking_a_copy_leaves_the_original(marked_copy):
    assert vocabulary(marked_copy[0]) == VOCABULARY


def test_a_marked_copy_has_all_files_but_the_manifest(marked_copy):
    assert {path.name for path in marked_copy[1].iterdir()} == {"tokenizer.json", "model.onnx"}
