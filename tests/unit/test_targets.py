"""Targets other than a CPU: what the catalog, the packages and a folder say, and what is refused, without a GPU."""

import json
from pathlib import Path

import pytest

from phi3kit import weights
from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.generation import Engine
from phi3kit.system import targets
from phi3kit.system.folders import GenaiConfig
from phi3kit.system.targets import Target
from phi3kit.weights import CATALOG

CPU_PACKAGES = ["onnxruntime-genai", "onnxruntime"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def describe(folder: Path, options: object) -> Path:
    """Write an ONNX folder with these `provider_options` and no real model."""
    decoder = {"filename": "model.onnx", "session_options": {"provider_options": options}}
    model = {"context_length": 9, "vocab_size": 9, "eos_token_id": 0, "decoder": decoder}
    (folder / "genai_config.json").write_text(json.dumps({"model": model}))
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "tokenizer.json").write_text("{}")
    return folder


# What a folder says


@pytest.mark.parametrize(
    ("options", "provider"),
    [
        ([], "cpu"),
        ([{"cuda": {"enable_cuda_graph": "0"}}], "cuda"),
        ([{"dml": {}}], "dml"),
        ([{"CUDA": {}}], "cuda"),  # onnxruntime-genai takes any case
        ([{"DmlExecutionProvider": {}}], "dml"),  # and onnxruntime's names
        ([{"OpenVINO": {}}], "openvino"),
        (None, "cpu"),
        ("cuda", "cpu"),  # it reads over a text
        (5, "cpu"),
        ([5], "cpu"),
    ],
    ids=str,
)
def test_a_folder_names_its_provider(folder, options, provider):
    assert GenaiConfig.read(describe(folder, options)).provider == provider


# What the engine does


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("cuda", ["cuda (CUDAExecutionProvider)", "onnxruntime-genai-cuda==", '"onnxruntime-gpu[cuda,cudnn]"']),
        ("DML", ["dml (DmlExecutionProvider)", "onnxruntime-genai-directml==", "onnxruntime-directml"]),
    ],
)
class TestRefusal:
    """A folder for a provider that the installed packages do not have."""

    def test_it_names_provider_and_package(self, folder, name, parts):
        with pytest.raises(WeightsError) as error:
            Engine.open(describe(folder, [{name: {}}]))
        assert [part for part in [str(folder), *parts] if part not in str(error.value)] == []

    def test_it_is_one_sentence(self, folder, name, parts):
        with pytest.raises(WeightsError) as error:
            Engine.open(describe(folder, [{name: {}}]))
        assert (str(error.value).count(". "), str(error.value).count("\n")) == (0, 0)


@pytest.mark.parametrize("name", ["OpenVINO", "nothing"])
def test_another_provider_is_left_to_onnxruntime_genai(folder, name):
    with pytest.raises(WeightsError, match=rf"cannot open .*computes with {name.lower()}: `phi3kit doctor`"):
        Engine.open(describe(folder, [{name: {}}]))


def test_a_cpu_needs_no_other_package(folder):
    assert targets.need(str(folder), "cpu") is None


# Packages


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Let Python find packages of these names and versions first."""

    def install(**versions: str) -> None:
        for name, version in versions.items():
            info = tmp_path / "site" / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install


def test_the_installed_packages_are_the_cpus():
    assert list(targets.versions()) == list(targets.installed()) == CPU_PACKAGES


def test_a_gpus_packages_count_first(install):
    install(onnxruntime_genai_cuda="0.18.0", onnxruntime_gpu="1.31.1+cu13")
    assert targets.versions() == {"onnxruntime-genai-cuda": "0.18.0", "onnxruntime-gpu": "1.31.1"}


def test_all_packages_are_uninstalled(install):
    install(onnxruntime_gpu="1.0")
    assert "`pip uninstall -y onnxruntime-genai onnxruntime onnxruntime-gpu`" in targets.installation(Target.CPU)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target.CPU, "onnxruntime-genai=={ours} onnxruntime"),
        (Target.CUDA, 'onnxruntime-genai-cuda=={ours} "onnxruntime-gpu[cuda,cudnn]"'),
        (Target.DML, "onnxruntime-genai-directml==0.13.1 onnxruntime-directml"),
    ],
)
def test_the_command_installs_the_packages_of_a_target(target, expected):
    ours = targets.versions()["onnxruntime-genai"]
    assert targets.installation(target).endswith(f"`pip install {expected.format(ours=ours)}`")


# Names


@pytest.mark.parametrize("target", ["gpu", "CUDA", ""])
def test_an_unknown_target_is_refused(target):
    with pytest.raises(InvalidRequest, match=r"^target='.*' is not allowed: give cpu, cuda, dml\."):
        Target(target)


def test_weights_refuses_an_unknown_target_first():
    with pytest.raises(InvalidRequest, match=r"^target='rocm'"):
        weights.onnx("tiny", target="rocm")


@pytest.mark.parametrize("target", [Target.CUDA, Target.DML])
@pytest.mark.parametrize("name", [name for name in CATALOG if name != "tiny"])
def test_each_phi_is_published_for_each_gpu(name, target):
    source = CATALOG[name].onnx_for(target)
    assert (source.repo, source.subfolder.startswith("cpu")) == (CATALOG[name].onnx.repo, False)


@pytest.mark.parametrize("target", Target)
def test_tiny_is_published_for_nothing(target):
    assert CATALOG["tiny"].onnx_for(target).repo is None


# A folder of one's own


@pytest.mark.parametrize("target", [None, "cuda"])
def test_a_folder_for_a_gpu_is_taken_as_it_is(folder, target):
    assert weights.onnx(describe(folder, [{"cuda": {}}]), target) == folder


@pytest.mark.parametrize(("options", "made", "target"), [([], "cpu", "cuda"), ([{"cuda": {}}], "cuda", "cpu")])
def test_a_folder_for_another_target_is_refused(folder, options, made, target):
    with pytest.raises(WeightsError, match=f"is made for {made}, not for {target}: give its checkpoint"):
        weights.onnx(describe(folder, options), target)


@pytest.mark.parametrize(("target", "says"), [("cuda", True), (None, False)])
def test_the_package_to_install_is_said(folder, capsys, target, says):
    weights.onnx(describe(folder, [{"cuda": {}}]), target)
    assert ("put onnxruntime-genai-cuda in the place of ours" in capsys.readouterr().err) == says


def test_where_the_package_is_installed_nothing_is_said(folder, capsys, install):
    install(onnxruntime_genai_cuda="0.18.0", onnxruntime_gpu="1.31.1")
    weights.onnx(describe(folder, [{"cuda": {}}]), "cuda")
    assert capsys.readouterr().err == ""
