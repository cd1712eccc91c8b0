"""The kit as a package: built, installed without extras into an empty environment, and used far from the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phi3kit.workbook.running.paths import ROOT

pytestmark = [pytest.mark.tiny, pytest.mark.online]  # installs from the package index

BIN = "Scripts" if os.name == "nt" else "bin"
QUESTION, ANSWER = "What is the capital of Spain?", "The capital of Spain is Madrid."


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory) -> Path:
    """The programs of an environment that holds the kit's wheel and what the wheel requires."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "phi3kit", source / "phi3kit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(folder), str(source)], check=True)
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(folder / "venv")], check=True)
    programs = folder / "venv" / BIN
    install = [*uv, "pip", "install", "--python", str(programs / "python"), "--constraint", "requirements.txt"]
    subprocess.run([*install, *map(str, folder.glob("*.whl"))], cwd=ROOT, check=True)
    return programs


@pytest.fixture
def run(bin_folder, tmp_path):
    """Runs a program of that environment in an empty folder, and returns what the program did."""

    def run(program: str, *arguments: str, env: dict | None = None, **options) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
        environment |= {"PHI3KIT_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"} | (env or {})
        command = [str(bin_folder / program), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, **options)

    return run


def test_the_core_installs_without_torch(run):
    code = "import importlib.util as u; print([m for m in ('torch', 'transformers', 'onnx') if u.find_spec(m)])"
    assert run("python", "-c", code).stdout == "[]\n"


def test_it_chats_with_a_folder(run, tiny_onnx):
    done = run("phi3kit", "chat", str(tiny_onnx), input=QUESTION)
    assert (done.stdout, done.returncode) == (f"{ANSWER}\n", 0), done.stderr


def test_it_takes_tiny_from_the_cache_of_a_whole_install(run, tiny_onnx):
    cache = {"PHI3KIT_CACHE": str(tiny_onnx.parents[1])}
    done = run("phi3kit", "chat", input=QUESTION, env=cache)
    assert (done.stdout, done.returncode) == (f"{ANSWER}\n", 0), done.stderr


LOG = """
import sys
from pathlib import Path
import mlflow
from phi3kit import chat, tracking, wrappers
tracking.use("elsewhere")
with mlflow.start_run():
    info = mlflow.pyfunc.log_model(name="chat", **wrappers.packaged(wrappers.Phi3Chat, sys.argv[1]))
tracking.register(info.model_uri, "elsewhere", alias="candidate", description="", tags={})
request = {"messages": [{"role": "user", "content": sys.argv[2]}]}
answer = chat.completion(mlflow.pyfunc.load_model("models:/elsewhere@candidate").predict(request))
print(Path("mlflow.db").is_file(), answer["choices"][0]["message"]["content"])
"""


def test_it_logs_registers_and_loads_a_model(run, tiny_onnx):
    done = run("python", "-c", LOG, str(tiny_onnx), QUESTION)
    assert done.stdout.splitlines()[-1:] == [f"True {ANSWER}"], done.stderr


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (["weights", "fetch", "tiny", "--form", "checkpoint"], "checkpoint"),
        (["weights", "fetch", "tiny", "--form", "onnx"], "checkpoint"),
        (["run"], "notebooks"),
        (["grade", "returned.ipynb"], "notebooks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_missing_extra_is_named_with_its_command(run, arguments, extras):
    done = run("phi3kit", *arguments)
    assert f"pip install 'phi3kit[{extras}" in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("arguments", [["weights", "list"], ["weights", "fit"], ["doctor"]], ids=" ".join)
def test_it_looks_at_the_machine_without_torch(run, arguments):
    done = run("phi3kit", *arguments)
    assert "Traceback" not in done.stderr
    assert "tiny" in done.stdout
