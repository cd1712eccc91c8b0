"""Which of OpenAI's options a wrapped chat model honours, measured by sending each of them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import pandas as pd

from phi3kit import chat, weights

# A word early in the greedy answer is needed for `stop`, and some choice among next tokens for sampling.
MESSAGES = [{"role": "user", "content": "What is the capital of Spain?"}]
MAX_TOKENS = 6
HOT = {"temperature": 2.0}


def option_table(models: dict[str, Any]) -> pd.DataFrame:
    """Probe chat models with one option at a time.

    Args:
        models: a column's name, and a model as `mlflow.pyfunc.load_model` returns it.

    Returns:
        One row per option. `honoured`: the answer showed its effect or, for the harmless `n=1` and `stream=false`, the
        model answered. `refused`: the model raised an error. `ignored`: neither.
    """
    return pd.DataFrame({name: _verdicts(_ProbedModel(model)) for name, model in models.items()}).rename_axis("option")


class _ProbedModel:
    """A model that answers the same question with various options."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.greedy = self.ask()

    def ask(self, **options: Any) -> str:
        if "max_completion_tokens" not in options:
            options = {"max_tokens": MAX_TOKENS, **options}
        with weights.offline():  # MLflow's pipeline asks a hub for a tokenizer at each `stop`
            result = self._model.predict({"messages": MESSAGES, **options})
        return chat.completion(result)["choices"][0]["message"]["content"]

    def differs(self, **options: Any) -> bool:
        return self.ask(**options) != self.greedy

    @cached_property
    def varies(self) -> bool:
        return any(self.differs(**HOT) for _ in range(3))


# For each option that `phi3kit.generation.options` declares, and OpenAI's other fields: whether the model honours it.
PROBES: dict[str, Callable[[_ProbedModel], bool]] = {
    "messages": lambda model: bool(model.greedy),
    "max_tokens": lambda model: model.differs(max_tokens=1),
    "temperature": lambda model: model.varies,
    # On a hot model, these two bring the greedy answer back: only the likeliest token remains.
    "top_p": lambda model: model.varies and not model.differs(**HOT, top_p=1e-6),
    "top_k": lambda model: model.varies and not model.differs(**HOT, top_k=1),
    "seed": lambda model: (
        model.varies and model.ask(**HOT, seed=1) == model.ask(**HOT, seed=1) != model.ask(**HOT, seed=2)
    ),
    "stop": lambda model: model.differs(stop=[model.greedy.split()[-1]]),
    "repetition_penalty": lambda model: model.differs(repetition_penalty=2.0),
    "frequency_penalty": lambda model: model.differs(frequency_penalty=2.0),
    "presence_penalty": lambda model: model.differs(presence_penalty=2.0),
    "n=1": lambda model: bool(model.ask(n=1)),
    "n=2": lambda model: bool(model.ask(n=2)),
    "stream=false": lambda model: bool(model.ask(stream=False)),
    "stream=true": lambda model: bool(model.ask(stream=True)),
    "max_completion_tokens": lambda model: (
        model.ask(max_completion_tokens=1) != model.ask(max_completion_tokens=MAX_TOKENS)
    ),
    "response_format": lambda model: model.differs(response_format={"type": "json_object"}),
}


def _verdicts(model: _ProbedModel) -> dict[str, str]:
    return {option: _verdict(probe, model) for option, probe in PROBES.items()}


def _verdict(probe: Callable[[_ProbedModel], bool], model: _ProbedModel) -> str:
    try:
        return "honoured" if probe(model) else "ignored"
    except Exception:  # each wrapper raises its own type; that it raises is the result
        return "refused"
