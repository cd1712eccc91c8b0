"""`phi3kit weights` list, verify and remove, on a store and a hub's cache made for the purpose."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import constants
from typer.testing import CliRunner

from phi3kit.cli import app
from phi3kit.doctor import cached, checks, examine
from phi3kit.weights import CATALOG, export, store

PHI_3 = CATALOG["phi-3-mini-4k-instruct"]


def call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["weights", *arguments])
    assert done.exit_code == code, done.output
    assert max((len(line) for line in done.stdout.splitlines() if "/" not in line), default=0) <= 80  # but for paths
    return done.output


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "kit"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(store, "_checked", {})
    return tmp_path


def built(name: str, which: str, **recipe: str) -> Path:
    def build(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(which.encode() * 1000)

    return store.built(name, export.recipe(which) | recipe, build)


def fetched(repo: str, revision: str, files: dict[str, bytes]) -> Path:
    """A repository as huggingface_hub keeps it: large files named by SHA-256, small ones by git's hash."""
    folder = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
    snapshot = folder / "snapshots" / revision
    for place in (folder / "blobs", folder / "refs", snapshot):
        place.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    for name, content in files.items():
        small = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = folder / "blobs" / (hashlib.sha256(content).hexdigest() if len(content) > 100 else small)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return folder


def phi_3_onnx() -> Path:
    config = json.dumps({"model": {"decoder": {"filename": "model.onnx"}}}).encode()
    files = {"genai_config.json": config, "tokenizer.json": b"{}", "model.onnx": bytes(5000)}
    files = {f"{PHI_3.onnx_folder}/{name}": content for name, content in files.items()}
    return fetched(PHI_3.onnx_repo, PHI_3.onnx_revision, files)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def here() -> dict[tuple[str, str], str]:
    """The table's last column, by name and form."""
    lines = (
        line for line in call("list").splitlines() if not line.startswith(("MODEL", " ")) and " GB in " not in line
    )
    return {tuple(line.split()[:2]): line.split()[-1] for line in lines if "--old" not in line}


def test_list_shows_the_whole_catalog_and_what_is_here_of_it_and_beyond(caches):
    assert set(here().values()) == {"-"}
    assert {name for name, _ in here()} == set(CATALOG)
    phi_3_onnx()
    fetched(PHI_3.checkpoint, PHI_3.revision, {"config.json": b"{}"})
    fetched("some/one", "main", {"README.md": b"read"})
    fetched("some/two--dashes", "main", {"README.md": b"read"})
    built("my-model-onnx", f"{caches / 'my-model'} 1234")
    table = here()
    assert table["phi-3-mini-4k-instruct", "ONNX"] == "whole"
    assert table["phi-3-mini-4k-instruct", "checkpoint"] == "part"
    assert table["some/one", "files"] == table["some/two--dashes", "files"] == "whole"
    assert table[str(caches / "my-model"), "ONNX"] == "whole"


def test_an_export_that_a_newer_one_or_another_version_replaced_is_old(caches):
    first = built("m-onnx", f"{caches / 'm'} 1")
    os.utime(first, (1, 1))
    second = built("m-onnx", f"{caches / 'm'} 2")
    other = built("n-onnx", f"{caches / 'n'} 1", onnxruntime="1.0")
    left = second.with_name("aside-1234")
    left.mkdir()
    left.with_name("aside-5678").symlink_to("gone")  # as one that a build sweeps away at this moment
    assert {item.folder: item.old for item in cached.found()} == {first: True, second: False, other: True, left: True}
    assert call("verify").count("intact") == 1, "what is old, or being built, is not asked for"
    call("remove", "--old", "--yes")
    assert [item.folder for item in cached.found()] == [second]
    assert "Freed 0.00 GB" in call("remove", "--old")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_flipped_byte_in_the_hubs_cache_is_found_without_a_network(name):
    folder = phi_3_onnx()
    assert "phi-3-mini-4k-instruct, ONNX, 0.00 GB: intact" in call("verify")
    flip((folder / "snapshots" / PHI_3.onnx_revision / PHI_3.onnx_folder / name).resolve())
    said = call("verify", "phi-3-mini-4k-instruct", code=1)
    assert f"{name} has changed" in said
    assert 'phi3kit weights fetch "phi-3-mini-4k-instruct"' in said


def test_a_missing_or_flipped_file_is_a_line_of_the_doctor_with_the_command_that_mends_it():
    hub, own = phi_3_onnx(), built("m-onnx", "some/model 1")
    assert [one.verdict for one in examine({"Models": checks.models})] == ["ok", "ok"]
    (hub / "snapshots" / PHI_3.onnx_revision / PHI_3.onnx_folder / "model.onnx").resolve().unlink()
    flip(own / "model.onnx")
    damaged, partial = examine({"Models": checks.models})
    assert (damaged.verdict, damaged.remedy) == ("fix", 'phi3kit weights fetch "some/model"')
    assert "model.onnx has changed" in damaged.what
    assert (partial.verdict, "lacks model.onnx" in partial.what) == ("note", True)
    assert "model.onnx is missing" in call("verify", "phi-3-mini-4k-instruct", code=1)


def test_files_that_are_no_links_are_checked_by_the_receipt_of_their_download():
    folder = phi_3_onnx()
    snapshot = folder / "snapshots" / PHI_3.onnx_revision
    model = snapshot / PHI_3.onnx_folder / "model.onnx"
    model.resolve().replace(model)  # as on Windows
    files = {model.relative_to(snapshot).as_posix(): [store.file_hash(model), model.stat().st_size]}
    receipt = store.root() / "hub" / f"{PHI_3.onnx_repo.replace('/', '--')}-123456789abc.json"
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"folder": str(snapshot), "files": files}))
    call("verify")
    flip(model)
    assert "model.onnx has changed" in call("verify", code=1)
    call("remove", "phi-3-mini-4k-instruct", "--yes")
    assert not receipt.exists()


def test_remove_takes_all_of_one_model_and_nothing_else(caches):
    gone = [phi_3_onnx(), fetched(PHI_3.checkpoint, PHI_3.revision, {"config.json": b"{}"})]
    partial = gone[1] / "blobs" / "abc.incomplete"
    partial.write_bytes(bytes(100))
    stays = [fetched("some/one", "1", {"README.md": b"read"}), built("tiny-onnx", "tiny 1")]
    assert "Freed 0.00 GB" in call("remove", "microsoft/Phi-3-mini-4k-instruct", "--yes")
    assert not any(folder.exists() for folder in gone)
    assert all(folder.exists() for folder in stays)
    call("remove", "tiny", "--yes")
    assert not stays[1].exists()


def test_remove_never_touches_a_folder_of_ones_own(caches):
    mine = caches / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    export_ = built("mine-onnx", f"{mine} 1")
    call("remove", str(mine), "--yes")
    assert not export_.exists()
    assert (mine / "config.json").exists()
    assert "Nothing that was fetched or built of" in call("remove", str(mine), "--yes", code=1)
    assert (mine / "config.json").exists()


@pytest.mark.parametrize("place", ["store", "hub"])
def test_what_is_being_made_is_not_removed(place):
    if place == "store":
        folder, name = built("m-onnx", "some/model 1"), "some/model"
        lock = folder.parent / ".lock"
    else:
        folder, name = phi_3_onnx(), "phi-3-mini-4k-instruct"
        lock = folder.parent / ".locks" / folder.name / "0123.lock"
        lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert "just now" in call("remove", name, "--yes", code=1)
        assert folder.exists()
    call("remove", name, "--yes")
    assert not folder.exists()


def test_a_repository_that_huggingface_hub_itself_cannot_read_is_removed_too():
    folder = phi_3_onnx()
    (folder / "refs" / "other").write_text("0" * 40)  # of no snapshot
    call("remove", "phi-3-mini-4k-instruct", "--yes")
    assert not folder.exists()


@pytest.mark.parametrize("arguments", [[], ["tiny", "--old"]])
def test_remove_wants_a_name_or_old_and_asks_before_it_removes(arguments):
    assert "either a name or --old" in call("remove", *arguments, "--yes", code=2)
    folder = built("tiny-onnx", "tiny 1")
    assert "--yes where nobody can be asked" in call("remove", "tiny", code=2)
    assert folder.exists()


def test_an_unknown_name_is_told_in_the_catalogs_words():
    assert "did you mean 'phi-4-mini-instruct'?" in call("verify", "phi-4", code=1)
    assert "phi3kit weights list" in call("remove", "tiny", "--yes", code=1)


def test_fit_prints_a_row_for_every_form_within_80_columns(monkeypatch):
    from phi3kit import machine

    monkeypatch.setattr(machine, "memory", lambda: (2**31, 2**30))
    said = call("fit")
    assert said.count("checkpoint") == said.count("ONNX") == len(CATALOG)
    assert "no, too little" in said and "memory: 3.4 GB needed, 1.1 GB free" in said
    assert "the name of the model to try" in call("fit", "--measure", code=2)
