"""The one function that runs a notebook: make, `phi3kit run`, `mlflow run` and the tests all call it."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from phi3kit.errors import NotebookFailed
from phi3kit.workbook.running import history, kernel, paths, results
from phi3kit.workbook.running.notebook import insert, read
from phi3kit.workbook.running.page import page
from phi3kit.workbook.running.parameters import check, defaults


@dataclass(frozen=True)
class Outcome:
    """The result of running one notebook.

    Attributes:
        name: the notebook's name, without its suffix.
        verdict: `ok`, `failed`, or `interrupted`: by Ctrl-C, SIGTERM, or a closed terminal.
        seconds: from the start of the kernel to its end.
        notebook: the executed notebook, whatever the verdict.
        html: the same as a page.
        results: what the executed cells recorded, by name.
        error: empty, or the cell, its first lines and its error, in a few lines.
    """

    name: str
    verdict: Literal["ok", "failed", "interrupted"]
    seconds: float
    notebook: Path
    html: Path
    results: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def require(self) -> "Outcome":
        """Return this outcome if its verdict is `ok`.

        Raises:
            NotebookFailed: it is not; the message names the cell, its error, and the executed notebook.
        """
        if self.verdict != "ok":
            raise NotebookFailed(f"{self.name}: {self.verdict}. {self.error}\nIt is kept in {self.notebook}")
        return self


def run(
    notebook: str | Path,
    parameters: dict[str, Any] | None = None,
    *,
    runs: Path | None = None,
    progress: bool | None = None,
) -> Outcome:
    """Run a notebook from its first cell to its last, in its own folder and in a kernel of this Python.

    Args:
        notebook: a notebook's file; it does not change.
        parameters: name to value, for parameters that the notebook declares; text is read as the type of the default.
        runs: the folder that gets `<time>-<name>/` with the executed notebook and its page; `runs/` at the
            repository's root by default.
        progress: whether to draw a progress bar on stderr; by default, if that is a terminal.

    Returns:
        The outcome, also when a cell failed, and after Ctrl-C or SIGTERM.

    Raises:
        InvalidRequest: the file is no notebook, the notebook does not declare a parameter, or a value is not allowed.
        NotebookFailed: there is no such notebook, or `runs` may not be written.
        WeightsError: the parameter `model` names no model.
    """
    import nbformat

    source = Path(notebook).resolve()
    if not source.is_file():
        raise NotebookFailed(f"There is no notebook {source}: give the path of an .ipynb file.")
    values = check(source, parameters or {})
    model = (defaults(source) | values).get("model")
    executed = _new_folder(runs or paths.RUNS, source.stem) / source.name
    nbformat.write(insert(read(source), values), executed)
    bar = sys.stderr.isatty() if progress is None else progress
    log = executed.with_name("kernel.log")
    start = time.monotonic()
    with _signals_as_ctrl_c():
        with log.open("w", encoding="utf-8") as lines:
            verdict, error = _execute(executed, bar, kernel.manager(source.parent, lines))
        seconds = time.monotonic() - start
        if verdict != "failed":
            log.unlink()  # needed only when a kernel died
        history.note(executed, verdict, seconds, model)
        html = executed.with_suffix(".html")
        html.write_text(page(executed), encoding="utf-8")
    return Outcome(source.stem, verdict, seconds, executed, html, results.read(executed), error)


@contextmanager
def _signals_as_ctrl_c() -> Iterator[None]:
    """Handle each request to end as Ctrl-C, and only the first, so that a second does not interrupt the cleanup."""
    # SIGHUP: the terminal closed. Windows has none; its SIGBREAK is Ctrl-Break.
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if threading.current_thread() is threading.main_thread() else ()
    before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names if hasattr(signal, name)}
    # A signal that nohup ignores stays ignored.
    handled = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]

    def end(*_: Any) -> None:
        for number in handled:
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def _execute(executed: Path, bar: bool, manager: Any) -> tuple[Any, str]:
    import logging

    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns about names of files
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it reports the cell that Ctrl-C interrupted
    try:
        papermill.execute_notebook(
            _escaped(executed),
            _escaped(executed),
            kernel_name="python3",
            language="python",
            progress_bar=bar,
            kernel_manager_class=manager,
            coalesce_streams=True,
        )
    except PapermillExecutionError as failure:
        message = _first_lines(f"{failure.ename}: {failure.evalue}", 6)
        return "failed", f"Cell [{failure.exec_count}] failed:\n{_quoted(failure.source)}\n{message}"
    except RuntimeError:  # nbclient's DeadKernelError, or a kernel that never answered
        reason = "most often because memory ran out: close other programs or take a smaller model"
        log = executed.with_name("kernel.log")
        return "failed", f"{_position(executed)}\nThe kernel died, {reason}. Its log: {log}"
    except KeyboardInterrupt:
        return "interrupted", f"{_position(executed)}\nNothing needs repair: run it again when you like."
    return "ok", ""


def _position(executed: Path) -> str:
    """Name the cell at which a notebook without an error was cut off: the last one that papermill started."""
    import nbformat

    code = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    started = [cell for cell in code if cell.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return "It was cut off before its first cell."
    number = 1 + max((cell.execution_count or 0 for cell in started[:-1]), default=0)
    return f"Cell [{number}] did not end:\n{_quoted(started[-1].source)}"


def _quoted(source: str) -> str:
    return "\n".join(f"    {line}" for line in _first_lines(source, 3).splitlines())


def _first_lines(text: str, limit: int) -> str:
    lines = text.strip().splitlines()
    return "\n".join(lines[:limit] + ["..."] * (len(lines) > limit))


def _escaped(path: Path) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")  # papermill fills braces in a path with parameters


def _new_folder(runs: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ["", *(f"-{count}" for count in range(2, 1000))]:
        folder = runs / f"{stamp}-{name}{suffix}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue  # another run of the same notebook began within this second
        except OSError as error:
            raise NotebookFailed(f"{runs} cannot keep a run: {error.strerror}. Free some disk, or change it.") from None
    raise NotebookFailed(f"{runs} has no free name for a run of {name}: try again.")
