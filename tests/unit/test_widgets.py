"""The forms on fake models, used by a program; and what they print under papermill and nbval."""

import threading

import pytest
from mlflow.exceptions import MlflowException

from phi3kit.errors import InvalidRequest
from phi3kit.workbook.lesson.widgets import ChatForm, SamplingForm, distribution, explore_sampling, talk

SPITE = "<img src=x onerror=alert(1)>"
HARMLESS = "&lt;img src=x onerror=alert(1)&gt;"
WAIT = 30


def chunk(text=None, finish_reason=None, **more):
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}


def end(tokens, finish_reason="stop"):
    return chunk(finish_reason=finish_reason, usage={"prompt_tokens": 9, "completion_tokens": tokens})


class Model:
    """A fake model: it yields its pieces, records the requests, and notes when its generator is closed."""

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


class Paused(Model):
    """A fake model that waits after its first piece."""

    def __init__(self):
        super().__init__("first", " second", " third")
        self.started, self.proceed = threading.Event(), threading.Event()

    def __call__(self, request):
        for i, piece in enumerate(super().__call__(request)):
            if i == 1:
                self.started.set()
                assert self.proceed.wait(WAIT)
            yield piece


def form(models, question="Hello?", max_tokens=5, temperature=0.0, greedy_only=()):
    return ChatForm(models, question, max_tokens, temperature, greedy_only)


def ask(chat, question=None):
    """Ask, and wait for the end of the answer."""
    chat.question.value = question or chat.question.value
    chat.ask.click()
    wait(chat)


def wait(chat):
    chat.thread.join(timeout=WAIT)
    assert not chat.thread.is_alive()


def disabled(chat):
    return {name for name in ("ask", "restart", "stop") if getattr(chat, name).disabled}


def conversation(chat):
    return chat.past.value + chat.current.value


# Chat


@pytest.fixture(scope="module")
def answered():
    """A form after one answer, and its model."""
    model = Model("Good ", "day.")
    chat = form({"model": model})
    chat.max_tokens.value, chat.temperature.value = 7, 1.5
    ask(chat, "And now?")
    return chat, model


def test_the_conversation_shows_question_and_answer(answered):
    text = conversation(answered[0])
    assert "And now?" in text
    assert "Good day." in text


def test_the_request_has_the_options_of_the_form(answered):
    messages = [{"role": "user", "content": "And now?"}]
    assert answered[1].requests == [{"messages": messages, "max_tokens": 7, "temperature": 1.5}]


@pytest.mark.parametrize("part", ["2 tokens in ", "tokens/s", "reading 9 tokens"])
def test_the_status_tells_tokens_and_speed(answered, part):
    assert part in answered[0].status.value


def test_after_an_answer_the_next_question_can_be_asked(answered):
    chat, _ = answered
    assert (chat.question.value, disabled(chat)) == ("", {"stop"})


@pytest.fixture
def paused():
    """A form whose model waits after its first piece, and the model."""
    model = Paused()
    chat = form({"model": model})
    chat.ask.click()
    assert model.started.wait(WAIT)
    yield chat, model
    model.proceed.set()
    wait(chat)


def test_an_incomplete_answer_is_shown(paused):
    text = conversation(paused[0])
    assert "first" in text
    assert "second" not in text


def test_an_incomplete_answer_has_a_speed(paused):
    status = paused[0].status.value
    assert status.startswith("About 1 token in ")
    assert "tokens/s" in status


def test_during_an_answer_only_stop_is_enabled(paused):
    assert disabled(paused[0]) == {"ask", "restart"}


def test_during_an_answer_no_other_can_start(paused):
    chat, model = paused
    chat.question.value = "Quick?"
    chat.ask.click()
    model.proceed.set()
    wait(chat)
    assert "first second third" in conversation(chat)
    assert len(model.requests) == 1


def stop(chat, model):
    chat.stop.click()
    model.proceed.set()
    wait(chat)


def test_stop_waits_for_the_current_piece(paused):
    chat, model = paused
    chat.stop.click()
    assert "Stopping" in chat.status.value
    assert not model.closed.is_set()


def test_stop_closes_the_generator(paused):
    chat, model = paused
    stop(chat, model)
    assert model.closed.is_set()


def test_stop_keeps_the_first_pieces(paused):
    chat, model = paused
    stop(chat, model)
    assert chat.messages[-1] == {"role": "assistant", "content": "first"}
    assert "second" not in conversation(chat)


def test_a_stopped_answer_is_reported_and_stays_so(paused):
    chat, model = paused
    stop(chat, model)
    chat.stop.click()
    assert chat.status.value.startswith("Stopped. About 1 token")


@pytest.fixture(scope="module")
def two_models():
    """A form after a conversation with two models, one after the other, and the second model."""
    other = Model("Good night.")
    chat = form({"one": Model("Good day."), "other": other})
    ask(chat, "Hello?")
    chat.model.value = "other"
    ask(chat, "And now?")
    return chat, other


def test_the_second_model_reads_what_the_first_said(two_models):
    assert two_models[1].requests[0]["messages"] == [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "And now?"},
    ]


def test_each_turn_names_its_speaker(two_models):
    chat, _ = two_models
    assert [speaker for speaker, _ in chat.turns] == ["You", "one", "You", "other"]
    assert all(f"{name}:" in conversation(chat) for name in ("one", "other"))


def test_a_conversation_can_be_restarted():
    chat = form({"model": (model := Model("Good day."))})
    ask(chat, "Hello?")
    chat.restart.click()
    assert (conversation(chat), chat.status.value) == ("", "")
    ask(chat, "Who?")
    assert len(model.requests[1]["messages"]) == 1


@pytest.mark.parametrize(("names", "visible"), [(["one"], False), (["one", "other"], True)], ids=str)
def test_only_several_models_need_a_picker(names, visible):
    chat = form({name: Model() for name in names})
    assert (chat.model in chat.box.children) == visible


@pytest.mark.parametrize("name", ["greedy", "free"])
def test_a_greedy_model_has_no_slider_for_temperature(name):
    chat = form({"greedy": Model("a"), "free": (Model("b"))}, temperature=0.5, greedy_only=["greedy"])
    chat.model.value = name
    assert chat.temperature.layout.display == ("none" if name == "greedy" else None)


@pytest.mark.parametrize("name", ["greedy", "free"])
def test_a_greedy_model_gets_no_temperature(name):
    models = {"greedy": Model("a"), "free": Model("b")}
    chat = form(models, temperature=0.5, greedy_only=["greedy"])
    chat.model.value = name
    ask(chat)
    assert ("temperature" in models[name].requests[0]) == (name == "free")


def test_an_empty_question_is_not_asked():
    chat = form({"model": Model("Good day.")}, question=" ")
    chat.ask.click()
    assert chat.thread is None


def test_enter_asks():
    chat = form({"model": (model := Model("Good day."))})
    chat.question._handle_custom_msg({"event": "submit"}, [])  # what the browser sends
    wait(chat)
    assert len(model.requests) == 1


def test_an_answer_that_was_cut_off_is_reported():
    chat = form({"cut": Model("Good", finish_reason="length")})
    ask(chat)
    assert "Cut off at max_tokens." in chat.status.value


def test_an_empty_answer_is_no_turn():
    chat = form({"mute": Model()})
    ask(chat)
    assert chat.turns == []
    assert "Cut off" not in chat.status.value


def failed(error):
    def model(request):
        yield chunk("half of an ")
        raise error

    chat = form({"model": model})
    ask(chat, "Hello?")
    return chat


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (InvalidRequest("top_p", 5, "less"), "top_p=5 is not allowed: give less."),
        (MlflowException("too long\nFile somewhere, line 3"), "MlflowException: too long"),
        (OSError(), "OSError: no message"),
        (ValueError(SPITE), f"ValueError: {HARMLESS}"),
    ],
)
def test_an_error_is_one_sentence(error, sentence):
    assert failed(error).status.value == sentence


def test_after_an_error_the_question_can_be_asked_again():
    chat = failed(OSError())
    assert (conversation(chat), chat.messages, chat.question.value, disabled(chat)) == ("", [], "Hello?", {"stop"})


def test_text_in_a_chat_is_never_markup():
    chat = form({SPITE: Model(SPITE)})
    ask(chat, SPITE)
    assert conversation(chat).count(HARMLESS) == 3
    assert "<img" not in conversation(chat) + chat.status.value


CHAT_CONTROLS = ["model", "question", "max_tokens", "temperature", "ask", "stop", "restart"]


@pytest.mark.parametrize("control", CHAT_CONTROLS)
def test_a_control_of_the_chat_has_a_description(control):
    assert getattr(form({"one": Model(), "other": Model()}), control).description


# Sampling

HALVES = [0.5, 0.25, 0.125, 0.0625]
CANDIDATES = [("What", 0.5), (" why", 0.25), ("\n", 0.125), (SPITE, 0.0625)]


@pytest.mark.parametrize("control", ["temperature", "top_p", "top_k"])
def test_a_control_of_sampling_has_a_description(control):
    assert getattr(SamplingForm(CANDIDATES), control).description


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
def test_top_k_then_temperature_then_top_p(setting, expected):
    assert distribution(HALVES, *setting) == pytest.approx(expected)


def test_no_temperature_breaks_the_arithmetic():
    assert distribution([0.9, 1e-30, 0.0], 0.01, 1, 3) == pytest.approx([1, 0, 0])
    assert sum(distribution([0.9, 1e-30, 0.0], 2, 0.99, 3)) == pytest.approx(1)


@pytest.fixture
def explorer():
    return SamplingForm(CANDIDATES)


def test_at_first_no_token_is_cut(explorer):
    explorer.top_p.value = 1
    assert explorer.summary.value.startswith("4 of 4 tokens can be drawn (top_k cut 0, top_p cut 0).")


def test_a_bar_is_as_long_as_its_probability(explorer):
    explorer.top_p.value = 1
    assert "53.3%" in explorer.bars.value
    assert "12.80em" in explorer.bars.value


@pytest.fixture
def cut(explorer):
    explorer.top_k.value, explorer.top_p.value = 3, 0.7
    return explorer


def test_the_summary_follows_the_sliders(cut):
    assert cut.summary.value.startswith("2 of 4 tokens can be drawn (top_k cut 1, top_p cut 1).")


def test_the_summary_names_the_greedy_token(cut):
    assert "Greedy would take &#x27;What&#x27;" in cut.summary.value


def test_the_bars_follow_the_sliders(cut):
    assert "66.7%" in cut.bars.value


@pytest.mark.parametrize("option", ["top_k", "top_p"])
def test_a_cut_token_names_the_option_that_cut_it(cut, option):
    assert cut.bars.value.count(f"cut by {option}") == 1


def test_the_summary_says_that_temperature_0_is_greedy(explorer):
    explorer.temperature.value = 0
    assert explorer.summary.value.startswith("Temperature 0 is greedy: it takes &#x27;What&#x27; every time")


def test_temperature_0_takes_one_token(explorer):
    explorer.temperature.value = 0
    assert "100.0%" in explorer.bars.value
    assert explorer.bars.value.count("not taken") == 3


def test_tokens_are_text_and_never_markup():
    explorer = SamplingForm([(SPITE, 0.9), ("\n", 0.1)])
    assert "<img" not in explorer.bars.value + explorer.summary.value
    assert HARMLESS in explorer.bars.value
    assert HARMLESS in explorer.summary.value


def test_white_space_in_a_token_is_visible():
    assert r"\n" in SamplingForm([("a", 0.9), ("\n", 0.1)]).bars.value


def test_of_many_tokens_the_likeliest_have_a_row():
    explorer = SamplingForm([(f"token{i}", 1 / 40) for i in range(40)])
    assert explorer.bars.value.count("<code>") == 16


def test_the_tokens_without_a_row_are_counted():
    explorer = SamplingForm([(f"token{i}", 1 / 40) for i in range(40)])
    explorer.top_p.value = 0.5
    assert "And 24 more, 4 of which can be drawn." in explorer.bars.value


def test_no_candidates_are_refused():
    with pytest.raises(InvalidRequest, match="candidates"):
        explore_sampling([])


# Under papermill or nbval, and in Jupyter


@pytest.fixture
def batch(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


@pytest.fixture
def displays(monkeypatch):
    """What was displayed in Jupyter."""
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    displays = []
    monkeypatch.setattr("IPython.display.display", displays.append)
    return displays


@pytest.fixture
def talked(batch, capsys):
    """What a chat with two models prints, and the models."""
    one, other = Model("Good ", "day."), Model("Never asked.")
    assert talk({"one": one, "other": other}, "Hello?", max_tokens=3, greedy_only=["other"]) is None
    return capsys.readouterr().out, one, other


def test_in_a_batch_question_and_answer_are_printed(talked):
    assert talked[0].startswith("You: Hello?\none: Good day.\n")


def test_in_a_batch_the_first_model_is_asked(talked):
    messages = [{"role": "user", "content": "Hello?"}]
    assert talked[1].requests == [{"messages": messages, "max_tokens": 3, "temperature": 0.0}]


def test_in_a_batch_the_second_model_is_not_asked(talked):
    assert talked[2].requests == []


@pytest.fixture
def explored(batch, capsys):
    assert explore_sampling(CANDIDATES) is None
    return capsys.readouterr().out


@pytest.mark.parametrize("part", ["temperature 0.5", "temperature 1.5", "'What'", "cut by top_p"])
def test_in_a_batch_two_settings_are_printed(explored, part):
    assert part in explored


def test_in_a_batch_a_chat_says_what_jupyter_shows(talked):
    assert "In JupyterLab, this cell shows" in talked[0].splitlines()[-1]


def test_in_a_batch_sampling_says_what_jupyter_shows(explored):
    assert "In JupyterLab, this cell shows" in explored.splitlines()[-1]


@pytest.mark.parametrize(
    ("show", "name"),
    [(lambda: talk({"model": Model()}, "Who?"), "chat"), (lambda: explore_sampling(CANDIDATES), "sampling")],
    ids=["chat", "sampling"],
)
def test_in_jupyter_a_form_is_displayed_under_its_class(displays, show, name):
    form = show()
    assert displays == [form.box]
    assert form.box._dom_classes == (f"phi3kit-{name}",)


def test_candidates_are_sorted(displays):
    assert "take &#x27;What&#x27;" in explore_sampling(CANDIDATES[::-1]).summary.value
