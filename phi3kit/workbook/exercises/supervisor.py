"""The process between a grader and a notebook: it runs the notebook in a kernel, and ends the run at a limit.

SIGTERM ends the run too, and removes its folder: the watcher of `system.process` sends it when the grader is gone.
Processes whose parent has ended are found on Linux only; elsewhere they may outlive the run. `sandbox.run` starts the
supervisor: `python -m phi3kit.workbook.exercises.supervisor FOLDER LIMITS [isolated]`.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3kit.system import machine, process
from phi3kit.workbook.exercises import network
from phi3kit.workbook.running import kernel

# Files in the folder: the notebook with its outputs so far; the hook's notes; a line for each cell that began.
STATE, CALLS, CELLS = "state.json", "calls", "cells"


@dataclass(frozen=True)
class Limits:
    """The limits of one notebook's run.

    Attributes:
        cell: seconds for a cell, after which it gets Ctrl-C; our slowest take about twenty on two cores, and several
            times that beside another busy program.
        grace: seconds from there until the run is ended.
        whole: seconds for all cells together; ours take about eighty.
        memory: bytes for the kernel and all that it starts; ours take 2.6e9 at most, while a model is served.
            It is never more than nine tenths of what is free when the notebook starts.
        output: characters of output; ours give less than a million.
    """

    cell: int = 300
    grace: float = 10.0
    whole: float = 1800.0
    memory: float = 6e9
    output: int = 20_000_000


class _Run:
    """The run of one notebook: `execute` in one thread, `check_limits` in another."""

    def __init__(self, folder: Path, limits: Limits, isolated: bool) -> None:
        import nbformat

        self.folder, self.limits, self.isolated = folder, limits, isolated
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        self.notebook, self.problems = nbformat.from_dict(state["notebook"]), state["problems"]
        self.memory = min(limits.memory, machine.memory()[1] * 0.9)
        self.finished = False  # whether the last cell was run, or a problem says why not
        self.cell, self.failed, self.end_reason = "The notebook", False, ""
        self.start, self.cell_start = time.monotonic(), float("inf")
        self.characters = self.calls = self.kernel_calls = 0

    async def execute(self) -> None:
        """Run all cells, also those after a cell that failed, unless a limit ends the run."""
        from nbclient import NotebookClient

        run = self

        class Client(NotebookClient):
            def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
                run.characters += len(str(msg["content"]))
                if run.characters > run.limits.output:
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
            on_cell_execute=self._cell_starts,
            on_cell_executed=self._cell_ends,
        )
        try:
            await client.async_execute()
        except RuntimeError:  # nbclient's DeadKernelError, or a kernel that never answered
            self._read_calls()
            self.problems.append(f"{self.cell} {self.end_reason or 'ended the kernel'}: everything was stopped there.")
        self.finished = True
        self._save()

    def end(self, reason: str) -> None:
        """End the kernel and all that it started."""
        self.end_reason = self.end_reason or reason
        process.end_descendants(grace=0)

    def check_limits(self) -> None:
        """End the run if it exceeds a limit."""
        now = time.monotonic()
        if self.end_reason:
            return
        if now - self.cell_start > self.limits.cell + self.limits.grace:
            self.end(f"did not end within {self.limits.cell} s, nor at Ctrl-C")
        elif now - self.start > self.limits.whole:
            self.end(f"was running when the notebook had taken {self.limits.whole:g} s in all")
        elif process.resident(os.getpid()) > self.memory:
            self.end(f"took more than {self.memory / 1e9:.1f} GB of memory")

    def _cell_starts(self, cell: Any, cell_index: int) -> None:
        number = _with_code(self.notebook.cells[: cell_index + 1])
        first, *more = cell.source.strip().splitlines()
        self.cell = f"Cell [{number}] `{first[:60]}{'...' if more or first[60:] else ''}`"
        self.cell_start = time.monotonic()
        with (self.folder / CELLS).open("a", encoding="ascii") as file:
            file.write(f"{number} {_with_code(self.notebook.cells)}\n")

    def _cell_ends(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if time.monotonic() - self.cell_start >= self.limits.cell:
            self.problems.append(f"{self.cell} did not end within {self.limits.cell} s: it got Ctrl-C.")
        elif errors and not self.failed:
            self.failed = True
            self.problems.append(f"{self.cell} was the first to fail: {errors[0].ename}: {errors[0].evalue[:400]}")
        self.cell_start = float("inf")
        self._read_calls()
        self._save()

    def _read_calls(self) -> None:
        """Report a call that the hook refused, or else one that only the kernel counted: a program without the hook."""
        notes = self.folder / CALLS
        calls = notes.read_text(encoding="utf-8", errors="replace").splitlines() if notes.exists() else []
        kernel_calls = sum(network.attempts().values()) if self.isolated else 0
        if len(calls) > self.calls:
            call = calls[self.calls].partition(" in process ")[0]
            self.problems.append(f"{self.cell} tried the network, which is cut: {call}")
        elif kernel_calls > self.kernel_calls:
            self.problems.append(f"{self.cell} tried the network, which is cut, by a program that is not Python.")
        self.calls, self.kernel_calls = len(calls), kernel_calls

    def _save(self) -> None:
        aside = self.folder / f"{STATE}.aside"
        state = {"notebook": self.notebook, "problems": self.problems, "finished": self.finished}
        aside.write_text(json.dumps(state), encoding="utf-8")
        aside.replace(self.folder / STATE)


def _with_code(cells: list[Any]) -> int:
    return sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells)


def _main(folder: Path, limits: Limits, isolated: bool) -> None:
    def stop(*_: Any) -> None:
        process.end_descendants(grace=0)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    if isolated:
        network.enter()  # possible only while there is one thread
    process.adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    run = _Run(folder, limits, isolated)
    # A thread of its own: in the main thread nbclient replaces the handlers, and endless output starves its event loop.
    worker = threading.Thread(target=lambda: asyncio.run(run.execute()), daemon=True)
    worker.start()
    while worker.is_alive():
        run.check_limits()
        worker.join(0.2)
    process.end_descendants(grace=0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Limits(**json.loads(sys.argv[2])), sys.argv[3:] == ["isolated"])
