"""The house rules that a tool can check: small, light, and at home on any machine."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

from phi3kit.workbook.running.paths import ROOT

KIT = ROOT / "phi3kit"
CAPS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["phi3kit"]["lines"]
HEAVY = {"torch", "transformers", "mlflow", "onnxruntime", "onnxruntime_genai", "pandas", "papermill", "IPython"}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def repository_files() -> list[Path]:
    """Every file that belongs to the repository, committed or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("module", sorted(KIT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_stays_below_300_lines(module):
    assert lines(module) < 300


@pytest.mark.parametrize("room", CAPS)
def test_a_room_keeps_its_cap(room):
    assert sum(map(lines_of_code, (KIT / room).rglob("*.py"))) <= CAPS[room]


def test_every_room_has_a_cap():
    assert {path.name for path in KIT.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(CAPS)


def lines_of_code(path):
    """Lines of code, without blank lines, comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = [node for node in ast.walk(ast.parse(source)) if isinstance(node, nodes) and ast.get_docstring(node)]
    docstrings = {n for node in documented for n in range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in silent]
    return len({n for token in tokens for n in range(token.start[0], token.end[0] + 1)} - docstrings)


@pytest.mark.parametrize(
    "code", ["import phi3kit", "from phi3kit.cli import app; app(['--help'], standalone_mode=False)"]
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    script = f"import sys; {code}; print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_no_file_holds_a_path_of_one_machine():
    home = re.compile(r"/(?:home|Users)/\w[\w.-]*/|[A-Z]:\\Users\\")
    here = [re.escape(str(path)) for path in (ROOT, Path.home()) if len(path.parts) > 1]
    this = re.compile(rf"(?<![\w.~/-])(?:{'|'.join(here)})(?![\w.-])")
    paths = []
    for path in repository_files():
        if path.suffix not in {".safetensors", ".png", ".xz"}:
            text = path.read_bytes().decode("utf-8", errors="replace")
            hits = [hit[0] for pattern in (home, this) for hit in pattern.finditer(text)]
            paths += [f"{path.relative_to(ROOT)}: {hit}" for hit in hits]
    assert paths == []


def test_a_built_package_carries_its_data(tmp_path):
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(KIT, tmp_path / "phi3kit", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build_py", "--build-lib", "built"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    data = {path.relative_to(KIT) for path in KIT.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    built = {
        path.relative_to(tmp_path / "built" / "phi3kit") for path in (tmp_path / "built").rglob("*") if path.is_file()
    }
    assert data == built
    assert {"learned.safetensors", "MODEL_CARD.md"} <= {path.name for path in built}


def test_test_names_are_short():
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    names = [name for text in tests for name in re.findall(r"def (test_\w+)", text)]
    assert [name for name in names if len(name) >= 60] == []
