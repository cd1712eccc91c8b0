"""Requests that arrive at the same time at one worker, which answers them one after the other."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pandas as pd

from phi3kit.workbook.lesson.pictures.display import DARK, INK, LIGHT, Picture, panels

if TYPE_CHECKING:
    from phi3kit.wrappers import Phi3Chat

# The parts of a request's time, and how each is drawn.
_PARTS = {
    "queue": {"color": "none", "edgecolor": INK, "hatch": "..."},
    "prefill": {"color": LIGHT, "edgecolor": INK, "hatch": "///"},
    "decode": {"color": DARK, "edgecolor": DARK},
}


def queue_times(wrapper: "Phi3Chat", requests: dict[str, tuple[str, int]]) -> pd.DataFrame:
    """Hand all requests at once to one worker, and measure each.

    Args:
        wrapper: a loaded wrapper; its engine answers, greedily.
        requests: for each name, the question and the longest answer in tokens.

    Returns:
        One row per request: the seconds it waited (`queue`), the seconds to its first token (`prefill`) and from there
        to its end (`decode`), and the tokens of its prompt and its answer.
    """
    from phi3kit.generation import Options

    def answer(question: str, max_tokens: int) -> dict[str, float]:
        start = time.perf_counter()
        prompt = wrapper.template.encode([{"role": "user", "content": question}])
        with wrapper.engine.stream(prompt, Options(max_tokens=max_tokens)) as stream:
            first = [time.perf_counter() for _ in stream][:1]
        end, result = time.perf_counter(), stream.answer
        first_token = (first or [end])[0]
        seconds = {"queue": start - arrival, "prefill": first_token - start, "decode": end - first_token}
        return seconds | {"tokens read": result.prompt_tokens, "tokens written": result.completion_tokens}

    wrapper.template.encode([{"role": "user", "content": "Hello!"}])  # this loads the tokenizer
    arrival = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as worker:
        futures = {name: worker.submit(answer, *request) for name, request in requests.items()}
    return pd.DataFrame({name: future.result() for name, future in futures.items()}).T


def time_line(measured: pd.DataFrame) -> Picture:
    """Draw what `queue_times` returned: one bar per request, from its arrival to the end of its answer."""
    figure, (panel,) = panels(10, 0.5 + 0.95 * len(measured))
    sentences = []
    for y, (name, row) in enumerate(measured.iterrows()):
        starts = row[list(_PARTS)].cumsum() - row[list(_PARTS)]
        for part, style in _PARTS.items():
            panel.barh(y, row[part], left=starts[part], height=0.42, linewidth=0.8, **style)
        sentences.append(
            f"{name}: waits {row['queue']:.2f} s, reads {row['tokens read']:.0f} tokens in {row['prefill']:.2f} s, "
            f"writes {row['tokens written']:.0f} in {row['decode']:.2f} s"
        )
        panel.text(0, y - 0.3, sentences[-1], va="bottom", fontsize=9)
    for part in _PARTS:  # each part is named once, on its longest bar
        y = measured[part].to_numpy().argmax()
        row = measured.iloc[y]
        middle = row[list(_PARTS)].cumsum()[part] - row[part] / 2
        panel.text(middle, y + 0.24, part, ha="center", va="top", fontsize=9, style="italic")
    panel.set_ylim(len(measured) - 0.4, -0.65)
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("seconds since the requests were handed over")
    return Picture(figure, f"Time line of {len(measured)} requests, one bar each. " + "; ".join(sentences) + ".")
