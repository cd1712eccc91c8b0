"""Which of OpenAI's options a wrapped chat model honours: found out by sending them, not by reading manuals."""

from collections.abc import Callable
from functools import cache
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
        models: a name for the column, and a model as `mlflow.pyfunc.load_model` gives it.

    Returns:
        One row per option; `honoured`: its effect was seen in the answer, or, for the harmless `n=1` and
        `stream=false`, an answer came; `refused`: an error came; `ignored`: neither.
    """
    return pd.DataFrame({name: _probe(model) for name, model in models.items()}).rename_axis("option")


def _probe(model: Any) -> dict[str, str]:
    def ask(**options: Any) -> str:
        with weights.offline():  # MLflow's pipeline asks a hub for a tokenizer at each `stop`
            result = model.predict({"messages": MESSAGES, "max_tokens": MAX_TOKENS, **options})
        return chat.completion(result)["choices"][0]["message"]["content"]

    greedy = ask()

    def differs(**options: Any) -> Callable[[], bool]:
        return lambda: ask(**options) != greedy

    def answers(**options: Any) -> Callable[[], bool]:
        return lambda: bool(ask(**options))

    @cache
    def varies() -> bool:
        return any(ask(**HOT) != greedy for _ in range(3))

    probes: dict[str, Callable[[], bool]] = {
        "messages": lambda: bool(greedy),
        "max_tokens": differs(max_tokens=1),
        "temperature": varies,
        # On a hot model, these two bring the greedy answer back: only the likeliest token is left.
        "top_p": lambda: varies() and ask(**HOT, top_p=1e-6) == greedy,
        "top_k": lambda: varies() and ask(**HOT, top_k=1) == greedy,
        "seed": lambda: varies() and ask(**HOT, seed=1) == ask(**HOT, seed=1) != ask(**HOT, seed=2),
        "stop": differs(stop=[greedy.split()[-1]]),
        "repetition_penalty": differs(repetition_penalty=2.0),
        "frequency_penalty": differs(frequency_penalty=2.0),
        "presence_penalty": differs(presence_penalty=2.0),
        "n=1": answers(n=1),
        "n=2": answers(n=2),
        "stream=false": answers(stream=False),
        "stream=true": answers(stream=True),
        "max_completion_tokens": differs(max_completion_tokens=1),
        "response_format": differs(response_format={"type": "json_object"}),
    }
    return {option: _verdict(probe) for option, probe in probes.items()}


def _verdict(probe: Callable[[], bool]) -> str:
    try:
        return "honoured" if probe() else "ignored"
    except Exception:  # what is raised differs from wrapper to wrapper; that it is raised is the finding
        return "refused"
