"""The form that asks a model by hand, driven without a mouse; and what stands in for it where nobody watches."""

import threading

import pytest

from phi3kit.errors import InvalidRequest
from phi3kit.workbook.widgets import AskForm, ask


def asked(answer, **options):
    """A form whose Ask button was clicked and whose answer has come."""
    form = AskForm(answer, "Hello?", **{"max_tokens": 5, "temperature": 0.0} | options)
    form.ask.click()
    form.thread.join(timeout=30)
    assert not form.thread.is_alive()
    return form


def test_the_answer_streams_into_the_form_with_the_options_set_there():
    seen = []

    def answer(question, options):
        seen.append((question, options))
        yield from ("Good ", "day.")

    form = AskForm(answer, "Hello?", 5, 0.0)
    form.question.value, form.max_tokens.value, form.temperature.value = "And now?", 7, 1.5
    form.ask.click()
    form.thread.join(timeout=30)
    assert form.text.value == "Good day."
    assert seen == [("And now?", {"max_tokens": 7, "temperature": 1.5})]
    assert (form.ask.disabled, form.stop.disabled) == (False, True)


def test_stop_closes_the_generation_and_keeps_what_had_come():
    begun, stopped, closed = threading.Event(), threading.Event(), threading.Event()

    def answer(question, options):
        try:
            yield "first"
            begun.set()
            assert stopped.wait(30)
            yield " second"
            yield " third"
        finally:
            closed.set()

    form = AskForm(answer, "Hello?", 5, 0.0)
    form.ask.click()
    assert begun.wait(30)
    assert (form.ask.disabled, form.stop.disabled) == (True, False)
    form.stop.click()
    stopped.set()
    form.thread.join(timeout=30)
    assert closed.is_set()
    assert "third" not in form.text.value
    assert form.text.value.startswith("first")


def test_what_the_model_says_is_text_and_never_markup():
    form = asked(lambda question, options: iter(["<img src=x onerror=alert(1)>"]))
    assert form.text.value == "<img src=x onerror=alert(1)>"
    assert type(form.text).__name__ == "Textarea"


@pytest.mark.parametrize(
    ("error", "shown"),
    [(InvalidRequest("question", "", "a text"), "question='' is not allowed: give a text."), (OSError("gone"), "gone")],
)
def test_an_error_is_shown_in_the_form_and_frees_it(error, shown):
    def answer(question, options):
        raise error
        yield

    form = asked(answer)
    assert shown in form.text.value
    assert not form.ask.disabled


def test_where_nobody_watches_the_question_is_asked_and_printed(monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert ask(lambda question, options: iter([question, str(options)]), "Who?", max_tokens=3) is None
    said = capsys.readouterr().out
    assert "Question: Who?" in said
    assert "Answer:   Who?{'max_tokens': 3, 'temperature': 0.0}" in said


def test_in_jupyter_the_form_is_shown(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    form = ask(lambda question, options: iter(()), "Who?")
    assert shown == [form.box]
