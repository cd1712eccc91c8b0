"""A model of the catalog, from its name to both notebooks, which stay as they are.

A hub on this machine serves the repositories that the catalog names: Phi-3's architecture made small, its answers
noise, and its ONNX form in the folder where the real ones lie, both among files that are not needed.
"""

import re
import shutil
import sys
from pathlib import Path

import phi3_shape
import pytest
from hub_client import ONNX, PHI_3, UNWANTED, Client, files, repository
from hub_server import Hub

from phi3kit.workbook.running.results import read

pytestmark = [pytest.mark.notebooks, pytest.mark.tiny]

ANSWER_OFFLINE = f"""
from phi3kit import weights
from phi3kit.generation import Engine, Options
assert (weights.checkpoint("{PHI_3.name}") / "config.json").is_file()
engine = Engine.open(weights.onnx("{PHI_3.name}"))
(answer,) = engine.generate(["<|user|>Hi<|end|><|assistant|>"], Options(max_tokens=4))
print(answer.completion_tokens)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    from phi3kit import weights

    checkpoint, published = (tmp_path / "served" / repo for repo in (PHI_3.checkpoint.repo, PHI_3.onnx.repo))
    checkpoint.mkdir(parents=True)
    phi3_shape.write(checkpoint, phi3_shape.SMALL, shard="5MB")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3KIT_CACHE", str(tmp_path / "export"))
        shutil.copytree(weights.onnx(checkpoint), published / ONNX, ignore=shutil.ignore_patterns("manifest.json"))
    return Hub(tmp_path / "served")


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    client = Client(hub, tmp_path / "home")
    client.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}"
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        client.env.pop(name, None)
    return client


def notebook(client: Client, name: str, **parameters: object) -> dict[str, object]:
    """Run one as `phi3kit run` does, with the executed one out of the repository, and return what it recorded."""
    runs = client.cache.parents[1] / "runs"
    command = f"import pathlib; from phi3kit.workbook.running import paths; paths.RUNS = pathlib.Path({str(runs)!r})"
    options = [part for key, value in parameters.items() for part in ("-p", f"{key}={value}")]
    done = client.run(sys.executable, "-c", f"{command}; from phi3kit.cli import app; app()", "run", name, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (executed,) = runs.glob(f"*/{name}.ipynb")
    return read(executed)


def test_from_the_catalog_to_both_notebooks(hub, client):
    import mlflow
    from mlflow.utils.file_utils import local_file_uri_to_path

    expected = {
        PHI_3.checkpoint.repo: files(hub.root / PHI_3.checkpoint.repo),
        PHI_3.onnx.repo: files(hub.root / PHI_3.onnx.repo),
    }
    repository(hub.root / PHI_3.checkpoint.repo, UNWANTED)
    repository(hub.root / PHI_3.onnx.repo, {"README.md", "config.json", "cuda/cuda-int4-rtn-block-32/model.onnx.data"})
    revisions = {PHI_3.checkpoint.repo: PHI_3.checkpoint.revision, PHI_3.onnx.repo: PHI_3.onnx.revision}
    store, parameters = mlflow.MlflowClient(client.env["MLFLOW_TRACKING_URI"]), {"model": PHI_3.name, "max_tokens": 8}

    with hub:
        first = notebook(client, "TransformerPipeline", experiment="first", should_cleanup=True, **parameters)
        assert store.search_registered_models() == []
        second = notebook(client, "CustomPythonWrapper", experiment="second", **parameters)
    assert (first["served"], second["served"], second["rows"]) == (200, 200, 2)

    # Only these files, each once, and all of them at the commits that the catalog names.
    assert {repo: hub.fetched(repo) for repo in expected} == expected
    names = [f"{repo}/{name}" for repo, names in expected.items() for name in names]
    assert sorted(name for name, _, _ in hub.sent) == sorted(names)
    addresses = {
        re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)/(?:tree|resolve)/([^/]+).*", path)
        for _, path in hub.requests
        if not path.startswith("/cdn/")
    }
    assert {match and match.groups() for match in addresses} == set(revisions.items())

    # And these commits are recorded: as a param of each run that logged a model, and in the model itself.
    recorded = {repo: f"{repo}@{commit}" for repo, commit in revisions.items()}
    experiments = {name: store.get_experiment_by_name(name).experiment_id for name in ("first", "second")}
    for name, repo in (("first", PHI_3.checkpoint.repo), ("second", PHI_3.onnx.repo)):
        runs = store.search_runs([experiments[name]])
        assert {run.data.params["weights_revision"] for run in runs if "model" in run.data.params} == {recorded[repo]}
    assert not store.search_logged_models([experiments["first"]])
    models = {model.name: model for model in store.search_logged_models([experiments["second"]])}
    for name, repo in (
        ("phi3-prompt", PHI_3.onnx.repo),
        ("phi3-chat", PHI_3.onnx.repo),
        ("phi3-pipeline", PHI_3.checkpoint.repo),
    ):
        model = mlflow.models.Model.load(local_file_uri_to_path(models[name].artifact_location))
        assert model.metadata["weights_revision"] == recorded[repo]

    # The hub is gone: what was fetched is there, whole, and answers.
    done = client.run(sys.executable, "-c", ANSWER_OFFLINE, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 4
