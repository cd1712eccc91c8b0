"""`phi3kit chat` with a model whose every word is decided here: what it is given, and what the terminal gets."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from phi3kit import weights
from phi3kit.cli import app


class Scripted:
    """An engine that says what it is told to, and notes what it is asked; prompts are messages, not tokens."""

    context_length = 1000

    def __init__(self):
        self.answers, self.asked, self.options = [], [], []

    def __call__(self, folder):
        return self

    def encode(self, messages):
        self.asked.append(" ".join(f"{m['role'][0]}:{m['content']}" for m in messages))
        return list(range(sum(len(m["content"]) for m in messages)))

    def stream(self, ids, options):
        self.options.append(options)
        answer = self.answers.pop(0) if self.answers else ["ok"]
        stream = (raised(piece) for piece in answer)
        done = SimpleNamespace(completion_tokens=len(answer), tokens_per_second=20.0, finish_reason="stop")
        return nullcontext(Answer(stream, done))


class Answer:
    def __init__(self, pieces, completion):
        self.pieces, self.completion = pieces, completion

    def __iter__(self):
        return self.pieces


def raised(piece):
    if isinstance(piece, type):
        raise piece
    return piece


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


def test_every_turn_sees_the_ones_before_it_and_stdout_holds_the_answers_alone(model):
    model.answers = [["He", "llo."], ["Two\nlines."]]
    done = talk("Hi!", "", "  More?  ")
    assert done.stdout == "Hello.\nTwo\nlines.\n"
    assert model.asked == ["u:Hi!", "u:Hi! a:Hello. u:More?"]
    assert done.stderr == "2 tokens, 20 tokens/s\n1 tokens, 20 tokens/s\n"


def test_what_came_before_ctrl_c_stays_in_the_conversation(model):
    model.answers = [["Once upon", " a", KeyboardInterrupt, "time"]]
    done = talk("A story.", "Go on.")
    assert done.stdout == "Once upon a\nok\n"
    assert "stopped; what came so far stays" in done.stderr
    assert model.asked[1] == "u:A story. a:Once upon a u:Go on."


@pytest.mark.parametrize("answer", [[KeyboardInterrupt], [], [" ", "\n"]], ids=["stopped", "empty", "blank"])
def test_a_question_without_an_answer_is_forgotten(model, answer):
    model.answers = [answer]
    talk("A story.", "Hi!")
    assert model.asked[1] == "u:Hi!"


def test_the_system_message_goes_first_survives_reset_and_can_be_changed_and_taken_away(model):
    talk("1", "/system  Be brief. ", "2", "/reset", "3", "/system", "4", options=["--system", "Be kind."])
    assert model.asked == ["s:Be kind. u:1", "s:Be brief. u:1 a:ok u:2", "s:Be brief. u:3", "u:3 a:ok u:4"]


def test_commands_are_told_and_a_space_makes_a_message_of_one(model):
    done = talk("/help", "/etc/passwd", " /reset", "/exit", "never")
    assert model.asked == ["u:/reset"]
    assert done.stderr.count("/system TEXT") == 2 and "There is no '/etc/passwd'" in done.stderr


def test_no_control_character_of_an_answer_reaches_the_terminal(model):
    controls = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    model.answers = [["\x1b", "[2J\x1b]0;title\x07 é😀", controls]]
    shown = talk("Hi!").stdout
    assert shown.startswith("\ufffd[2J\ufffd]0;title\ufffd é😀")
    assert {c for c in shown if c < " " or "\x7f" <= c < "\xa0"} == {"\t", "\n"}


def test_a_full_context_window_is_told_and_reset_goes_on(model):
    done = talk("x" * 990, "y" * 9, "/reset", "z", options=["--max-tokens", "50"])
    assert done.stdout == "ok\nok\n"
    assert "1,001 tokens, and the model's context window holds 1,000: /reset begins a new one." in done.stderr
    assert [options.max_tokens for options in model.options] == [10, 50]


def test_every_option_reaches_the_engine(model):
    given = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3, "max_tokens": 9, "repetition_penalty": 1.2}
    talk("Hi!", options=[part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))])
    assert model.options[0].model_dump(exclude={"stop"}) == given


def test_a_wrong_option_is_told_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr(weights, "onnx", lambda name: pytest.fail("fetched"))
    done = CliRunner().invoke(app, ["chat", "--temperature", "-1"])
    assert done.exit_code == 2
    assert done.stderr == "temperature=-1.0 is not allowed: give a number from 0 (greedy) to 2.\n"


def test_what_the_template_refuses_does_not_end_the_conversation(model):
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
    assert model.asked == ["u:caf\ufffd?"]
