"""A chat by hand: pick a model, ask, watch the answer come, stop it, go on or begin anew."""

import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing
from html import escape
from typing import Any

from phi3kit.errors import Phi3KitError
from phi3kit.workbook.session import somebody_watches
from phi3kit.workbook.widgets.look import AS_TYPED, LABELLED, boxed, shown

Model = Callable[[dict[str, Any]], Generator[dict[str, Any], None, None]]
# A screen shows no more than this, and each redrawing is a message to the browser.
REDRAW_SECONDS = 0.05


def talk(
    models: Mapping[str, Model],
    question: str,
    max_tokens: int = 64,
    temperature: float = 0.0,
    greedy_only: Collection[str] = (),
) -> "ChatForm | None":
    """Show a chat that keeps the conversation and tells the speed.

    Args:
        models: for each name, a function that takes a chat request (a dict with `messages` and options) and is a
            generator of completion chunks in OpenAI's shape, or of one whole completion; closing it stops the model.
        question: what stands in the form at first.
        max_tokens: the longest answer, in tokens.
        temperature: 0 for greedy.
        greedy_only: names of the models that take no temperature; for them the form has no slider for it.

    Returns:
        The form; None under papermill or nbval, where the first model is asked at once and its answer printed.
    """
    if somebody_watches():
        return shown(ChatForm(models, question, max_tokens, temperature, greedy_only))
    name, model = next(iter(models.items()))
    options = {"max_tokens": max_tokens} | ({} if name in greedy_only else {"temperature": temperature})
    answer = _Answer()
    for chunk in model({"messages": [{"role": "user", "content": question}], **options}):
        answer.take(chunk)
    print(f"You: {question}\n{name}: {answer.text}\n")
    print(f"In JupyterLab, this cell shows a chat with {' or '.join(models)}.")
    return None


class ChatForm:
    """The form behind `talk`; its controls are attributes, so that it can be driven without a mouse.

    Attributes:
        turns: who spoke, and the message, for each turn of the conversation.
        thread: the one in which the latest question is answered.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        question: str,
        max_tokens: int,
        temperature: float,
        greedy_only: Collection[str],
    ) -> None:
        import ipywidgets as w

        self._models, self._greedy_only = dict(models), greedy_only
        self._stopped = threading.Event()
        self.turns: list[tuple[str, dict[str, str]]] = []
        self.thread: threading.Thread | None = None
        self.model = w.Dropdown(options=list(models), description="Model", **LABELLED)
        self.max_tokens = w.IntSlider(max_tokens, 1, max(256, max_tokens), description="max_tokens", **LABELLED)
        self.temperature = w.FloatSlider(temperature, min=0, max=2, description="temperature", **LABELLED)
        self.past, self.current, self.status = w.HTML(), w.HTML(), w.HTML()
        self.question = w.Text(question, description="Question", **LABELLED)
        self.ask = w.Button(description="Ask", button_style="primary")
        self.stop = w.Button(description="Stop", disabled=True)
        self.anew = w.Button(description="New conversation")
        # Laid out from the bottom up, a box that is too full shows its end.
        upwards = {"flex_flow": "column-reverse", "max_height": "24em", "overflow": "auto", "flex": "0 1 auto"}
        conversation = w.Box([w.VBox([self.past, self.current])], layout=upwards)
        self.box = boxed(
            "chat",
            *([self.model] if len(models) > 1 else []),
            self.max_tokens,
            self.temperature,
            conversation,
            self.question,
            w.HBox([self.ask, self.stop, self.anew]),
            self.status,
        )
        self.ask.on_click(lambda _: self._start())
        self.question.on_msg(lambda _, said, __: said.get("event") == "submit" and self._start())  # the Enter key
        self.stop.on_click(lambda _: self._stop())
        self.anew.on_click(lambda _: self._begin_anew())
        self.model.observe(lambda _: self._fit_to_model(), "value")
        self._fit_to_model()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation so far, as the next request carries it."""
        return [message for _, message in self.turns]

    def _fit_to_model(self) -> None:
        self.temperature.layout.display = "none" if self.model.value in self._greedy_only else None

    def _begin_anew(self) -> None:
        self.turns, self.past.value, self.current.value, self.status.value = [], "", "", ""

    def _stop(self) -> None:
        if self.thread and self.thread.is_alive():
            self._stopped.set()
            self.stop.disabled, self.status.value = True, "Stopping: the model finishes its current piece of text."

    def _start(self) -> None:
        question = self.question.value.strip()
        if self.ask.disabled or not question:
            return
        options = {"max_tokens": self.max_tokens.value}
        if self.model.value not in self._greedy_only:
            options["temperature"] = self.temperature.value
        request = {"messages": [*self.messages, {"role": "user", "content": question}], **options}
        self._stopped.clear()
        self.ask.disabled, self.anew.disabled, self.stop.disabled = True, True, False
        self.question.value, self.status.value = "", "Waiting for the first piece of text."
        self.current.value = _turn("You", question)
        # A thread of its own: the kernel must stay free to hear the Stop button.
        self.thread = threading.Thread(target=self._answer, args=(self.model.value, request), daemon=True)
        self.thread.start()

    def _answer(self, name: str, request: dict[str, Any]) -> None:
        asked, answer, drawn = request["messages"][-1], _Answer(), 0.0
        said = self.current.value
        try:
            with closing(self._models[name](request)) as chunks:
                for chunk in chunks:
                    if self._stopped.is_set():
                        break
                    answer.take(chunk)
                    if time.perf_counter() - drawn > REDRAW_SECONDS:
                        self.current.value, self.status.value = said + _turn(name, answer.text), answer.speed()
                        drawn = time.perf_counter()
        except Exception as error:  # a thread's exception would reach nobody
            self.current.value, self.status.value = "", escape(_sentence(error))
            self.question.value = self.question.value or asked["content"]
        else:
            self.status.value = "Stopped. " * self._stopped.is_set() + answer.speed()
            self.current.value = said + _turn(name, answer.text)
            if answer.text.strip():  # a turn without words is none: the next request would be refused for it
                self.turns += [("You", asked), (name, {"role": "assistant", "content": answer.text})]
                self.past.value, self.current.value = self.past.value + self.current.value, ""
        finally:
            self.ask.disabled, self.anew.disabled, self.stop.disabled = False, False, True


class _Answer:
    """An answer in the making: its text, and how fast it comes."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.text, self._pieces = "", 0
        self._usage: dict[str, int] = {}
        self._finish_reason = ""

    def take(self, chunk: dict[str, Any]) -> None:
        choice = chunk["choices"][0]
        piece = choice.get("delta", choice.get("message", {})).get("content") or ""
        self.text += piece
        self._pieces += bool(piece)
        self._usage = chunk.get("usage") or self._usage
        self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def speed(self) -> str:
        """Until the model has counted, each piece of text passes for a token."""
        seconds = time.perf_counter() - self._start
        tokens = self._usage.get("completion_tokens", self._pieces)
        told = f"{tokens} token{'s' * (tokens != 1)} in {seconds:.1f} s: {tokens / max(seconds, 1e-6):.1f} tokens/s"
        if not self._usage:
            return f"About {told}."
        cut = " Cut off at max_tokens." if self._finish_reason == "length" else ""
        return f"{told}, which includes reading {self._usage['prompt_tokens']} tokens.{cut}"


def _turn(speaker: str, text: str) -> str:
    return f'<div style="{AS_TYPED}"><strong>{escape(speaker)}:</strong> {escape(text)}</div>'


def _sentence(error: Exception) -> str:
    """One line: ours are sentences already, a library's may be a page."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return said if isinstance(error, Phi3KitError) else f"{type(error).__name__}: {said}"
