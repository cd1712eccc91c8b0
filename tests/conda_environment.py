"""Prove `environment.yml` as far as that goes without conda: `make conda-environment`.

Does what conda does with it, on a copy of the working tree in a temporary folder, with an empty environment of the
Python that it names: writes the pip section to a file beside `environment.yml`, installs that with conda's own pip
command, then checks the versions against the pins and runs both notebooks. Only conda's Python is not conda's. The
folder is removed at the end; it takes 3 GB while it runs.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def answers(url: str) -> bool:
    """Whether anything answers there; if not, pip spends 7 s on retries for each of 200 packages."""
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def installable(lines: list[str]) -> list[str]:
    """The pip section without an index that does not answer here."""
    for line in lines:
        option, _, url = line.partition(" ")
        if option == "--extra-index-url" and not answers(url):
            print(f"{url} does not answer: left out, so this part of environment.yml is not proven.", flush=True)
            lines = [other for other in lines if other != line]
    return lines


def copy_of_the_repository(target: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def main() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    wanted, _pip, section = environment["dependencies"]
    if wanted != f"python={sys.version_info[0]}.{sys.version_info[1]}":
        sys.exit(f"environment.yml asks for {wanted}, and {sys.executable} is another: run this with that one.")
    with tempfile.TemporaryDirectory(prefix="conda-", ignore_cleanup_errors=True) as folder:
        copy, prefix = Path(folder, "phi3kit"), Path(folder, "environment")
        copy_of_the_repository(copy)
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
        python = prefix / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

        def step(*arguments: str | Path) -> None:
            print("+ python", *arguments, flush=True)
            start = time.monotonic()
            subprocess.run([python, *arguments], cwd=copy, env=variables, check=True)
            print(f"= {time.monotonic() - start:.0f} s", flush=True)

        subprocess.run([sys.executable, "-m", "venv", prefix], check=True)
        step("-m", "pip", "install", "--quiet", "--upgrade", "pip")  # conda-forge has the newest
        requirements = copy / "condaenv.requirements.txt"
        requirements.write_text("\n".join(installable(section["pip"])), encoding="utf-8")
        step("-m", "pip", "install", "--quiet", "-U", "-r", requirements, "--exists-action=b")
        step("-m", "pip", "check")
        step("-m", "pytest", "-q", "tests/unit/test_pins.py")
        step("-m", "phi3kit.cli", "run")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        sys.exit(f"This step failed, see above: {' '.join(map(str, failed.cmd))}")
