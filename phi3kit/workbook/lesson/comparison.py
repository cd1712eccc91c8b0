"""Two logged chat models side by side, each measured alone in a process of its own.

`python -m phi3kit.workbook.lesson.comparison MODEL_URI MAX_TOKENS` prints one model's figures as JSON. A new process
pays for its own imports and holds only its own memory, so the figures do not depend on what a notebook has loaded.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pandas as pd

from phi3kit.errors import Phi3KitError
from phi3kit.system import process
from phi3kit.workbook.lesson.pictures.memory import Memory

QUESTIONS = (
    "What is the capital of Spain?",
    "Who wrote Romeo and Juliet?",
    "Explain gravity in one sentence.",
    "Write a haiku about snow.",
    "How do plants grow?",
)
FIGURES = {
    "load": "s",
    "first token": "s",
    "decode": "tokens/s",
    "memory": "MB",
    "disk": "MB",
}
SAMPLE_SECONDS = 0.1  # between two measurements of memory; one takes a hundredth of that


def side_by_side(models: dict[str, str], max_tokens: int = 48) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Memory]]:
    """Measure every model and collect its answers.

    Args:
        models: a column's name, and the model's URI.
        max_tokens: the longest answer, in tokens.

    Returns:
        The figures (rows as in `FIGURES`; load includes importing the libraries, first token is the time of a whole
        one-token request, decode the speed of the further tokens, memory the process's resident size after answering),
        the answers (one row for each of `QUESTIONS`), and each process's memory over time.

    Raises:
        Phi3KitError: a model could not be measured; the message ends with the process's last lines.
    """
    results = {name: _run(uri, max_tokens) for name, uri in models.items()}
    figures = pd.DataFrame({name: result["figures"] for name, result in results.items()})
    figures.insert(0, "unit", pd.Series(FIGURES))
    answers = pd.DataFrame({name: result["answers"] for name, result in results.items()}, index=list(QUESTIONS))
    return figures.loc[list(FIGURES)], answers, {name: result["memory"] for name, result in results.items()}


def first_tokens_agree(one: list[int], other: list[int]) -> int:
    """Return how many tokens two answers share from the start."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _run(model_uri: str, max_tokens: int) -> dict[str, Any]:
    """Measure one model in a new process, and that process's memory from here."""
    import mlflow

    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    command = [*process.PYTHON, "-m", __name__, model_uri, str(max_tokens)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    start, seconds, megabytes = time.time(), [], []
    with process.start(command, env=environment, **pipes) as child:
        while child.returncode is None:
            try:
                output, errors = child.communicate(timeout=SAMPLE_SECONDS)
            except subprocess.TimeoutExpired:
                megabytes.append(process.resident(child.pid) / 1e6)
                seconds.append(time.time() - start)
    if child.returncode:
        raise Phi3KitError(f"{model_uri} could not be measured:\n" + "\n".join(errors.splitlines()[-6:]))
    result = json.loads(output.splitlines()[-1])
    events = {event: at - start for event, at in result["events"].items()}
    return result | {"memory": Memory(seconds, megabytes, events)}


def _measure(model_uri: str, max_tokens: int) -> dict[str, Any]:
    from pathlib import Path
    from time import perf_counter

    start = perf_counter()
    import mlflow
    import psutil

    from phi3kit.chat import completion

    events = {"MLflow": time.time()}
    folder = Path(mlflow.artifacts.download_artifacts(model_uri))
    model = mlflow.pyfunc.load_model(model_uri)
    load = perf_counter() - start
    events["model"] = time.time()

    def timed(question: str, tokens: int) -> tuple[dict[str, Any], float]:
        start = perf_counter()
        result = model.predict({"messages": [{"role": "user", "content": question}], "max_tokens": tokens})
        return completion(result), perf_counter() - start

    timed(QUESTIONS[0], 2)  # warm-up: one-time work of the library
    events["first answer"] = time.time()
    first = [timed(question, 1)[1] for question in QUESTIONS]
    whole = [timed(question, max_tokens) for question in QUESTIONS]
    further = sum(answer["usage"]["completion_tokens"] - 1 for answer, _ in whole)
    return {
        "figures": {
            "load": load,
            "first token": sorted(first)[len(first) // 2],
            "decode": further / (sum(seconds for _, seconds in whole) - sum(first)),
            "memory": psutil.Process().memory_info().rss / 1e6,
            "disk": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
        },
        "events": events,
        "answers": [answer["choices"][0]["message"]["content"] for answer, _ in whole],
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))))
