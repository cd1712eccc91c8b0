"""What happens to requests that come at the same time to a worker who takes one after the other."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pandas as pd

from phi3kit.workbook.pictures.shown import DARK, LIGHT, Picture, panels

if TYPE_CHECKING:
    from phi3kit.wrappers import Phi3Chat

# What is measured, and how it is drawn.
_PARTS = {
    "queue": {"color": "white", "edgecolor": "#777777", "hatch": "..."},
    "prefill": {"color": LIGHT, "edgecolor": "#333333", "hatch": "///"},
    "decode": {"color": DARK, "edgecolor": DARK},
}


def in_one_queue(wrapper: "Phi3Chat", requests: dict[str, tuple[str, int]]) -> pd.DataFrame:
    """Hand all requests at once to one worker, and measure.

    Args:
        wrapper: loaded; its engine answers, greedily.
        requests: a name for each, the question and the longest answer in tokens.

    Returns:
        one row for each: the seconds it waited (`queue`), its prompt was read (`prefill`, up to the first token) and
        its answer written (`decode`), and how many tokens it read and wrote.
    """
    from phi3kit.generation import Options

    def answer(question: str, max_tokens: int) -> dict[str, float]:
        begun = time.perf_counter()
        prompt = wrapper.template.encode([{"role": "user", "content": question}])
        with wrapper.engine.stream(prompt, Options(max_tokens=max_tokens)) as stream:
            first = [time.perf_counter() for _ in stream][:1]
        done, complete = time.perf_counter(), stream.completion
        read = (first or [done])[0]
        seconds = {"queue": begun - handed, "prefill": read - begun, "decode": done - read}
        return seconds | {"tokens read": complete.prompt_tokens, "tokens written": complete.completion_tokens}

    wrapper.template.encode([{"role": "user", "content": "Hello!"}])  # the tokenizer is read at its first use
    handed = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as worker:
        answers = {name: worker.submit(answer, *request) for name, request in requests.items()}
    return pd.DataFrame({name: found.result() for name, found in answers.items()}).T


def time_line(measured: pd.DataFrame) -> Picture:
    """Draw what `in_one_queue` measured: one bar for each request, from when it came to when its answer was whole."""
    figure, (panel,) = panels(10, 0.5 + 0.95 * len(measured))
    told = []
    for y, (name, row) in enumerate(measured.iterrows()):
        starts = row[list(_PARTS)].cumsum() - row[list(_PARTS)]
        for part, style in _PARTS.items():
            panel.barh(y, row[part], left=starts[part], height=0.42, linewidth=0.8, **style)
        told.append(
            f"{name}: waits {row['queue']:.2f} s, reads {row['tokens read']:.0f} tokens in {row['prefill']:.2f} s, "
            f"writes {row['tokens written']:.0f} in {row['decode']:.2f} s"
        )
        panel.text(0, y - 0.3, told[-1], va="bottom", fontsize=9)
    for part in _PARTS:  # each kind is named once, where there is most room for it
        y = measured[part].to_numpy().argmax()
        row = measured.iloc[y]
        middle = row[list(_PARTS)].cumsum()[part] - row[part] / 2
        panel.text(middle, y + 0.24, part, ha="center", va="top", fontsize=9, style="italic")
    panel.set_ylim(len(measured) - 0.4, -0.65)
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
    panel.set_xlabel("seconds since the requests were handed over")
    return Picture(figure, f"Time line of {len(measured)} requests, one bar each. " + "; ".join(told) + ".")
