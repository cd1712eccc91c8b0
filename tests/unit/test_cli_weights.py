"""`phi3kit weights` list, fit, verify and remove, on a store and a hub's cache made for the test."""

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import constants
from typer.testing import CliRunner

from phi3kit.cli import app
from phi3kit.doctor import checks, examine
from phi3kit.system import folders, machine
from phi3kit.weights import CATALOG, cached, export, store

PHI_3 = CATALOG["phi-3-mini-4k-instruct"]
SUBFOLDER = Path("snapshots", PHI_3.onnx.revision, PHI_3.onnx.subfolder)


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["weights", *arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PHI3KIT_CACHE", str(tmp_path / "kit"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def built(name: str, checkpoint: str, **recipe: str) -> Path:
    """The folder of an export of `checkpoint` (name and version)."""

    def build(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(checkpoint.encode() * 1000)

    return store.get_or_build(name, export.recipe(checkpoint) | recipe, build)


def fetched(repo: str, revision: str, files: dict[str, bytes]) -> Path:
    """A repository in the hub's cache: large files named by SHA-256, small ones by git's hash."""
    folder = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
    snapshot = folder / "snapshots" / revision
    for path in (folder / "blobs", folder / "refs", snapshot):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    for name, content in files.items():
        small = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = folder / "blobs" / (hashlib.sha256(content).hexdigest() if len(content) > 100 else small)
        blob.write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return folder


@pytest.fixture
def onnx() -> Path:
    """Phi-3's ONNX repository."""
    config = json.dumps({"model": {"decoder": {"filename": "model.onnx"}}}).encode()
    files = {"genai_config.json": config, "tokenizer.json": b"{}", "model.onnx": bytes(5000)}
    files = {f"{PHI_3.onnx.subfolder}/{name}": content for name, content in files.items()}
    return fetched(PHI_3.onnx.repo, PHI_3.onnx.revision, files)


@pytest.fixture
def checkpoint() -> Path:
    """A part of Phi-3's checkpoint."""
    return fetched(PHI_3.checkpoint.repo, PHI_3.checkpoint.revision, {"config.json": b"{}"})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    importlib.reload(folders)  # forgets the hashes, as a new process does


# list


def states() -> dict[tuple[str, str], str]:
    """The table's last column, by name and form."""
    rows = [line for line in call("list").splitlines() if not line.startswith("MODEL") and " GB in " not in line]
    return {tuple(line.split()[:2]): line.split()[-1] for line in rows if "--old" not in line}


def test_list_shows_both_forms_of_the_whole_catalog():
    assert states() == {(name, form): "-" for name in CATALOG for form in ("checkpoint", "onnx")}


def test_list_fits_80_columns():
    assert max(len(line) for line in call("list").splitlines() if "/" not in line) <= 80


@pytest.mark.usefixtures("onnx", "checkpoint")
@pytest.mark.parametrize(("form", "state"), [("onnx", "whole"), ("checkpoint", "part")])
def test_list_shows_the_state_of_a_catalog_model(form, state):
    assert states()[PHI_3.name, form] == state


@pytest.mark.parametrize("repo", ["some/one", "some/two--dashes"])
def test_list_shows_other_repositories_of_the_hub(repo):
    fetched(repo, "main", {"README.md": b"read"})
    assert states()[repo, "files"] == "whole"


def test_list_shows_exports_of_local_folders(caches):
    built("my-model-onnx", f"{caches / 'my-model'} 1234")
    assert states()[str(caches / "my-model"), "onnx"] == "whole"


def test_list_and_fit_need_no_extra(monkeypatch):
    for module in ("torch", "transformers", "onnx", "onnx_ir"):
        monkeypatch.setitem(sys.modules, module, None)
    assert (call("list").count("onnx"), call("fit").count("onnx")) == (len(CATALOG), len(CATALOG))


# Obsolete folders


@pytest.fixture
def exports(caches) -> dict[str, Path]:
    """An export, one that a newer one replaced, one of an older onnxruntime, and one that was not finished."""
    replaced = built("m-onnx", f"{caches / 'm'} 1")
    os.utime(replaced, (1, 1))
    newest = built("m-onnx", f"{caches / 'm'} 2")
    older = built("n-onnx", f"{caches / 'n'} 1", onnxruntime="1.0")
    (newest.parent / "aside-1234").mkdir()
    (newest.parent / "aside-5678").symlink_to("gone")  # a build is removing it
    return {"replaced": replaced, "newest": newest, "older": older, "unfinished": newest.parent / "aside-1234"}


def test_replaced_older_and_unfinished_folders_are_obsolete(exports):
    obsolete = {item.folder for item in cached.list_cached() if item.obsolete}
    assert obsolete == {exports["replaced"], exports["older"], exports["unfinished"]}


@pytest.mark.usefixtures("exports")
def test_obsolete_folders_are_not_verified():
    assert call("verify").count("intact") == 1


def test_remove_old_removes_the_obsolete_ones(exports):
    call("remove", "--old", "--yes")
    assert [item.folder for item in cached.list_cached()] == [exports["newest"]]


def test_remove_old_without_any_asks_nothing():
    assert "Freed 0.00 GB" in call("remove", "--old")


def test_an_export_depends_on_packages_of_the_core_alone():
    assert export.recipe("m 1").keys() == {"checkpoint", "options", "exporter", "onnxruntime-genai", "onnxruntime"}


# verify


@pytest.mark.usefixtures("onnx")
def test_whole_files_of_the_hub_are_intact():
    assert call("verify") == "phi-3-mini-4k-instruct, onnx, 0.00 GB: intact\n"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_flipped_byte_is_found_without_a_network(onnx, name):
    flip((onnx / SUBFOLDER / name).resolve())
    message = call("verify", "phi-3-mini-4k-instruct", code=1)
    assert f"{name} has changed" in message
    assert 'phi3kit weights fetch "phi-3-mini-4k-instruct"' in message


def test_a_missing_file_of_the_hub_is_found(onnx):
    (onnx / SUBFOLDER / "model.onnx").resolve().unlink()
    assert "model.onnx is missing" in call("verify", "phi-3-mini-4k-instruct", code=1)


def models() -> list[tuple[str, str, str]]:
    return [(finding.verdict, finding.what, finding.remedy) for finding in examine({"Models": checks.models})]


def test_the_doctor_names_a_damaged_file_and_the_command():
    flip(built("m-onnx", "some/model 1") / "model.onnx")
    what = "some/model, onnx, 0.00 GB, damaged: model.onnx has changed"
    assert models() == [("fix", what, 'phi3kit weights fetch "some/model"')]


def test_the_doctor_notes_a_partial_download(onnx):
    (onnx / SUBFOLDER / "model.onnx").resolve().unlink()
    ((verdict, what, _),) = models()
    assert (verdict, "lacks model.onnx" in what) == ("note", True)


@pytest.fixture
def receipt(onnx) -> Path:
    """The receipt of Phi-3's ONNX repository, where its model file is no link, as on some Windows."""
    model = onnx / SUBFOLDER / "model.onnx"
    model.resolve().replace(model)
    snapshot = onnx / "snapshots" / PHI_3.onnx.revision
    files = {model.relative_to(snapshot).as_posix(): [folders.file_hash(model), model.stat().st_size]}
    receipt = store.root() / "hub" / f"{PHI_3.onnx.repo.replace('/', '--')}-123456789abc.json"
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"folder": str(snapshot), "files": files}))
    return receipt


@pytest.mark.usefixtures("receipt")
def test_files_that_are_no_links_are_intact():
    assert "intact" in call("verify")


@pytest.mark.usefixtures("receipt")
def test_files_that_are_no_links_are_checked_by_their_receipt(onnx):
    flip(onnx / SUBFOLDER / "model.onnx")
    assert "model.onnx has changed" in call("verify", code=1)


def test_the_receipts_of_a_repository_are_removed_with_it(receipt):
    call("remove", "phi-3-mini-4k-instruct", "--yes")
    assert not receipt.exists()


# remove


def test_remove_removes_both_forms_of_a_model(onnx, checkpoint):
    (checkpoint / "blobs" / "abc.incomplete").write_bytes(bytes(100))
    call("remove", "microsoft/Phi-3-mini-4k-instruct", "--yes")
    assert (onnx.exists(), checkpoint.exists()) == (False, False)


@pytest.mark.usefixtures("onnx")
def test_remove_leaves_other_models():
    others = [fetched("some/one", "1", {"README.md": b"read"}), built("tiny-onnx", "tiny 1")]
    call("remove", "phi-3-mini-4k-instruct", "--yes")
    assert [folder.exists() for folder in others] == [True, True]


def test_remove_removes_tiny():
    folder = built("tiny-onnx", "tiny 1")
    call("remove", "tiny", "--yes")
    assert not folder.exists()


@pytest.fixture
def own(caches) -> Path:
    """A folder of the person's own, from which an export was made."""
    folder = caches / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    built("mine-onnx", f"{folder} 1")
    return folder


def test_remove_removes_the_export_of_a_folder(own):
    call("remove", str(own), "--yes")
    assert cached.list_cached() == []


def test_remove_leaves_a_folder_of_ones_own(own):
    call("remove", str(own), "--yes")
    message = call("remove", str(own), "--yes", code=1)
    assert ("Nothing that was fetched or built of" in message, (own / "config.json").exists()) == (True, True)


@pytest.fixture(params=["store", "hub"])
def locked(request) -> tuple[str, Path, Path]:
    """A model's name, its folder, and the lock that a process holds while it makes that folder."""
    if request.param == "store":
        folder = built("m-onnx", "some/model 1")
        return "some/model", folder, folder.parent / ".lock"
    folder = request.getfixturevalue("onnx")
    lock = folder.parent / ".locks" / folder.name / "0123.lock"
    lock.parent.mkdir(parents=True)
    return PHI_3.name, folder, lock


def test_what_is_being_made_is_not_removed(locked):
    name, folder, lock = locked
    with FileLock(lock):
        message = call("remove", name, "--yes", code=1)
    assert ("just now" in message, folder.exists()) == (True, True)


def test_what_has_been_made_is_removed(locked):
    name, folder, lock = locked
    with FileLock(lock):
        pass
    call("remove", name, "--yes")
    assert not folder.exists()


def test_a_repository_that_cannot_be_scanned_is_removed(onnx):
    (onnx / "refs" / "other").write_text("0" * 40)  # of no snapshot
    call("remove", "phi-3-mini-4k-instruct", "--yes")
    assert not onnx.exists()


@pytest.mark.parametrize("arguments", [[], ["tiny", "--old"]])
def test_remove_needs_a_name_or_old(arguments):
    assert "either a name or --old" in call("remove", *arguments, "--yes", code=2)


def test_remove_needs_yes_where_no_terminal_is():
    folder = built("tiny-onnx", "tiny 1")
    message = call("remove", "tiny", code=2)
    assert ("--yes" in message, folder.exists()) == (True, True)


def test_an_unknown_name_gets_a_suggestion():
    assert "did you mean 'phi-4-mini-instruct'?" in call("verify", "phi-4", code=1)


def test_a_model_without_files_gets_the_command_list():
    assert "phi3kit weights list" in call("remove", "tiny", "--yes", code=1)


# fit


@pytest.fixture
def two_gb(monkeypatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: (2**31, 2**30))


@pytest.mark.usefixtures("two_gb")
@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
def test_fit_prints_a_row_for_every_form(form):
    assert call("fit").count(form) == len(CATALOG)


@pytest.mark.usefixtures("two_gb")
def test_fit_fits_80_columns():
    assert max(map(len, call("fit").splitlines())) <= 80


@pytest.mark.usefixtures("two_gb")
def test_fit_says_what_is_too_little():
    assert "  memory: 3.4 GB needed, 1.1 GB free\n" in call("fit", "phi-3-mini-4k-instruct")


def verdict(form: str, gigabytes: int, monkeypatch, *, disk: int = 1000) -> str:
    """The last column of Phi-3's row, on a machine with so much free memory and disk."""
    monkeypatch.setattr(machine, "memory", lambda: (gigabytes * 10**9, gigabytes * 10**9))
    monkeypatch.setattr(machine, "memory_bandwidth", lambda: 4e10)
    monkeypatch.setattr(machine, "disk_free", lambda folder: disk * 10**9)
    (row,) = [line for line in call("fit", PHI_3.name).splitlines() if f" {form} " in line]
    return row.split()[-1]


@pytest.mark.parametrize(
    ("form", "gigabytes", "fits"),
    [
        ("checkpoint", 8, "no"),
        ("checkpoint", 9, "alone"),
        ("checkpoint", 15, "alone"),
        ("checkpoint", 16, "yes"),
        ("onnx", 3, "no"),
        ("onnx", 11, "alone"),
        ("onnx", 12, "yes"),
    ],
)
def test_fit_tells_the_model_from_its_notebook(form, gigabytes, fits, monkeypatch):
    assert verdict(form, gigabytes, monkeypatch) == fits


@pytest.mark.parametrize(
    ("form", "disk", "fits"),
    [("checkpoint", 7, "no"), ("checkpoint", 22, "alone"), ("checkpoint", 23, "yes"), ("onnx", 26, "alone")],
)
def test_fit_counts_the_disk_of_the_notebook(form, disk, fits, monkeypatch):
    assert verdict(form, 64, monkeypatch, disk=disk) == fits


def test_measuring_needs_a_name():
    assert "the name of the model to try" in call("fit", "--measure", code=2)
