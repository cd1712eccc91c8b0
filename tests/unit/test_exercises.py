"""The exercises of a notebook, and the two folders that are made for teachers."""

import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from returned import SOLUTIONS, STUBS, workbook

from phi3kit.workbook import handout, places
from phi3kit.workbook.exercises import Incomplete, exercises, for_learners, solved


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A workbook of one small notebook, with what else the repository holds."""
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path / "notebooks")
    places.NOTEBOOKS.mkdir()
    nbformat.write(workbook(), places.NOTEBOOKS / "Small.ipynb")
    return tmp_path


def by_id(notebook):
    return {cell.id: cell.source for cell in notebook.cells}


def test_exercises_are_read_in_order_with_their_stubs_and_solutions():
    double, shout = exercises(workbook())
    assert (double.name, double.title, double.check) == ("double", "Exercise 1: Double", "check.double(double)")
    assert double.solutions == (SOLUTIONS["stub-double"],)
    assert shout.stubs == (STUBS["stub-shout"], STUBS["stub-shout-2"])
    assert shout.solutions == (SOLUTIONS["stub-shout"], SOLUTIONS["stub-shout-2"])
    assert [one.solutions for one in exercises(for_learners(workbook()))] == [(), ()]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("exercise-double", "The exercise double is not complete: add the cell exercise-double."),
        ("check-double", "The exercise double is not complete: add the cell check-double."),
        ("hints-double", "The exercise double is not complete: add the cell hints-double."),
        ("stub-double", "The exercise double is not complete: add the cell stub-double."),
        ("stub-shout-2", "The exercise shout has 1 stubs and 2 solutions"),
    ],
)
def test_an_exercise_that_lacks_a_cell_is_named(lost, message):
    notebook = workbook()
    notebook.cells = [cell for cell in notebook.cells if cell.id != lost]
    with pytest.raises(Incomplete, match=re.escape(message)):
        exercises(notebook)


def test_a_solved_copy_needs_every_solution():
    notebook = workbook()
    notebook.cells = [cell for cell in notebook.cells if cell.id != "solution-shout"]
    with pytest.raises(Incomplete, match="shout has no solution: add the cell solution-shout"):
        solved(notebook)


def test_both_copies_are_valid_have_no_outputs_and_leave_the_notebook_as_it_is():
    notebook = workbook()
    for made in (for_learners(notebook), solved(notebook)):
        nbformat.validate(made)
        assert not any(cell.outputs or cell.execution_count for cell in made.cells if cell.cell_type == "code")
    assert notebook == workbook()
    assert by_id(for_learners(notebook)) == {
        id_: source for id_, source in by_id(notebook).items() if not id_.startswith("solution-")
    }
    assert by_id(solved(notebook)) == by_id(notebook) | SOLUTIONS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both folders, of the committed notebooks."""
    folder = tmp_path_factory.mktemp("handout")
    return {kind: handout.write(kind, folder / kind) for kind in ("learner", "solutions")}


def test_the_learners_folder_holds_what_a_new_machine_needs_and_no_more(folders):
    learner = folders["learner"]
    named = {"README.md", "Makefile", "notebooks", handout.MARK, *handout.TAKEN}
    assert {path.name for path in learner.iterdir()} == named
    files = [path for path in learner.rglob("*") if path.is_file()]
    assert not [path for path in files if "__pycache__" in path.parts or path.name.startswith("test_")]
    text = "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files)
    assert str(places.ROOT) not in text
    kit = {path.relative_to(places.ROOT) for path in (places.ROOT / "phi3kit").rglob("*.py")}
    assert {path.relative_to(learner) for path in learner.glob("phi3kit/**/*.py")} == kit


def test_the_learners_readme_says_in_a_dozen_lines_how_to_start_and_what_to_return(folders):
    text = (folders["learner"] / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 20 and max(map(len, text.splitlines())) <= 120
    assert all(word in text for word in ("make lab", "python install.py", "check.", "Return"))
    assert "`TransformerPipeline` and `CustomPythonWrapper`" in text


def test_nothing_of_a_solution_is_in_the_learners_folder(folders):
    files = [path for path in folders["learner"].rglob("*") if path.suffix in {".ipynb", ".py", ".md", ".toml", ""}]
    cells = [
        cell
        for path in folders["learner"].glob("notebooks/*.ipynb")
        for cell in nbformat.read(path, as_version=4).cells
    ]
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()] + [cell.source for cell in cells]
    for path in places.notebooks():
        for one in exercises(nbformat.read(path, as_version=4)):
            for stub, solution in zip(one.stubs, one.solutions, strict=True):
                assert not [text for text in texts if solution in text], one.name
                assert solution.strip() != stub.strip(), one.name
    assert not [cell.id for cell in cells if cell.id.startswith("solution-") or "solution" in str(cell.metadata)]


def test_every_link_of_the_learners_notebooks_leads_somewhere(folders):
    for path in folders["learner"].glob("notebooks/*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            prose = cell.source if cell.cell_type == "markdown" else ""
            links = re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)", prose)
            assert all((path.parent / link).exists() for link in links), (cell.id, links)


def test_the_solutions_are_the_committed_notebooks_but_for_the_stubs(folders):
    assert {path.name for path in folders["solutions"].iterdir()} == {"notebooks", handout.MARK}
    for source in places.notebooks():
        copy = folders["solutions"] / "notebooks" / source.name
        ours, made = (nbformat.read(path, as_version=4) for path in (source, copy))
        nbformat.validate(made)
        changed = {id_ for id_, text in by_id(made).items() if by_id(ours)[id_] != text}
        stubs = {id_ for id_ in by_id(ours) if id_.startswith("stub-")}
        assert by_id(made).keys() == by_id(ours).keys() and changed == stubs


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_the_learners_makefile_has_the_targets_that_it_names(folders):
    text = (folders["learner"] / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^# make ([\w-]+) ", text, re.MULTILINE) == ["run", "lab", "clean"]
    for target, status in {"lab": 0, "run": 0, "clean": 0, "test": 2, "learner": 2}.items():
        done = subprocess.run(["make", "-n", target], cwd=folders["learner"], capture_output=True, check=False)
        assert done.returncode == status, target


def test_a_folder_is_written_anew_unless_it_is_not_ours_or_was_worked_in(small):
    folder = handout.write("learner", small / "handout" / "learner")
    (folder / "phi3kit" / "leftover.py").touch()
    assert not (handout.write("learner", folder) / "phi3kit" / "leftover.py").exists()

    notebook = folder / "notebooks" / "Small.ipynb"
    worked_in = notebook.read_text(encoding="utf-8").replace("return given", "return given * 2")
    notebook.write_text(worked_in, encoding="utf-8")
    with pytest.raises(handout.NotReplaced, match="was worked in: move it away"):
        handout.write("learner", folder)
    assert notebook.read_text(encoding="utf-8") == worked_in

    theirs = small / "handout" / "solutions"
    theirs.mkdir()
    with pytest.raises(handout.NotReplaced, match="was not written by this"):
        handout.write("solutions", theirs)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["learner", "solutions"]


def test_an_incomplete_exercise_leaves_the_older_folder_as_it_is(small):
    folder = handout.write("solutions", small / "handout" / "solutions")
    broken = workbook()
    broken.cells = [cell for cell in broken.cells if cell.id != "solution-double"]
    nbformat.write(broken, places.NOTEBOOKS / "Small.ipynb")
    with pytest.raises(Incomplete):
        handout.write("solutions", folder)
    assert (folder / "notebooks" / "Small.ipynb").is_file()


def test_where_it_lies_is_said_in_one_line(small, monkeypatch, capsys):
    monkeypatch.chdir(small)
    monkeypatch.setattr(handout, "FOLDER", small / "handout")
    handout.main(["solutions"])
    assert capsys.readouterr().out == f"{Path('handout', 'solutions')}: the notebooks with every stub filled in.\n"
    (small / "handout" / "solutions" / handout.MARK).unlink()
    with pytest.raises(SystemExit, match="move it away"):
        handout.main(["solutions"])


@pytest.mark.parametrize("words", [["bogus"], [], ["learner", "solutions"]])
def test_what_is_no_kind_of_folder_is_refused_and_nothing_written(small, monkeypatch, capsys, words):
    monkeypatch.setattr(handout, "FOLDER", small / "handout")
    with pytest.raises(SystemExit) as ended:
        handout.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Say which folder to write: ")
    assert not handout.FOLDER.exists()
