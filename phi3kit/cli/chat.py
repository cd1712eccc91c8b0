"""`phi3kit chat`: a conversation in the terminal, or line by line through a pipe.

Only answers go to stdout; everything else goes to stderr.
"""

import dataclasses
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi3kit.cli.options import generation_options, utf8
from phi3kit.cli.weights import Force, Name
from phi3kit.errors import InvalidRequest

if TYPE_CHECKING:
    from phi3kit.chat import ChatTemplate
    from phi3kit.generation import Engine, Options

HELP = """\
/reset        forget the conversation; the system message stays
/system TEXT  tell the model who it is, from the next answer on; without TEXT, no longer
/help         this
/exit         end, as Ctrl-D does
Ctrl-C stops an answer; twice at the prompt, it ends the conversation.
A space before a / makes it part of a message."""

# What a terminal obeys instead of showing: the C0 controls but tab and newline, DEL, the C1 controls.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")


@generation_options
def chat(
    model: Name = "tiny",
    system: Annotated[str, typer.Option(help="Tell the model who it is.", callback=utf8)] = "",
    force: Force = False,
    **options: Any,
) -> None:
    """Talk with a model, its int4 ONNX form; through a pipe, each line is a turn."""
    from phi3kit import weights
    from phi3kit.chat import ChatTemplate
    from phi3kit.generation import Engine, Options
    from phi3kit.workbook.running.parameters import check_window

    # Before anything is fetched, so that a wrong value is reported at once.
    checked = Options(**{name: value for name, value in options.items() if value is not None})
    check_window(checked.max_tokens, weights.resolve(model).context_length)
    folder = weights.onnx(model)
    engine = Engine.open(folder)
    check_window(checked.max_tokens, engine.model.context_length)  # of a model that the catalog does not list
    Conversation(engine, ChatTemplate(folder), checked, system).run(model)


class Conversation:
    """The turns so far, and the loop that adds to them."""

    def __init__(self, engine: "Engine", template: "ChatTemplate", options: "Options", system: str) -> None:
        self._engine, self._template, self._options, self._system = engine, template, options, system
        self._turns: list[dict[str, str]] = []

    def run(self, name: str) -> None:
        """Take turns until the input ends."""
        for stream in (sys.stdin, sys.stdout):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        ask = _piped
        if sys.stdin.isatty() and sys.stdout.isatty():
            ask = _prompted
            window = self._engine.model.context_length
            _remark(f"{name}, {window:,} tokens of context. /help says what you can do here.")
        while True:
            try:
                self._take(_next_line(ask))
            except InvalidRequest as refused:
                _remark(str(refused))
            except KeyboardInterrupt:
                _remark("")
            except EOFError:
                if ask is _prompted:
                    _remark("\nGoodbye.")
                return

    def _take(self, line: str) -> None:
        command, _, text = line.strip().partition(" ")
        if not line.startswith("/"):
            if command:
                self._answer(line.strip())
        elif command == "/reset":
            self._turns.clear()
            _remark("A new conversation.")
        elif command == "/system":
            self._system = text.strip()
            _remark("The next answer follows it." if self._system else "No system message from now on.")
        else:
            _remark(HELP if command == "/help" else f"There is no {command!r}:\n{HELP}")

    def _answer(self, question: str) -> None:
        request = {"role": "user", "content": question}
        system = [{"role": "system", "content": self._system}] if self._system else []
        ids = self._template.encode([*system, *self._turns, request])
        window = self._engine.model.context_length
        remaining, options = window - len(ids), self._options
        if remaining < 1:
            _remark(
                f"With this, the conversation has {len(ids):,} tokens, and the model's context window holds "
                f"{window:,}: /reset begins a new one."
            )
            return
        if options.max_tokens and options.max_tokens > remaining:
            options = dataclasses.replace(options, max_tokens=remaining)
        answer, note = "", "stopped; the text so far stays in the conversation"
        with self._engine.stream(ids, options) as stream:
            try:
                for piece in stream:
                    answer += piece
                    print(_CONTROL.sub("\ufffd", piece), end="", flush=True)
                note = _summary(stream.answer, stream.answer.completion_tokens == remaining)
            except KeyboardInterrupt:
                pass
            finally:
                self._turns += [request, {"role": "assistant", "content": answer}]  # an empty answer is one too
        print(flush=True)
        _remark(note)


def _summary(answer: Any, is_full: bool) -> str:
    cut = ", cut off: the context window is full, /reset begins a new conversation" if is_full else ", cut off"
    end = cut if answer.finish_reason == "length" else ""
    return f"{answer.completion_tokens} tokens, {answer.tokens_per_second:.0f} tokens/s{end}"


def _next_line(ask: Callable[[], str]) -> str:
    """The next line; EOFError where the input ends, at /exit, and at the second Ctrl-C in a row."""
    try:
        line = ask()
    except KeyboardInterrupt:
        _remark("\nCtrl-C once more ends the conversation.")
        try:
            line = ask()
        except KeyboardInterrupt:
            raise EOFError from None
    if line.rstrip() == "/exit":
        raise EOFError
    return line


def _piped() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _prompted() -> str:
    try:
        import readline  # gives `input` its editing keys and its history; Windows has its own
    except ImportError:
        return input("> ")
    try:
        return input("> ")
    except KeyboardInterrupt:
        if not readline.get_line_buffer():
            raise
        _remark("")  # the line that was being typed is dropped
        return ""


def _remark(text: str) -> None:
    typer.secho(text, dim=True, err=True)
