"""`phi3kit chat`: a conversation in the terminal, or line by line through a pipe.

Only answers go to stdout; whatever else there is to say goes to stderr.
"""

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
Ctrl-C stops an answer. A space before a / makes it part of a message."""

# What a terminal obeys instead of showing: the C0 controls but tab and newline, DEL, the C1 controls.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")


def chat(
    model: Name = "tiny",
    system: Annotated[str, typer.Option(help="Tell the model who it is.")] = "",
    temperature: Annotated[float | None, typer.Option(help="From 0, always the likeliest token, to 2.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest tokens of this probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from so many of the likeliest tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same samples each time.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer, in tokens: 256 unless given.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1, say less of it again.")] = None,
    force: Force = False,
) -> None:
    """Talk with a model, its int4 ONNX form; through a pipe, each line is a turn."""
    given = dict(locals())
    from phi3kit import weights
    from phi3kit.chat import ChatTemplate
    from phi3kit.generation import Engine, Options

    # Before anything is fetched, so that a wrong value is told at once.
    options = Options(**{name: given[name] for name in Options.model_fields if given.get(name) is not None})
    folder = weights.onnx(model)
    Conversation(Engine(folder), ChatTemplate(folder), options, system).run(model)


class Conversation:
    """What was said so far, and the loop that goes on with it."""

    def __init__(self, engine: "Engine", template: "ChatTemplate", options: "Options", system: str) -> None:
        self._engine, self._template, self._options, self._system = engine, template, options, system
        self._said: list[dict[str, str]] = []

    def run(self, name: str) -> None:
        """Take turns until the input ends."""
        for stream in (sys.stdin, sys.stdout):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        ask = _piped
        if sys.stdin.isatty() and sys.stdout.isatty():
            ask = _prompted
            _remark(f"{name}, {self._engine.context_length:,} tokens of context. /help says what you can do here.")
        while True:
            try:
                line = ask()
                if line.rstrip() == "/exit":
                    raise EOFError
                self._take(line)
            except InvalidRequest as refused:
                _remark(str(refused))
            except KeyboardInterrupt:
                _remark("")  # the line that was being typed is dropped
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
            self._said.clear()
            _remark("A new conversation.")
        elif command == "/system":
            self._system = text.strip()
            _remark("The model is told so from now on." if self._system else "No system message from now on.")
        else:
            _remark(HELP if command == "/help" else f"There is no {command!r}:\n{HELP}")

    def _answer(self, question: str) -> None:
        asked = {"role": "user", "content": question}
        system = [{"role": "system", "content": self._system}] if self._system else []
        ids = self._template.encode([*system, *self._said, asked])
        window = self._engine.context_length
        limit = min(self._options.max_tokens, window - len(ids))
        if limit < 1:
            _remark(
                f"With this, the conversation has {len(ids):,} tokens, and the model's context window holds "
                f"{window:,}: /reset begins a new one."
            )
            return
        answer, note = "", "stopped; what came so far stays in the conversation"
        with self._engine.stream(ids, self._options.model_copy(update={"max_tokens": limit})) as stream:
            try:
                for piece in stream:
                    answer += piece
                    print(_CONTROL.sub("\ufffd", piece), end="", flush=True)
                note = _told(stream.completion, limit < self._options.max_tokens)
            except KeyboardInterrupt:
                pass
            finally:
                if answer.strip():  # a turn without a word would be refused as part of the next prompt
                    self._said += [asked, {"role": "assistant", "content": answer}]
        print(flush=True)
        _remark(note)


def _told(done: Any, is_full: bool) -> str:
    cut = ", cut off: the context window is full, /reset begins a new conversation" if is_full else ", cut off"
    end = cut if done.finish_reason == "length" else ""
    return f"{done.completion_tokens} tokens, {done.tokens_per_second:.0f} tokens/s{end}"


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
        if readline.get_line_buffer():
            raise
        raise EOFError from None


def _remark(text: str) -> None:
    typer.secho(text, dim=True, err=True)
