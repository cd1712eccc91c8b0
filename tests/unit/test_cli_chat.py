"""`phi3kit chat` with a scripted model: what the model is asked, and what the terminal gets."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from phi3kit import weights
from phi3kit.chat import messages
from phi3kit.cli import app
from phi3kit.generation import Options
from phi3kit.generation.options import declared


class Scripted:
    """An engine and a template: the answers are scripted, and each prompt is recorded as text."""

    model = SimpleNamespace(context_length=1000)
    finish_reason = "stop"

    def __init__(self):
        self.answers, self.prompts, self.options = [], [], []

    def open(self, folder):
        return self

    __call__ = open

    def encode(self, messages):
        self.prompts.append(" ".join(f"{m['role'][0]}:{m['content']}" for m in messages))
        return list(range(sum(len(m["content"]) for m in messages)))

    def stream(self, ids, options):
        self.options.append(options)
        answer = self.answers.pop(0) if self.answers else ["ok"]
        done = SimpleNamespace(completion_tokens=len(answer), tokens_per_second=20.0, finish_reason=self.finish_reason)
        return nullcontext(ScriptedStream(answer, done))


class ScriptedStream:
    def __init__(self, pieces, answer):
        self.pieces, self.answer = pieces, answer

    def __iter__(self):
        for piece in self.pieces:
            if isinstance(piece, type):
                raise piece
            yield piece


@pytest.fixture
def model(monkeypatch, tmp_path):
    scripted = Scripted()
    monkeypatch.setattr(weights, "onnx", lambda name: tmp_path)
    monkeypatch.setattr("phi3kit.generation.Engine", scripted)
    monkeypatch.setattr("phi3kit.chat.ChatTemplate", scripted)
    return scripted


def talk(*lines: str | bytes, options=()):
    text = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    done = CliRunner().invoke(app, ["chat", *options], input=text)
    assert done.exit_code == 0, done.output
    return done


def test_only_answers_go_to_stdout(model):
    model.answers = [["He", "llo."], ["Two\nlines."]]
    done = talk("Hi!", "", "  More?  ")
    assert done.stdout == "Hello.\nTwo\nlines.\n"
    assert done.stderr == "2 tokens, 20 tokens/s\n1 tokens, 20 tokens/s\n"


def test_every_turn_reads_the_turns_before_it(model):
    model.answers = [["He", "llo."]]
    talk("Hi!", "", "  More?  ")
    assert model.prompts == ["u:Hi!", "u:Hi! a:Hello. u:More?"]


def test_text_before_ctrl_c_stays_in_the_conversation(model):
    model.answers = [["Once upon", " a", KeyboardInterrupt, "time"]]
    done = talk("A story.", "Go on.")
    assert done.stdout == "Once upon a\nok\n"
    assert "stopped" in done.stderr
    assert model.prompts[1] == "u:A story. a:Once upon a u:Go on."


@pytest.mark.parametrize("answer", [[KeyboardInterrupt], [], [" ", "\n"]], ids=["stopped", "empty", "blank"])
def test_a_question_without_an_answer_stays_in_the_conversation(model, answer):
    model.answers = [answer]
    talk("A story.", "Hi!")
    said = "".join(piece for piece in answer if isinstance(piece, str))
    assert model.prompts[1] == f"u:A story. a:{said} u:Hi!"


@pytest.mark.parametrize("said", ["", " \n"], ids=["empty", "blank"])
def test_an_answer_without_text_may_be_sent_to_the_model(said):
    turns = [{"role": "user", "content": "A story."}, {"role": "assistant", "content": said}]
    assert messages.check([*turns, turns[0]])[1] == turns[1]


def test_the_system_message_can_be_changed_and_removed(model):
    talk("1", "/system  Be brief. ", "2", "/reset", "3", "/system", "4", options=["--system", "Be kind."])
    assert model.prompts == ["s:Be kind. u:1", "s:Be brief. u:1 a:ok u:2", "s:Be brief. u:3", "u:3 a:ok u:4"]


def test_help_and_unknown_commands_list_the_commands(model):
    done = talk("/help", "/etc/passwd", " /reset", "/exit", "never")
    assert model.prompts == ["u:/reset"]
    assert done.stderr.count("/system TEXT") == 2 and "There is no '/etc/passwd'" in done.stderr


def test_no_control_character_of_an_answer_reaches_the_terminal(model):
    controls = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    model.answers = [["\x1b", "[2J\x1b]0;title\x07 é😀", controls]]
    output = talk("Hi!").stdout
    assert output.startswith("\ufffd[2J\ufffd]0;title\ufffd é😀")
    assert {c for c in output if c < " " or "\x7f" <= c < "\xa0"} == {"\t", "\n"}


def test_a_full_context_window_is_reported(model):
    done = talk("x" * 990, "y" * 9, "/reset", "z", options=["--max-tokens", "50"])
    assert done.stdout == "ok\nok\n"
    assert "1,001 tokens, and the model's context window holds 1,000: /reset begins a new one." in done.stderr
    assert [options.max_tokens for options in model.options] == [10, 50]


VALUES = {"int": "7", "float": "0.5", "str": "end"}


@pytest.mark.parametrize("option", declared(), ids=lambda option: option.name)
def test_every_declared_option_reaches_the_engine(model, option):
    value = VALUES[option.type.__name__]
    talk("Hi!", options=[f"--{option.name.replace('_', '-')}", value])
    expected = Options(**{option.name: option.type(value)})
    assert model.options == [expected]


def test_stop_may_be_repeated(model):
    talk("Hi!", options=["--stop", "a", "--stop", "b"])
    assert model.options[0].stop == ("a", "b")


def test_a_wrong_option_is_refused_before_any_fetch(monkeypatch):
    monkeypatch.setattr(weights, "onnx", lambda name: pytest.fail("fetched"))
    done = CliRunner().invoke(app, ["chat", "--temperature", "-1"])
    assert done.exit_code == 2
    assert done.stderr.startswith("temperature=-1.0 is not allowed")


@pytest.mark.parametrize(
    "arguments", [["tiny", "--max-tokens", "8192"], ["Phi-3-mini-4k-instruct", "--max-tokens", "100000"]]
)
def test_an_answer_as_long_as_the_window_is_refused_at_once(monkeypatch, arguments):
    monkeypatch.setattr(weights, "onnx", lambda name: pytest.fail("fetched"))
    done = CliRunner().invoke(app, ["chat", *arguments])
    assert (done.exit_code, "give at most" in done.stderr, done.stderr.count("\n")) == (2, True, 1)


def test_the_window_of_an_unlisted_model_limits_an_answer_too(model, tmp_path):
    done = CliRunner().invoke(app, ["chat", str(tmp_path), "--max-tokens", "1000"])
    assert done.stderr == (
        "max_tokens=1000 is not allowed: give at most 999: the model's context window holds 1000 tokens, of prompt and "
        "answer together.\n"
    )


def test_an_answer_may_fill_the_window_but_for_the_prompt(model):
    talk("x", options=["--max-tokens", "999"])
    assert model.options[0].max_tokens == 999


def test_without_a_limit_the_engine_chooses_one(model):
    talk("x" * 990)
    assert model.options == [Options()]


def test_an_answer_that_fills_the_window_is_reported(model):
    model.answers, model.finish_reason = [["a"] * 10], "length"
    assert "the context window is full" in talk("x" * 990).stderr


@pytest.mark.parametrize("option", ["--system", "--stop"])
def test_a_text_that_is_not_in_utf_8_is_refused(option):
    done = CliRunner().invoke(app, ["chat", option, "caf\udce9"])
    assert (done.exit_code, done.stderr.partition("=")[2]) == (
        2,
        "'caf\\udce9' is not allowed: give a text in UTF-8.\n",
    )


def test_a_refused_message_does_not_end_the_conversation(model):
    from phi3kit.errors import InvalidRequest

    def refuse(messages):
        if "bad" in messages[-1]["content"]:
            raise InvalidRequest("messages[0].content", "bad", "something better")
        return [1]

    model.encode = refuse
    done = talk("bad", "good")
    assert done.stdout == "ok\n" and "give something better" in done.stderr


def test_bytes_that_are_no_text_are_replaced(model):
    talk(b"caf\xe9?")
    assert model.prompts == ["u:caf\ufffd?"]
