"""Each notebook with its solutions in place, as a learner returns it, graded."""

import nbformat
import pytest

from phi3kit.workbook.exercises.cells import exercises, solved
from phi3kit.workbook.exercises.grading import grade
from phi3kit.workbook.running import paths

pytestmark = [pytest.mark.notebooks, pytest.mark.tiny]


@pytest.fixture(scope="module", params=[path.stem for path in paths.notebooks()])
def full_marks(request, tiny_onnx, tmp_path_factory):
    """A committed notebook, and the report on it with all solutions in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "NOTEBOOKS", paths.ROOT / "notebooks")
        original = nbformat.read(paths.NOTEBOOKS / f"{request.param}.ipynb", as_version=4)
        path = tmp_path_factory.mktemp("solved") / "returned.ipynb"
        nbformat.write(solved(original), path)
        return request.param, original, grade(path)


def test_a_solved_notebook_is_recognized(full_marks):
    name, _, report = full_marks
    assert report.notebook == name


def test_a_solved_notebook_has_no_problems(full_marks):
    assert full_marks[2].problems == []


def test_a_solved_notebook_gets_full_marks(full_marks):
    _, original, report = full_marks
    feedback = {mark.exercise: (mark.right == mark.steps, mark.feedback) for mark in report.marks}
    assert feedback == {exercise.name: (True, {}) for exercise in exercises(original)}
