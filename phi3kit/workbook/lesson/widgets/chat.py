"""A chat form: choose a model, ask, read the answer while it is generated, stop it, continue or start again."""

import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing
from html import escape
from typing import Any

from phi3kit.chat.openai import Gathered
from phi3kit.errors import Phi3KitError
from phi3kit.workbook.lesson.widgets.layout import AS_TYPED, LABELLED, box, display
from phi3kit.workbook.running.session import is_interactive

Model = Callable[[dict[str, Any]], Generator[dict[str, Any], None, None]]
REDRAW_SECONDS = 0.05  # at least; each redrawing is a message to the browser


def talk(
    models: Mapping[str, Model],
    question: str,
    max_tokens: int = 64,
    temperature: float = 0.0,
    greedy_only: Collection[str] = (),
) -> "ChatForm | None":
    """Show a chat form that keeps the conversation and measures the speed.

    Args:
        models: for each name, a generator function that takes a chat request (a dict with `messages` and options) and
            yields completion chunks in OpenAI's shape, or one whole completion; closing it stops the model.
        question: the question with which the form opens.
        max_tokens: the longest answer, in tokens.
        temperature: 0 for greedy.
        greedy_only: names of the models that take no temperature; the form hides its slider for them.

    Returns:
        The form; None under papermill or nbval, where the first model answers at once and its answer is printed.
    """
    if is_interactive():
        return display(ChatForm(models, question, max_tokens, temperature, greedy_only))
    name, model = next(iter(models.items()))
    options = {"max_tokens": max_tokens} | ({} if name in greedy_only else {"temperature": temperature})
    answer = _Answer()
    for chunk in model({"messages": [{"role": "user", "content": question}], **options}):
        answer.add(chunk)
    print(f"You: {question}\n{name}: {answer.text}\n")
    print(f"In JupyterLab, this cell shows a chat with {' or '.join(models)}.")
    return None


class ChatForm:
    """The form behind `talk`; its controls are attributes, so that a program can use them.

    Attributes:
        turns: the speaker and the message of each turn of the conversation.
        thread: answers the latest question.
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
        self.restart = w.Button(description="New conversation")
        # With this direction, a conversation that is longer than the box shows its end.
        upwards = {"flex_flow": "column-reverse", "max_height": "24em", "overflow": "auto", "flex": "0 1 auto"}
        conversation = w.Box([w.VBox([self.past, self.current])], layout=upwards)
        self.box = box(
            "chat",
            *([self.model] if len(models) > 1 else []),
            self.max_tokens,
            self.temperature,
            conversation,
            self.question,
            w.HBox([self.ask, self.stop, self.restart]),
            self.status,
        )
        self.ask.on_click(lambda _: self._start())
        self.question.on_msg(lambda _, content, __: content.get("event") == "submit" and self._start())  # the Enter key
        self.stop.on_click(lambda _: self._stop())
        self.restart.on_click(lambda _: self._restart())
        self.model.observe(lambda _: self._fit_to_model(), "value")
        self._fit_to_model()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation so far, as the next request sends it."""
        return [message for _, message in self.turns]

    def _fit_to_model(self) -> None:
        self.temperature.layout.display = "none" if self.model.value in self._greedy_only else None

    def _restart(self) -> None:
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
        self.ask.disabled, self.restart.disabled, self.stop.disabled = True, True, False
        self.question.value, self.status.value = "", "Waiting for the first piece of text."
        self.current.value = _turn("You", question)
        # In a thread, so that the kernel can handle a click on Stop meanwhile.
        self.thread = threading.Thread(target=self._answer, args=(self.model.value, request), daemon=True)
        self.thread.start()

    def _answer(self, name: str, request: dict[str, Any]) -> None:
        question, answer, redrawn = request["messages"][-1], _Answer(), 0.0
        before = self.current.value
        try:
            with closing(self._models[name](request)) as chunks:
                for chunk in chunks:
                    if self._stopped.is_set():
                        break
                    answer.add(chunk)
                    if time.perf_counter() - redrawn > REDRAW_SECONDS:
                        self.current.value, self.status.value = before + _turn(name, answer.text), answer.speed()
                        redrawn = time.perf_counter()
        except Exception as error:  # an exception that leaves a thread is lost
            self.current.value, self.status.value = "", escape(_sentence(error))
            self.question.value = self.question.value or question["content"]
        else:
            self.status.value = "Stopped. " * self._stopped.is_set() + answer.speed()
            self.current.value = before + _turn(name, answer.text)
            if answer.text.strip():  # the next request would be refused for an empty turn
                self.turns += [("You", question), (name, {"role": "assistant", "content": answer.text})]
                self.past.value, self.current.value = self.past.value + self.current.value, ""
        finally:
            self.ask.disabled, self.restart.disabled, self.stop.disabled = False, False, True


class _Answer(Gathered):
    """An answer while it is generated, with its speed."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.perf_counter()
        self._pieces = 0

    def add(self, chunk: dict[str, Any]) -> str:
        piece = super().add(chunk)
        self._pieces += bool(piece)
        return piece

    def speed(self) -> str:
        """Return tokens, seconds and tokens per second; without the model's own count, a piece counts as a token."""
        seconds = time.perf_counter() - self._start
        tokens = self.usage.get("completion_tokens", self._pieces)
        speed = f"{tokens} token{'s' * (tokens != 1)} in {seconds:.1f} s: {tokens / max(seconds, 1e-6):.1f} tokens/s"
        if not self.usage:
            return f"About {speed}."
        cut = " Cut off at max_tokens." if self.finish_reason == "length" else ""
        return f"{speed}, which includes reading {self.usage['prompt_tokens']} tokens.{cut}"


def _turn(speaker: str, text: str) -> str:
    return f'<div style="{AS_TYPED}"><strong>{escape(speaker)}:</strong> {escape(text)}</div>'


def _sentence(error: Exception) -> str:
    """Return the first line of an error's message; a library's may be a page long."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return line if isinstance(error, Phi3KitError) else f"{type(error).__name__}: {line}"
