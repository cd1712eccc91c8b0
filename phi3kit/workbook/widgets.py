"""A form to ask a model by hand; where nobody watches, the same call asks once and prints."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from phi3kit.errors import Phi3KitError
from phi3kit.workbook.session import somebody_watches

Answer = Callable[[str, dict[str, Any]], Iterator[str]]


def ask(answer: Answer, question: str, max_tokens: int = 64, temperature: float | None = 0.0) -> "AskForm | None":
    """Show a form with the question, its options, a Stop button and the answer as it comes.

    Args:
        answer: takes a question and options (`max_tokens`, `temperature`) and gives pieces of text; closing it stops.
        question: what stands in the form at first.
        max_tokens: the longest answer, in tokens.
        temperature: 0 for greedy; None where the model takes none, and the form has no slider for it.

    Returns:
        The form; None under papermill or nbval, where the question is asked at once and the answer printed.
    """
    if not somebody_watches():
        options = {"max_tokens": max_tokens} | ({} if temperature is None else {"temperature": temperature})
        text = "".join(answer(question, options))
        print(f"Question: {question}\nAnswer:   {text}\n\nIn JupyterLab, this cell shows a form to ask by hand.")
        return None
    from IPython.display import display

    form = AskForm(answer, question, max_tokens, temperature)
    display(form.box)
    return form


class AskForm:
    """The form behind `ask`: its widgets are attributes, so that it can be driven without a mouse."""

    def __init__(self, answer: Answer, question: str, max_tokens: int, temperature: float | None) -> None:
        import ipywidgets as w

        wide, label = w.Layout(width="38em"), {"description_width": "7em"}
        self.question = w.Text(question, description="Question", layout=wide, style=label)
        self.max_tokens = w.IntSlider(
            max_tokens, 1, max(256, max_tokens), description="max_tokens", layout=wide, style=label
        )
        self.temperature = w.FloatSlider(
            temperature or 0, min=0, max=2, description="temperature", layout=wide, style=label
        )
        self.options = {"max_tokens": self.max_tokens}
        if temperature is not None:
            self.options["temperature"] = self.temperature
        self.ask = w.Button(description="Ask", button_style="primary")
        self.stop = w.Button(description="Stop", disabled=True)
        # A text area shows what the model says as it is; an HTML widget would obey markup in it.
        self.text = w.Textarea(description="Answer", disabled=True, layout=w.Layout(width="38em", height="9em"))
        self.text.style = label
        self.box = w.VBox([self.question, *self.options.values(), w.HBox([self.ask, self.stop]), self.text])
        self._answer = answer
        self._stopped = threading.Event()
        self.thread: threading.Thread | None = None
        self.ask.on_click(self._start)
        self.stop.on_click(lambda _: self._stopped.set())

    def _start(self, _: object) -> None:
        self._stopped.clear()
        self.ask.disabled, self.stop.disabled, self.text.value = True, False, ""
        # A thread of its own: the kernel must stay free to hear the Stop button.
        self.thread = threading.Thread(target=self._stream, daemon=True)
        self.thread.start()

    def _stream(self) -> None:
        options = {name: slider.value for name, slider in self.options.items()}
        try:
            pieces = self._answer(self.question.value, options)
            for piece in pieces:
                self.text.value += piece
                if self._stopped.is_set():
                    pieces.close()
        except Phi3KitError as error:
            self.text.value = str(error)
        except Exception as error:  # a thread's exception would reach nobody
            self.text.value = f"{type(error).__name__}: {error}"
        finally:
            self.ask.disabled, self.stop.disabled = False, True
