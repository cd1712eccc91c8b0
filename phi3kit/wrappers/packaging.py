"""What `log_model` needs to store a model that runs elsewhere: code, exact requirements, signature and metadata."""

import shutil
import textwrap
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from phi3kit.chat import ChatTemplate
from phi3kit.errors import InvalidRequest, WeightsError
from phi3kit.generation.engine import MAX_TOKENS
from phi3kit.system import requirements, targets
from phi3kit.wrappers.chat import Phi3Chat
from phi3kit.wrappers.prompt import ARTIFACT, Phi3Model

_PACKAGE = Path(__file__).parents[1]
_MODEL_CODE = {Phi3Model: "phi3_model.py", Phi3Chat: "phi3_chat.py"}
# What a stored model runs. Nothing in these imports the rest of the kit when it is loaded.
_STORED = ("__init__.py", "errors.py", "system", "chat", "generation", "wrappers")

_PROBE = [{"role": role, "content": "Two  spaces, and Grüße."} for role in ("system", "user", "assistant", "user")]

# What the code of each wrapper imports, and mlflow itself, which loads it.
_ONNX = ("tokenizers", "jinja2", "joblib", "psutil", "pandas", "numpy")
_TRANSFORMERS = ("mlflow", "transformers", "torch", "tokenizers", "safetensors", "jinja2", "pandas", "numpy")


def onnx_requirements() -> list[str]:
    """Return the exact pins of what `Phi3Model` and `Phi3Chat` need, as installed here, for a CPU or for a GPU."""
    return _pins(("mlflow", *targets.versions(), *_ONNX))


def transformers_requirements() -> list[str]:
    """Return the exact pins of what the transformers pipeline needs, as installed here."""
    return _pins(_TRANSFORMERS)


def _pins(packages: tuple[str, ...]) -> list[str]:
    # "2.13.0+cpu" names a build that PyPI does not have; the version proper is the requirement.
    return [f"{name}{targets.EXTRAS.get(name, '')}=={version(name).partition('+')[0]}" for name in packages]


@cache
def _stored_code() -> "TemporaryDirectory[str]":
    """A folder with the part of the kit that a stored model carries; it is removed when this process ends."""
    folder = TemporaryDirectory(prefix="phi3kit-code-", ignore_cleanup_errors=True)
    target = Path(folder.name, _PACKAGE.name)
    target.mkdir()
    for name in _STORED:
        source = _PACKAGE / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return folder


def packaged(wrapper: type[Phi3Model] | type[Phi3Chat], model: str, target: str | None = None) -> dict[str, Any]:
    """Return what `mlflow.pyfunc.log_model` (or `save_model`) needs to store a wrapper of the model.

    Args:
        wrapper: `Phi3Model` or `Phi3Chat`.
        model: a catalog name, a local folder, or a hub id; its ONNX form is fetched or built when missing.
        target: what the model is to run on, here and where it is loaded; see `weights.onnx`.

    Raises:
        WeightsError: the model's files cannot be obtained, or its chat template cannot be used.
    """
    from phi3kit import weights

    entry, folder = weights.resolve(model), weights.onnx(model, target)
    if wrapper is Phi3Chat:
        ChatTemplate(folder)  # one that cannot be used is refused now, not at the first request
    return {
        "python_model": str(Path(__file__).parent / "models_from_code" / _MODEL_CODE[wrapper]),
        "artifacts": {ARTIFACT: folder.absolute().as_uri()},  # MLflow unescapes a %41 in a plain path
        "signature": wrapper.signature(),
        "input_example": wrapper.input_example(),
        "code_paths": [str(Path(_stored_code().name) / _PACKAGE.name)],
        "pip_requirements": onnx_requirements(),
        "model_config": {"model": entry.name},
        "metadata": {"weights_revision": weights.revision(folder)},
    }


def packaged_pipeline(model: str) -> dict[str, Any]:
    """Return what `mlflow.transformers.log_model` (or `save_model`) needs to store the model as a chat pipeline.

    Log what it returns inside `weights.offline()`: MLflow would ask a hub for the licence of what it takes for a
    repository. Call it outside: it may have to fetch the checkpoint.

    The pipeline uses a GPU where torch sees one, both here and where MLflow loads it; `docs/targets.md` tells how to
    choose another device.

    Args:
        model: a catalog name, a local folder, or a hub id; its checkpoint is fetched or built when missing.

    Raises:
        WeightsError: the model's files cannot be obtained, transformers cannot use them, or its chat template cannot be
            used.
        MissingExtra: torch or transformers is not installed.
    """
    requirements.need_extra("A transformers pipeline", "checkpoint")
    import transformers

    from phi3kit import weights

    folder = weights.checkpoint(model)
    template = ChatTemplate(folder)
    try:
        network, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", output_loading_info=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        built = transformers.pipeline("text-generation", model=network, tokenizer=tokenizer)
    except Exception as error:  # it raises nearly every kind
        reason = textwrap.shorten(str(error), 300)
        raise WeightsError(f"transformers cannot use {folder}: {type(error).__name__}: {reason}") from error
    if missing := sorted(report["missing_keys"]):  # transformers fills them with random numbers
        raise WeightsError(f"The weights in {folder} lack {missing[0]}, which its config.json wants. Copy it again.")
    for messages in (_PROBE, _PROBE[1:], _PROBE[1:2]):
        with suppress(InvalidRequest):  # a template may refuse a system message, or answers
            ids = template.encode(messages)
            if ids != tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False):
                name = type(tokenizer).__name__
                raise WeightsError(f"{name} of transformers reads prompts otherwise than {folder}/tokenizer.json says.")
    built.model.name_or_path = weights.resolve(model).name  # the completion's `model`; a path would name this machine
    return {
        "transformers_model": built,
        "task": "llm/v1/chat",
        "model_config": {"do_sample": False, "max_new_tokens": MAX_TOKENS},
        "pip_requirements": transformers_requirements(),
        "metadata": {"weights_revision": weights.revision(folder)},
    }
