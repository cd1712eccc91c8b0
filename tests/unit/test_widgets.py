"""The forms, driven without a mouse, on models that are played; and what they print where nobody watches."""

import threading

import pytest
from mlflow.exceptions import MlflowException

from phi3kit.errors import InvalidRequest
from phi3kit.workbook.widgets import ChatForm, SamplingForm, drawn, explore_sampling, talk

SPITE = "<img src=x onerror=alert(1)>"
HARMLESS = "&lt;img src=x onerror=alert(1)&gt;"
WAIT = 30


def chunk(text=None, finish_reason=None, **more):
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}


def end(tokens, finish_reason="stop"):
    return chunk(finish_reason=finish_reason, usage={"prompt_tokens": 9, "completion_tokens": tokens})


class Model:
    """A played model: says its pieces, keeps the requests, and tells when its generator is closed."""

    def __init__(self, *pieces, finish_reason="stop"):
        self.pieces, self.finish_reason = pieces, finish_reason
        self.requests, self.closed = [], threading.Event()

    def __call__(self, request):
        self.requests.append(request)
        try:
            for piece in self.pieces:
                yield chunk(piece)
            yield end(len(self.pieces), self.finish_reason)
        finally:
            self.closed.set()


class Held(Model):
    """A played model that waits after its first piece until it may go on."""

    def __init__(self):
        super().__init__("first", " second", " third")
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, request):
        for i, piece in enumerate(super().__call__(request)):
            if i == 1:
                self.begun.set()
                assert self.go_on.wait(WAIT)
            yield piece


def form(models, question="Hello?", max_tokens=5, temperature=0.0, greedy_only=()):
    return ChatForm(models, question, max_tokens, temperature, greedy_only)


def ask(chat, question=None):
    """Ask, and wait for the end of the answer."""
    chat.question.value = question or chat.question.value
    chat.ask.click()
    answered(chat)


def answered(chat):
    chat.thread.join(timeout=WAIT)
    assert not chat.thread.is_alive()
    assert (chat.ask.disabled, chat.anew.disabled, chat.stop.disabled) == (False, False, True)


def conversation(chat):
    return chat.past.value + chat.current.value


# Chat


def test_the_answer_comes_with_the_options_set_in_the_form_and_its_speed():
    model = Model("Good ", "day.")
    chat = form({"model": model})
    chat.max_tokens.value, chat.temperature.value = 7, 1.5
    ask(chat, "And now?")
    assert "And now?" in conversation(chat) and "Good day." in conversation(chat)
    asked = [{"role": "user", "content": "And now?"}]
    assert model.requests == [{"messages": asked, "max_tokens": 7, "temperature": 1.5}]
    assert chat.status.value.startswith("2 tokens in ") and "tokens/s" in chat.status.value
    assert "reading 9 tokens" in chat.status.value
    assert chat.question.value == ""


def test_while_the_answer_comes_it_is_shown_with_its_speed():
    chat = form({"model": (held := Held())})
    chat.ask.click()
    assert held.begun.wait(WAIT)
    assert "first" in conversation(chat) and "second" not in conversation(chat)
    assert chat.status.value.startswith("About 1 token in ") and "tokens/s" in chat.status.value
    assert (chat.ask.disabled, chat.anew.disabled, chat.stop.disabled) == (True, True, False)
    chat.question.value = "Quick?"
    chat.ask.click()  # one answer at a time
    held.go_on.set()
    answered(chat)
    assert "first second third" in conversation(chat)
    assert len(held.requests) == 1


def test_stop_closes_the_generator_and_keeps_what_had_come():
    chat = form({"model": (held := Held())})
    chat.ask.click()
    assert held.begun.wait(WAIT)
    chat.stop.click()
    assert "Stopping" in chat.status.value
    assert not held.closed.is_set()
    held.go_on.set()
    answered(chat)
    assert held.closed.is_set()
    assert "first" in conversation(chat) and "second" not in conversation(chat)
    assert chat.status.value.startswith("Stopped. About 1 token")
    assert chat.messages[-1] == {"role": "assistant", "content": "first"}
    chat.stop.click()
    assert chat.status.value.startswith("Stopped.")


def test_the_conversation_goes_on_with_another_model_and_can_begin_anew():
    one, other = Model("Good day."), Model("Good night.")
    chat = form({"one": one, "other": other})
    ask(chat, "Hello?")
    chat.model.value = "other"
    ask(chat, "And now?")
    assert [m["content"] for m in other.requests[0]["messages"]] == ["Hello?", "Good day.", "And now?"]
    assert [m["role"] for m in other.requests[0]["messages"]] == ["user", "assistant", "user"]
    assert [speaker for speaker, _ in chat.turns] == ["You", "one", "You", "other"]
    assert "one:" in conversation(chat) and "other:" in conversation(chat)
    chat.anew.click()
    assert (conversation(chat), chat.status.value) == ("", "")
    ask(chat, "Who?")
    assert len(other.requests[1]["messages"]) == 1


def test_one_model_needs_no_picker_and_a_model_that_takes_no_temperature_has_no_slider_for_it():
    assert form({"one": Model()}).model not in form({"one": Model()}).box.children
    greedy, free = Model("a"), Model("b")
    chat = form({"greedy": greedy, "free": free}, temperature=0.5, greedy_only=["greedy"])
    assert chat.model in chat.box.children
    assert chat.temperature.layout.display == "none"
    ask(chat, "Hello?")
    chat.model.value = "free"
    assert chat.temperature.layout.display is None
    ask(chat, "Hello?")
    assert ["temperature" in model.requests[0] for model in (greedy, free)] == [False, True]


def test_enter_asks_and_an_empty_question_does_not():
    chat = form({"model": (model := Model("Good day."))}, question=" ")
    chat.ask.click()
    assert chat.thread is None
    chat.question.value = "Hello?"
    chat.question._handle_custom_msg({"event": "submit"}, [])  # what the browser sends
    answered(chat)
    assert len(model.requests) == 1


def test_an_answer_cut_off_says_so_and_one_without_words_is_no_turn():
    chat = form({"cut": Model("Good", finish_reason="length"), "mute": Model()})
    ask(chat, "Hello?")
    assert "Cut off at max_tokens." in chat.status.value
    chat.model.value = "mute"
    ask(chat, "And now?")
    assert len(chat.turns) == 2
    assert "Cut off" not in chat.status.value


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (InvalidRequest("top_p", 5, "less"), "top_p=5 is not allowed: give less."),
        (MlflowException("too long\nFile somewhere, line 3"), "MlflowException: too long"),
        (OSError(), "OSError: no message"),
        (ValueError(SPITE), f"ValueError: {HARMLESS}"),
    ],
)
def test_an_error_is_one_sentence_and_the_question_can_be_asked_again(error, shown):
    def model(request):
        yield chunk("half of an ")
        raise error

    chat = form({"model": model})
    ask(chat, "Hello?")
    assert chat.status.value == shown
    assert (conversation(chat), chat.messages, chat.question.value) == ("", [], "Hello?")


def test_what_is_said_in_a_chat_is_text_and_never_markup():
    chat = form({SPITE: Model(SPITE)})
    ask(chat, SPITE)
    assert conversation(chat).count(HARMLESS) == 3
    assert "<img" not in conversation(chat) + chat.status.value


def test_every_control_has_a_description():
    chat, sampling = form({"one": Model(), "other": Model()}), SamplingForm(CANDIDATES)
    controls = [chat.model, chat.question, chat.max_tokens, chat.temperature, chat.ask, chat.stop, chat.anew]
    controls += [sampling.temperature, sampling.top_p, sampling.top_k]
    assert all(control.description for control in controls)


# Sampling

HALVES = [0.5, 0.25, 0.125, 0.0625]
CANDIDATES = [("What", 0.5), (" why", 0.25), ("\n", 0.125), (SPITE, 0.0625)]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ((0, 0.1, 1), [1]),
        ((0, 1, 4), [1]),
        ((1, 1, 4), [8 / 15, 4 / 15, 2 / 15, 1 / 15]),
        ((1, 1, 2), [2 / 3, 1 / 3]),
        ((1, 1, 50), [8 / 15, 4 / 15, 2 / 15, 1 / 15]),
        ((0.5, 1, 2), [4 / 5, 1 / 5]),
        # The temperature counts before top_p: a hot one lets more tokens in, a cool one fewer.
        ((1, 0.7, 4), [2 / 3, 1 / 3]),
        ((2, 0.8, 3), [2**1.5 / (2**1.5 + 2 + 2**0.5), 2 / (2**1.5 + 2 + 2**0.5), 2**0.5 / (2**1.5 + 2 + 2**0.5)]),
        ((0.5, 0.7, 4), [1]),
        # And top_k counts before top_p: of two tokens alone, the first has more than 0.6.
        ((1, 0.6, 4), [2 / 3, 1 / 3]),
        ((1, 0.6, 2), [1]),
        ((1, 1e-6, 4), [1]),
    ],
)
def test_what_is_drawn_is_cut_by_top_k_bent_by_temperature_and_cut_by_top_p(setting, expected):
    assert drawn(HALVES, *setting) == pytest.approx(expected)


def test_no_temperature_breaks_the_arithmetic():
    assert drawn([0.9, 1e-30, 0.0], 0.01, 1, 3) == pytest.approx([1, 0, 0])
    assert sum(drawn([0.9, 1e-30, 0.0], 2, 0.99, 3)) == pytest.approx(1)


def test_the_bars_and_the_words_follow_the_sliders():
    explorer = SamplingForm(CANDIDATES)
    explorer.top_p.value = 1
    assert explorer.summary.value.startswith("4 of 4 tokens can be drawn (top_k cut 0, top_p cut 0).")
    assert "53.3%" in explorer.bars.value and "12.80em" in explorer.bars.value
    explorer.top_k.value = 3
    explorer.top_p.value = 0.7
    assert explorer.summary.value.startswith("2 of 4 tokens can be drawn (top_k cut 1, top_p cut 1).")
    assert "Greedy would take &#x27;What&#x27;" in explorer.summary.value
    assert "66.7%" in explorer.bars.value
    assert (explorer.bars.value.count("cut by top_k"), explorer.bars.value.count("cut by top_p")) == (1, 1)
    explorer.temperature.value = 0
    assert explorer.summary.value.startswith("Temperature 0 is greedy: it takes &#x27;What&#x27; every time")
    assert "100.0%" in explorer.bars.value and explorer.bars.value.count("not taken") == 3


def test_tokens_are_text_and_never_markup_and_white_space_can_be_seen():
    explorer = SamplingForm([(SPITE, 0.9), ("\n", 0.1)])
    assert "<img" not in explorer.bars.value + explorer.summary.value
    assert HARMLESS in explorer.bars.value and HARMLESS in explorer.summary.value
    assert r"\n" in explorer.bars.value


def test_of_many_tokens_the_likeliest_are_shown_and_the_others_counted():
    explorer = SamplingForm([(f"token{i}", 1 / 40) for i in range(40)])
    explorer.top_p.value = 0.5
    assert explorer.bars.value.count("<code>") == 16
    assert "And 24 more, 4 of which can be drawn." in explorer.bars.value


def test_no_candidates_are_refused():
    with pytest.raises(InvalidRequest, match="candidates"):
        explore_sampling([])


# Where nobody watches, and where somebody does


@pytest.fixture
def nobody(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


@pytest.fixture
def displayed(monkeypatch):
    """What was displayed in Jupyter."""
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    displayed = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    return displayed


def test_where_nobody_watches_the_first_model_is_asked_and_its_answer_printed(nobody, capsys):
    one, other = Model("Good ", "day."), Model("Never asked.")
    assert talk({"one": one, "other": other}, "Hello?", max_tokens=3, greedy_only=["other"]) is None
    said = capsys.readouterr().out
    assert said.startswith("You: Hello?\none: Good day.\n")
    assert "In JupyterLab, this cell shows" in said.splitlines()[-1]
    assert one.requests == [{"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 3, "temperature": 0.0}]
    assert other.requests == []


def test_where_nobody_watches_two_settings_are_printed(nobody, capsys):
    assert explore_sampling(CANDIDATES) is None
    said = capsys.readouterr().out
    assert "temperature 0.5" in said and "temperature 1.5" in said
    assert "'What'" in said and "cut by top_p" in said
    assert "In JupyterLab, this cell shows" in said.splitlines()[-1]


def test_in_jupyter_the_forms_are_shown_under_their_classes(displayed):
    forms = [talk({"model": Model()}, "Who?"), explore_sampling(CANDIDATES[::-1])]
    assert "take &#x27;What&#x27;" in forms[1].summary.value  # likeliest first, however they came
    assert displayed == [form.box for form in forms]
    assert [box._dom_classes for box in displayed] == [("phi3kit-chat",), ("phi3kit-sampling",)]
