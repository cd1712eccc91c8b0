"""One store, found from anywhere. Each question is asked in a process of its own: MLflow reads its environment once."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import phi3kit

KIT = Path(phi3kit.__file__).parent


@pytest.fixture
def house(tmp_path) -> Path:
    """A workbook of its own: the kit beside an `MLproject`, so that nobody's store is touched."""
    house = tmp_path / "Übung with spaces"
    shutil.copytree(KIT, house / "phi3kit", ignore=shutil.ignore_patterns("__pycache__"))
    (house / "MLproject").write_text("name: copy\n")
    return house


def start(house: Path, code: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    return subprocess.Popen(
        [sys.executable, "-c", f"import json, mlflow\nfrom phi3kit import tracking\n{code}"],
        cwd=cwd,
        env=kept | {"PYTHONPATH": str(house), "PYTHONSAFEPATH": "1"} | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def run(house: Path, code: str, cwd: Path, **env: str) -> dict:
    return told(start(house, code, cwd, **env))


WHERE = """
uri = tracking.use("lesson")
with mlflow.start_run() as run:
    mlflow.log_param("a", 1)
    mlflow.log_text("hello", "hello.txt")
found = {"uri": uri, "root": str(tracking.ROOT), "kit": tracking.__file__, "artifacts": run.info.artifact_uri}
print(json.dumps(found))
"""


def test_one_store_at_the_root_whatever_the_working_directory(house, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = [run(house, WHERE, cwd) for cwd in (elsewhere, house / "phi3kit")]
    for one in found:
        assert Path(one["kit"]).is_relative_to(house)
        assert Path(one["root"]) == house
        assert one["uri"] == f"sqlite:///{(house / 'mlflow.db').as_posix()}"
    assert list(elsewhere.iterdir()) == []
    assert (house / "mlflow.db").is_file()
    assert len(list((house / "mlartifacts").rglob("hello.txt"))) == 2
    assert not list(house.rglob("mlruns"))


def test_mlflow_tracking_uri_wins(house, tmp_path):
    uri = f"sqlite:///{(tmp_path / 'mine.db').as_posix()}"
    assert run(house, WHERE, tmp_path, MLFLOW_TRACKING_URI=uri)["uri"] == uri
    assert (tmp_path / "mine.db").is_file()
    assert not (house / "mlflow.db").exists()


def test_a_relative_file_is_one_from_where_the_process_stands(house, tmp_path):
    (tmp_path / "stores").mkdir()
    found = run(house, WHERE, tmp_path, MLFLOW_TRACKING_URI="sqlite:///stores/mine.db")
    assert found["uri"] == f"sqlite:///{(tmp_path / 'stores' / 'mine.db').as_posix()}"
    assert [path.name for path in (tmp_path / "stores").iterdir() if path.suffix == ".db"] == ["mine.db"]


SAYS = """
try:
    tracking.use("phi3kit")
    said = ""
except tracking.StoreNotOurs as error:
    said = str(error)
runs = [] if said else mlflow.search_runs(experiment_names=["phi3kit"], output_format="list")
print(json.dumps({"said": said, "runs": [run.info.run_name for run in runs]}))
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
        (HALF, "holds no records of MLflow"),
    ],
    ids=["older", "newer", "half"],
)
def test_another_versions_store_stays_as_it_is_and_what_to_do_is_said(house, tmp_path, sql, why):
    store = database(house / "mlflow.db", sql)
    before = store.read_bytes()
    said = run(house, SAYS, tmp_path)["said"]
    assert why in said and "move it away, say to mlflow-before.db, and a new one is made" in said
    assert store.read_bytes() == before
    if sql is OLDER:  # what the sentence says, done as it says it
        assert ": copy it to mlflow-before.db, then type `" in said
        shutil.copy(store, house / "mlflow-before.db")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(said.split("`")[1], shell=True, cwd=house, env=os.environ | {"PATH": path}, check=True)
    else:
        store.rename(house / "mlflow-before.db")
    assert run(house, SAYS, tmp_path) == {"said": "", "runs": ["from another MLflow"] if sql is OLDER else []}
    assert (house / "mlflow-before.db").read_bytes() == before


def test_a_store_that_cannot_be_read_now_is_not_to_be_moved_away(house, tmp_path):
    run(house, 'tracking.use("phi3kit"); print("{}")', tmp_path)
    with contextlib.closing(sqlite3.connect(house / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = run(house, SAYS, tmp_path)["said"]
    next_step = "end what uses it or check its permissions, then try again."
    assert said == f"{house / 'mlflow.db'} cannot be read now (database is locked): {next_step}"
    assert run(house, SAYS, tmp_path)["said"] == ""


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
    assert run(house, WHERE, tmp_path)["artifacts"]


PROJECT = """
tracking.use("outer")
run = mlflow.MlflowClient().create_run(mlflow.get_experiment_by_name("outer").experiment_id)
print(json.dumps({"run": run.info.run_id, "experiment": run.info.experiment_id}))
"""
NOTEBOOK = """
uri = tracking.use("another name")
again = tracking.use("another name")
with mlflow.start_run(run_name="inner", nested=True) as inner:
    tracking.use("a third")
with mlflow.start_run(nested=True) as second:
    pass
print(json.dumps({
    "active": mlflow.active_run().info.run_id,
    "parents": [mlflow.get_run(run.info.run_id).data.tags.get("mlflow.parentRunId") for run in (inner, second)],
    "experiments": [inner.info.experiment_id, second.info.experiment_id],
    "uri": uri,
}))
"""


def test_under_mlflow_run_the_runs_of_a_notebook_are_nested(house, tmp_path):
    uri = f"sqlite:///{(tmp_path / 'project.db').as_posix()}"
    project = run(house, PROJECT, tmp_path, MLFLOW_TRACKING_URI=uri)
    found = run(house, NOTEBOOK, tmp_path, MLFLOW_TRACKING_URI=uri, MLFLOW_RUN_ID=project["run"])
    assert found["uri"] == uri
    assert found["active"] == project["run"]
    assert found["parents"] == [project["run"]] * 2
    assert found["experiments"] == [project["experiment"]] * 2


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
print(json.dumps({
    "versions": [int(first.version), int(second.version)],
    "description": second.description, "tags": second.tags, "aliases": list(second.aliases),
    "by_alias": int(client.get_model_version_by_alias("echo", "challenger").version),
    "old": client.get_model_version("echo", first.version).description,
    "loaded": mlflow.pyfunc.load_model("models:/echo@challenger").predict(["hi"]),
}))
"""


def test_register_annotates_the_version_and_moves_the_alias(house, tmp_path):
    found = run(house, REGISTER, tmp_path)
    assert found == {
        "versions": [1, 2],
        "description": "the challenger",
        "tags": {"weights": "tiny", "bits": "4"},
        "aliases": ["challenger"],
        "by_alias": 2,
        "old": "the challenger",
        "loaded": ["hi"],
    }


def test_several_processes_at_once_make_one_new_store(house, tmp_path):
    # Each says that it is ready and waits for the word, so that all reach the missing store together.
    ready = "import mlflow.store.tracking.sqlalchemy_store\nprint('ready', flush=True)\ninput()\n"
    names = ["one", "two", "one"]
    processes = [start(house, ready + WHERE.replace("lesson", name), tmp_path) for name in names]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert len({told(process)["artifacts"] for process in processes}) == len(names)
    count = 'tracking.use("one"); print(json.dumps(len(mlflow.search_runs(experiment_names=["one", "two"]))))'
    assert run(house, count, tmp_path) == len(names)
