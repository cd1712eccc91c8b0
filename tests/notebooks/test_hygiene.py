"""Committed notebooks hold the outputs of one clean run, and nothing that belongs to one machine."""

import ast
import copy
import logging
import re

import nbformat
import papermill
import pytest
import yaml

from phi3kit.workbook.exercises.cells import exercises
from phi3kit.workbook.running.parameters import check, defaults
from phi3kit.workbook.running.paths import NOTEBOOKS, ROOT, STORY, notebooks
from phi3kit.workbook.running.refresh import tidy
from phi3kit.workbook.running.results import read

ENTRY_POINTS = {"TransformerPipeline": "transformer_pipeline", "CustomPythonWrapper": "custom_python_wrapper"}
PARAMETERS = {"model", "question", "max_tokens", "temperature", "experiment", "should_cleanup"}
NAMES = sorted({*ENTRY_POINTS, *(path.stem for path in notebooks())})
ABSOLUTE = re.compile(r"(?<![\w.~-])/(?:home|root|Users|tmp|var|opt|usr|mnt|private|work)/\S*|\b[A-Z]:\\\S*")


@pytest.fixture(params=NAMES)
def path(request):
    return NOTEBOOKS / f"{request.param}.ipynb"


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def texts(notebook):
    """Everything a reader can read: sources, streams, and displays that are not pictures."""
    yield from (cell.source for cell in notebook.cells)
    for output in outputs(notebook):
        yield output.get("text", "")
        yield from (str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/"))


def test_it_is_a_valid_notebook_without_empty_cells(notebook):
    nbformat.validate(notebook)
    assert all(cell.source.strip() for cell in notebook.cells)


def test_its_outputs_come_from_one_run_of_all_cells(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert outputs(notebook)


def test_no_cell_wrote_to_stderr_or_failed(notebook):
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []
    assert [output.evalue for output in outputs(notebook) if output.output_type == "error"] == []


def test_it_names_no_absolute_path(notebook):
    assert [hit[0] for text in texts(notebook) for hit in ABSOLUTE.finditer(text)] == []


def test_it_is_as_a_refresh_leaves_it(notebook):
    assert "widgets" not in notebook.metadata
    assert not [
        output for output in outputs(notebook) if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert tidy(copy.deepcopy(notebook)) == notebook


def test_code_cells_are_short(notebook):
    lengths = {cell.source: len(cell.source.splitlines()) for cell in code(notebook)}
    assert [source for source, lines in lengths.items() if lines > (40 if "%%writefile" in source else 25)] == []


def test_one_cell_declares_the_parameters_each_with_a_comment(path, notebook, caplog):
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    assert defaults(path).keys() >= PARAMETERS
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, (ast.Assign, ast.AnnAssign))
        ast.literal_eval(statement.value)  # no derived values
    with caplog.at_level(logging.WARNING, logger="papermill"):
        parameters = papermill.inspect_notebook(str(path))
    assert not caplog.messages  # an equals sign too many in a line, for example in its comment
    assert {name: bool(parameter["help"]) for name, parameter in parameters.items()} == dict.fromkeys(
        defaults(path), True
    )


@pytest.mark.parametrize(("name", "entry_point"), ENTRY_POINTS.items())
def test_mlproject_has_the_same_parameters_and_defaults(name, entry_point):
    path = NOTEBOOKS / f"{name}.ipynb"
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    declared = project["entry_points"][entry_point]["parameters"]
    values = check(path, {parameter: entry["default"] for parameter, entry in declared.items()})
    assert values == {parameter: defaults(path)[parameter] for parameter in PARAMETERS}


def test_the_committed_results_are_what_the_lessons_say():
    """Words differ a little between kinds of CPU; what the prose builds on does not."""
    pipeline, custom = (read(NOTEBOOKS / f"{name}.ipynb") for name in STORY)
    for results in (pipeline, custom):
        assert "Madrid" in results["answer"]
        assert results["total_tokens"] == results["prompt_tokens"] + results["completion_tokens"]
        assert results["prompt_tokens"] == 10
        assert results["completion_tokens"] == pytest.approx(8, abs=8)
        assert results["served"] == 200
    assert pipeline["turns"] == 7
    assert (custom["rows"], custom["refused"]) == (2, 400)
    assert custom["first_tokens_agree"][0] >= 5
    assert custom["decode_ratio"] > 1.5


def test_its_exercises_are_complete_and_in_order(notebook):
    listed = exercises(notebook)
    sources = {cell.id: cell.source for cell in notebook.cells}
    tags = {cell.id: cell.metadata.get("tags", []) for cell in notebook.cells}
    assert 4 <= len(listed) <= 6
    for number, one in enumerate(listed, start=1):
        assert re.match(rf"### Exercise {number}: [A-Z]", sources[f"exercise-{one.name}"])
        assert len(one.solutions) == len(one.stubs)
        assert re.fullmatch(rf"check\.{one.name}\(.*\)", one.check)
        assert tags[f"check-{one.name}"] == ["check", "nbval-check-output"]
        assert tags[f"stub-{one.name}"] == ["exercise"]
        hints, solution = sources[f"hints-{one.name}"], sources[f"solution-{one.name}"]
        assert re.findall(r"<summary>(.*?)</summary>", hints) == ["Hint 1", "Hint 2"]
        assert re.findall(r"<summary>(.*?)</summary>", solution) == ["Solution"]


def test_untouched_exercises_pass_no_check_and_say_what_to_do(path, notebook):
    verdicts = read(path)
    for one in exercises(notebook):
        verdict = verdicts[f"check:{one.name}"]
        assert len(verdict["right"]) < verdict["steps"]
        assert all(verdict[label].strip() for label in ("got", "expected", "hint"))


def test_the_kit_is_imported_before_mlflow_and_og(notebook):
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code" and "%%" not in cell.source)
    imports = re.findall(r"^(?:import|from) ([a-z_0-9]+)", code, re.MULTILINE)
    assert imports[0] == "phi3kit"


def prose(notebook):
    """The Markdown, without its blocks of code."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def test_every_prediction_has_its_answer_folded_below(notebook):
    answers = prose(notebook).split("**Predict, then run:**")[1:]
    assert len(answers) >= 5
    assert [text[:80] for text in answers if "<details><summary>Answer</summary>" not in text] == []


def test_the_faults_of_the_gallery_are_all_there(notebook):
    numbers = [int(number) for number in re.findall(r"^### Fault (\d)", prose(notebook), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "failure gallery" in prose(notebook)
    assert len(re.findall(r"\*\*(?:The|the)\s+cause", prose(notebook))) >= 3
    assert len(re.findall(r"\*\*(?:The|the)\s+fix", prose(notebook))) >= 3


def test_captions_are_quotations_and_italics_are_words(notebook):
    assert re.findall(r"^\*[A-Z].*", prose(notebook), re.MULTILINE) == []


def test_every_word_in_italics_stands_in_the_table_of_words(notebook):
    text, _, words = prose(notebook).partition("## Words")
    listed = " ".join(re.findall(r"^\| ([^|]+) \|", words, re.MULTILINE)).lower()
    words_used = re.findall(r"(?<![*\w])\*([a-zO][\w -]{1,24})\*(?![*\w])", text)
    assert len(words_used) >= 8
    assert [word for word in words_used if word != "italics" and word.lower().rstrip("s") not in listed] == []
