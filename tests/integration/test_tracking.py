"""One store, found from anywhere. Each case runs in a process of its own: MLflow keeps its store per process."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import forking
import pytest

import phi3kit
from phi3kit.tracking import sqlite_address, sqlite_file

KIT = Path(phi3kit.__file__).parent


def clone(house: Path) -> Path:
    """A copy of the kit beside an `MLproject`, with a store of its own."""
    shutil.copytree(KIT, house / "phi3kit", ignore=shutil.ignore_patterns("__pycache__"))
    (house / "MLproject").write_text("name: copy\n")
    return house


@pytest.fixture
def house(tmp_path) -> Path:
    return clone(tmp_path / "Übung with spaces")


def environment(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")} | env


def start(house: Path, code: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import mlflow\nfrom phi3kit import tracking\n{code}"],
        cwd=cwd,
        env=environment({"PYTHONPATH": str(house), "PYTHONSAFEPATH": "1"}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(house: Path, code: str, cwd: Path, **env: str) -> Any:
    """Run code in the workbook `house`, and return what the code calls `result`."""
    program = f"import json, mlflow\nfrom phi3kit import tracking\n{code}\nprint(json.dumps(globals().get('result')))"
    variables = environment(env | {"PYTHONPATH": str(house)})
    done = forking.run(program, env=variables, packages=forking.MLFLOW, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


RECORD = """
uri = tracking.use("lesson")
with mlflow.start_run() as run:
    mlflow.log_param("a", 1)
    mlflow.log_text("hello", "hello.txt")
result = {"uri": uri, "root": str(tracking.ROOT), "kit": tracking.__file__, "artifacts": run.info.artifact_uri}
"""


def test_one_store_from_every_working_directory(house, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for cwd in (elsewhere, house / "phi3kit"):
        recorded = run(house, RECORD, cwd)
        assert Path(recorded["kit"]).is_relative_to(house)
        assert (Path(recorded["root"]), sqlite_file(recorded["uri"])) == (house, house / "mlflow.db")
    assert list(elsewhere.iterdir()) == []
    assert (house / "mlflow.db").is_file()
    assert len(list((house / "mlartifacts").rglob("hello.txt"))) == 2
    assert not list(house.rglob("mlruns"))


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+pysqlite"])
def test_mlflow_tracking_uri_wins(house, tmp_path, driver):
    uri = sqlite_address(tmp_path / "mine.db").replace("sqlite", driver, 1)
    assert run(house, RECORD, tmp_path, MLFLOW_TRACKING_URI=uri)["uri"] == uri
    assert (tmp_path / "mine.db").is_file()
    assert not (house / "mlflow.db").exists()


def test_a_relative_file_begins_at_the_working_directory(house, tmp_path):
    (tmp_path / "stores").mkdir()
    recorded = run(house, RECORD, tmp_path, MLFLOW_TRACKING_URI="sqlite:///stores/mine.db")
    assert sqlite_file(recorded["uri"]) == tmp_path / "stores" / "mine.db"
    assert [path.name for path in (tmp_path / "stores").iterdir() if path.suffix == ".db"] == ["mine.db"]


ROUND = """
from phi3kit.doctor import checks
uri = tracking.use("lesson")
with mlflow.start_run() as run:
    mlflow.log_param("a", 1)
    mlflow.log_text("hello", "sub/hello.txt")
artifact = {"run_id": run.info.run_id, "artifact_path": "sub/hello.txt"}
result = {
    "params": mlflow.search_runs(experiment_names=["lesson"], output_format="list")[0].data.params,
    "by run": open(mlflow.artifacts.download_artifacts(**artifact)).read(),
    "by address": mlflow.artifacts.load_text(f"{run.info.artifact_uri}/sub/hello.txt"),
    "doctor": [verdict for verdict, _, _ in checks.tracking_store()],
}
"""
ROUND_TRIP = {"params": {"a": "1"}, "by run": "hello", "by address": "hello", "doctor": ["ok"]}
MODEL = """
import mlflow.pyfunc
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]) -> list[str]:
        return model_input
with mlflow.start_run():
    model = mlflow.pyfunc.log_model(name="echo", python_model=Echo(), pip_requirements=["mlflow"])
tracking.register(model.model_uri, "echo", alias="it", description="", tags={})
addresses = [model.model_uri, "models:/echo/1", "models:/echo@it"]
result["models"] = [mlflow.pyfunc.load_model(address).predict(["hi"]) for address in addresses]
"""


@pytest.mark.skipif(os.name == "nt", reason="these characters are in no name there")
@pytest.mark.parametrize("name", ["what?", "100%", "#;&=+@,[x]{y}$z", 'it\'s "x" \\ ü'])
def test_a_clone_works_in_a_folder_of_any_name(tmp_path, name):
    house = clone(tmp_path / name)
    assert run(house, ROUND + MODEL, tmp_path) == ROUND_TRIP | {"models": [["hi"]] * 3}
    assert list(tmp_path.iterdir()) == [house]


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("sqlite:///mine.db?timeout=60", "mine.db"),
        ("sqlite+pysqlite:///new/folder/mine.db?timeout=0.5", "new/folder/mine.db"),
        ("sqlite:///mine%2541.db", "mine%41.db"),
        ("sqlite:///what%3F/mine.db", "what?/mine.db"),
    ],
)
def test_an_address_works_from_end_to_end(house, tmp_path, address, file):
    here = tmp_path / "here"
    here.mkdir()
    assert run(house, ROUND, here, MLFLOW_TRACKING_URI=address) == ROUND_TRIP
    assert [path.relative_to(here) for path in here.rglob("*.db")] == [Path(file)]


def test_mlflow_may_keep_a_store_in_a_folder(house, tmp_path):
    variables = {"MLFLOW_TRACKING_URI": "./mlruns", "MLFLOW_ALLOW_FILE_STORE": "true"}
    assert run(house, ROUND, tmp_path, **variables) == ROUND_TRIP | {"doctor": ["note"]}


@pytest.mark.parametrize("name", ["a%2Fb", "a%41b", "%C3%9C"])
def test_a_clone_below_an_escape_is_refused_at_once(tmp_path, name):
    house = clone(tmp_path / name / "clone")
    refusal = run(house, OPEN, tmp_path)["refusal"]
    assert f"{house / 'mlflow.db'} is in a folder with {name.strip('ab')[:3]} in its path" in refusal
    assert not (house / "mlflow.db").exists()


def test_a_clone_below_an_escape_can_use_another_store(tmp_path):
    house = clone(tmp_path / "a%41b")
    store = sqlite_address(tmp_path / "mine.db")
    assert run(house, ROUND + MODEL, house, MLFLOW_TRACKING_URI=store)["models"] == [["hi"]] * 3


OPEN = """
try:
    tracking.use("phi3kit")
    refusal = ""
except tracking.UnusableStore as error:
    refusal = str(error)
runs = [] if refusal else mlflow.search_runs(experiment_names=["phi3kit"], output_format="list")
result = {"refusal": refusal, "runs": [run.info.run_name for run in runs]}
"""
OLDER = (Path(__file__).parent / "mlflow_2_16.sql").read_text(encoding="utf-8")  # dumped from one that MLflow 2.16 made
NEWER = "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('of tomorrow');"
HALF = "CREATE TABLE experiments (experiment_id INTEGER); CREATE TABLE alembic_version (version_num TEXT);"


def database(path: Path, sql: str) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
    return path


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (OLDER, "was made by an older MLflow"),
        (NEWER, "was made by a newer MLflow"),
        (HALF, "is no complete MLflow store"),
    ],
    ids=["older", "newer", "half"],
)
def test_a_store_of_another_version_is_refused_unchanged(house, tmp_path, sql, why):
    store = database(house / "mlflow.db", sql)
    before = store.read_bytes()
    refusal = run(house, OPEN, tmp_path)["refusal"]
    assert why in refusal and "move it away, say to mlflow-before.db, and a new one is made" in refusal
    assert store.read_bytes() == before


def test_a_store_moved_away_makes_room_for_a_new_one(house, tmp_path):
    database(house / "mlflow.db", NEWER).rename(house / "mlflow-before.db")
    assert run(house, OPEN, tmp_path) == {"refusal": "", "runs": []}


def test_an_older_store_is_upgraded_by_the_command_named(house, tmp_path):
    database(house / "mlflow.db", OLDER)
    command = run(house, OPEN, tmp_path)["refusal"].split("`")[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, shell=True, cwd=house, env=os.environ | {"PATH": path}, check=True)
    assert run(house, OPEN, tmp_path) == {"refusal": "", "runs": ["from another MLflow"]}


def test_a_locked_store_is_not_to_be_moved_away(house, tmp_path):
    run(house, 'tracking.use("phi3kit")', tmp_path)
    with contextlib.closing(sqlite3.connect(house / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        refusal = run(house, OPEN, tmp_path)["refusal"]
    assert "cannot be read now (database is locked)" in refusal
    assert "move it away" not in refusal


KILLED = """
import os, signal
from mlflow.store.db import utils
real = utils._upgrade_db
def killed(engine):
    real(engine)
    print("tables are made", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
utils._upgrade_db = killed
tracking.use("lesson")
"""


def test_a_kill_while_the_store_is_made_leaves_none(house, tmp_path):
    out, _ = start(house, KILLED, tmp_path).communicate()
    assert out == "tables are made\n"
    assert not (house / "mlflow.db").exists()
    assert run(house, RECORD, tmp_path)["artifacts"]


PROJECT = """
tracking.use("outer")
run = mlflow.MlflowClient().create_run(mlflow.get_experiment_by_name("outer").experiment_id)
result = {"run": run.info.run_id, "experiment": run.info.experiment_id}
"""
NOTEBOOK = """
uri = tracking.use("another name")
again = tracking.use("another name")
with mlflow.start_run(run_name="inner", nested=True) as inner:
    tracking.use("a third")
with mlflow.start_run(nested=True) as second:
    pass
result = {
    "active": mlflow.active_run().info.run_id,
    "parents": [mlflow.get_run(run.info.run_id).data.tags.get("mlflow.parentRunId") for run in (inner, second)],
    "experiments": [inner.info.experiment_id, second.info.experiment_id],
    "uri": uri,
}
"""


def test_under_mlflow_run_a_notebooks_runs_are_nested(house, tmp_path):
    uri = sqlite_address(tmp_path / "project.db")
    project = run(house, PROJECT, tmp_path, MLFLOW_TRACKING_URI=uri)
    assert run(house, NOTEBOOK, tmp_path, MLFLOW_TRACKING_URI=uri, MLFLOW_RUN_ID=project["run"]) == {
        "active": project["run"],
        "parents": [project["run"]] * 2,
        "experiments": [project["experiment"]] * 2,
        "uri": uri,
    }


REGISTER = """
import mlflow.pyfunc
tracking.use("lesson")
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]) -> list[str]:
        return model_input
def log():
    with mlflow.start_run():
        return mlflow.pyfunc.log_model(name="echo", python_model=Echo(), pip_requirements=["mlflow"]).model_uri
def register(alias):
    tags = {"weights": "tiny", "bits": 4}
    return tracking.register(log(), "echo", alias=alias, description=f"the {alias}", tags=tags)
first, second = register("challenger"), register("challenger")
client = mlflow.MlflowClient()
result = {
    "versions": [int(first.version), int(second.version)],
    "description": second.description, "tags": second.tags, "aliases": list(second.aliases),
    "by_alias": int(client.get_model_version_by_alias("echo", "challenger").version),
    "old": client.get_model_version("echo", first.version).description,
    "loaded": mlflow.pyfunc.load_model("models:/echo@challenger").predict(["hi"]),
}
"""


def test_register_annotates_the_version_and_moves_the_alias(house, tmp_path):
    assert run(house, REGISTER, tmp_path) == {
        "versions": [1, 2],
        "description": "the challenger",
        "tags": {"weights": "tiny", "bits": "4"},
        "aliases": ["challenger"],
        "by_alias": 2,
        "old": "the challenger",
        "loaded": ["hi"],
    }


def test_several_processes_at_once_make_one_new_store(house, tmp_path):
    # Each prints that it is ready and waits for a line, so that all reach the missing store together.
    ready = "import mlflow.store.tracking.sqlalchemy_store\nprint('ready', flush=True)\ninput()\n"
    names = ["one", "two", "one"]
    processes = [
        start(house, ready + RECORD.replace("lesson", name) + "print(result['artifacts'])", tmp_path) for name in names
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in processes]
    assert len({output.splitlines()[-1] for output, _ in outputs}) == len(names), outputs
    count = 'tracking.use("one"); result = len(mlflow.search_runs(experiment_names=["one", "two"]))'
    assert run(house, count, tmp_path) == len(names)
