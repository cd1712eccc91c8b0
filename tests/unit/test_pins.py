"""Ranges, pins and the conda environment say the same, and the tests run on what the pins name."""

import ast
import re
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from phi3kit.system import requirements
from phi3kit.workbook.running.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINES = [
    line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
]
PINS = [Requirement(line) for line in LINES]
EXTRAS = PROJECT["project"]["optional-dependencies"]
DECLARED = [Requirement(text) for group in (PROJECT["project"]["dependencies"], *EXTRAS.values()) for text in group]

CPU_INDEX = re.search(r'^CPU_INDEX = "(.+)"$', (ROOT / "install.py").read_text(encoding="utf-8"), re.MULTILINE)[1]

# What the workbook was written with; a change of one of these is a decision, not an update.
DECIDED = {
    "mlflow==3.17.2",
    "transformers==5.17.0",
    "torch==2.13.0",
    "onnxruntime-genai==0.18.0",
    "onnxruntime==1.32.0",
    "onnx==1.23.2",
    "onnx-ir==1.1.0",
    "papermill==2.7.0",
    "nbval==0.11.0",
    "pytest==9.2.0",
    "jupyterlab==4.6.6",
    "ipywidgets==8.1.9",
}

SYSTEMS = {
    "Linux": ("linux", "posix", "x86_64", "Linux"),
    "macOS": ("darwin", "posix", "arm64", "Darwin"),
    "Windows": ("win32", "nt", "AMD64", "Windows"),
}


def pinned(requirement: Requirement) -> Version:
    return Version(next(iter(requirement.specifier)).version)


def test_every_line_is_one_exact_pin():
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; .+)?", line) for line in LINES)
    assert {line.split(" ;")[0] for line in LINES} >= DECIDED
    assert not [line for line in LINES if re.match(r"(nvidia|cuda|triton|pip=)", line)]


def applying(python: str, system: str) -> list[str]:
    """The packages that the pins name for a Python on a system, as their markers say."""
    named = dict(zip(("sys_platform", "os_name", "platform_machine", "platform_system"), SYSTEMS[system], strict=True))
    variables = named | {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    return [pin.name for pin in PINS if pin.marker is None or pin.marker.evaluate(variables)]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", ["3.11.7", "3.12.1", "3.13.0"])
def test_the_pins_are_whole_on_every_python_and_system(python, system):
    names = applying(python, system)
    assert len(names) == len(set(names))
    assert {canonicalize_name(requirement.name) for requirement in DECLARED} <= set(names)
    assert set(applying("3.11.7", system)) - set(names) <= {"overrides"}  # since 3.12 it is part of `typing`


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_every_dependency_is_a_range_that_holds_its_pin(requirement):
    versions = [pinned(pin) for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
    assert requirement.specifier, "a dependency without a range"
    assert versions and all(requirement.specifier.contains(version) for version in versions)


def test_every_dependency_says_what_it_is_for():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if re.fullmatch(r' +"[\w-]+[<>=!~][^"]*",  # \S.+', line)]
    assert len(comments) == len(DECLARED)


def test_the_kit_lists_every_extra_but_dev():
    assert set(requirements.EXTRAS) == set(EXTRAS) - {"dev"}


@pytest.mark.parametrize("extra", requirements.EXTRAS)
def test_the_modules_of_an_extra_belong_to_its_packages(extra):
    packages = {canonicalize_name(Requirement(text).name) for text in EXTRAS[extra]}
    providers = metadata.packages_distributions()
    foreign = [
        module
        for module in requirements.EXTRAS[extra]
        if not packages & set(map(canonicalize_name, providers.get(module, [])))
    ]
    assert foreign == []


def test_torchs_requirements_are_of_the_pinned_torch():
    (torch,) = (entry for entry in PROJECT["tool"]["uv"]["dependency-metadata"] if entry["name"] == "torch")
    assert f"torch=={torch['version']}" in LINES


def test_the_conda_environment_is_the_same_one():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, rest = environment["dependencies"]
    assert (environment["name"], environment["channels"], pip) == ("phi3kit", ["conda-forge"], "pip")
    index, *installed = rest["pip"]
    assert index == f"--extra-index-url {CPU_INDEX}"
    assert installed == ["-r requirements.txt", "-e ."]
    assert Version(python.removeprefix("python=")) in Requirement(f"x{PROJECT['project']['requires-python']}").specifier


def test_what_is_installed_is_what_is_pinned():
    pins = {pin.name: str(pinned(pin)) for pin in PINS if pin.marker is None or pin.marker.evaluate()}
    installed = {name: metadata.version(name).split("+")[0] for name in pins}
    assert installed == pins


def test_everything_imported_is_declared():
    providers = metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in DECLARED}
    missing = {}
    for path in (ROOT / "phi3kit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"phi3kit"}:
                if not declared & {canonicalize_name(provider) for provider in providers.get(name, [name])}:
                    missing[name] = str(path.relative_to(ROOT))
    assert not missing
