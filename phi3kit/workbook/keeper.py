"""The process between a grader and a notebook: it runs the notebook in a kernel, and ends all of it at a limit.

It ends everything, too, when its standard input ends, as it does when whoever started it is gone. A process whose
own parent has ended is found on Linux alone, and may outlive the run elsewhere. `sandbox.run` starts the keeper:
`python -m phi3kit.workbook.keeper FOLDER LIMITS [cut]`.
"""

import asyncio
import ctypes
import json
import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from phi3kit import machine
from phi3kit.workbook import kernel, network

RAN, CALLS = "ran.json", "calls"  # in the folder: what came of the notebook so far, and the hook's notes


@dataclass(frozen=True)
class Limits:
    """How much one notebook may take.

    Attributes:
        cell: seconds for a cell, after which it gets Ctrl-C; our slowest take about twenty on two cores, and several
            times that beside another busy program.
        grace: seconds from there until everything is ended.
        whole: seconds for all cells together; ours take about eighty.
        memory: bytes for the kernel and all that it starts; ours take 2.6e9 at most, while a model is served.
            It is never more than nine tenths of what is free when the notebook starts.
        output: characters that may be printed and shown; ours give less than a million.
    """

    cell: int = 300
    grace: float = 10.0
    whole: float = 1800.0
    memory: float = 6e9
    output: int = 20_000_000


class _Run:
    """One notebook's run."""

    def __init__(self, folder: Path, limits: Limits, cut: bool) -> None:
        import nbformat

        self.folder, self.limits, self.cut = folder, limits, cut
        given = json.loads((folder / RAN).read_text(encoding="utf-8"))
        self.notebook, self.troubles = nbformat.from_dict(given["notebook"]), given["troubles"]
        self.over = False  # whether it came to its last cell, or the troubles say why not
        self.where, self.failed, self.ended = "The notebook", False, ""
        self.begun, self.cell_begun = time.monotonic(), float("inf")
        self.printed = self.calls = self.uncalled = 0

    async def execute(self) -> None:
        """Run the cells, each whatever became of those before it, unless a limit ends it all."""
        from nbclient import NotebookClient

        run = self

        class Client(NotebookClient):
            def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
                run.printed += len(str(msg["content"]))
                if run.printed > run.limits.output:
                    return run.end(f"printed more than {run.limits.output:,} characters")
                return super().process_message(msg, cell, cell_index)

        client = Client(
            self.notebook,
            timeout=self.limits.cell,
            interrupt_on_timeout=True,
            allow_errors=True,
            iopub_timeout=60,  # seconds that a verdict may be late on a busy machine
            shutdown_kernel="immediate",
            kernel_manager_class=kernel.manager(self.folder, sys.stdout),
            on_cell_execute=self._begins,
            on_cell_executed=self._done,
        )
        threading.Thread(target=self._guard, daemon=True).start()
        try:
            await client.async_execute()
        except RuntimeError:  # nbclient's DeadKernelError, or a kernel that never answered
            self._look_for_calls()
            self.troubles.append(f"{self.where} {self.ended or 'ended the kernel'}: everything was stopped there.")
        self.over = True
        self._save()

    def end(self, why: str) -> None:
        """End the kernel and all that it started."""
        self.ended = self.ended or why
        _end_all()

    def _guard(self) -> None:
        """In a thread of its own: a flood of output starves the event loop."""
        memory = min(self.limits.memory, machine.memory()[1] * 0.9)
        while not self.ended:
            now = time.monotonic()
            if now - self.cell_begun > self.limits.cell + self.limits.grace:
                self.end(f"did not end within {self.limits.cell} s, nor at Ctrl-C")
            elif now - self.begun > self.limits.whole:
                self.end(f"was running when the notebook had taken {self.limits.whole:g} s in all")
            elif _memory_used() > memory:
                self.end(f"took more than {memory / 1e9:.1f} GB of memory")
            time.sleep(0.2)

    def _begins(self, cell: Any, cell_index: int) -> None:
        self.where, self.cell_begun = _named(self.notebook, cell_index), time.monotonic()

    def _done(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if time.monotonic() - self.cell_begun >= self.limits.cell:
            self.troubles.append(f"{self.where} did not end within {self.limits.cell} s: it got Ctrl-C.")
        elif errors and not self.failed:
            self.failed = True
            self.troubles.append(f"{self.where} was the first to fail: {errors[0].ename}: {errors[0].evalue[:400]}")
        self.cell_begun = float("inf")
        self._look_for_calls()
        self._save()

    def _look_for_calls(self) -> None:
        """Tell of calls that the hook refused, or else the kernel: the latter come from what is not Python."""
        notes = self.folder / CALLS
        calls = notes.read_text(encoding="utf-8", errors="replace").splitlines() if notes.exists() else []
        uncalled = sum(network.attempts().values()) if self.cut else 0
        if len(calls) > self.calls:
            call = calls[self.calls].partition(" in process ")[0]
            self.troubles.append(f"{self.where} tried the network, which is cut: {call}")
        elif uncalled > self.uncalled:
            self.troubles.append(f"{self.where} tried the network, which is cut, by a program that is not Python.")
        self.calls, self.uncalled = len(calls), uncalled

    def _save(self) -> None:
        aside = self.folder / f"{RAN}.aside"
        ran = {"notebook": self.notebook, "troubles": self.troubles, "over": self.over}
        aside.write_text(json.dumps(ran), encoding="utf-8")
        aside.replace(self.folder / RAN)


def _named(notebook: Any, index: int) -> str:
    """A cell as a sentence begins with it: its number among the cells with code, and its first line."""
    number = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells[: index + 1])
    first, *more = notebook.cells[index].source.strip().splitlines()
    return f"Cell [{number}] `{first[:60]}{'...' if more or first[60:] else ''}`"


def _memory_used() -> int:
    used = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            used += process.memory_info().rss
    return used


def _end_all() -> None:
    for _ in range(5):  # what a process started while it was looked for comes in the next round
        family = psutil.Process().children(recursive=True)
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=3)
        if not family:
            return


def _until_alone(folder: Path) -> None:
    sys.stdin.read()
    _end_all()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _main(folder: Path, limits: Limits, cut: bool) -> None:
    if cut:
        network.enter()  # while there is one thread
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: a process that is left alone stays ours
    threading.Thread(target=_until_alone, args=(folder,), daemon=True).start()
    try:
        asyncio.run(_Run(folder, limits, cut).execute())
    finally:
        _end_all()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Limits(**json.loads(sys.argv[2])), sys.argv[3:] == ["cut"])
