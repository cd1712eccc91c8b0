"""A pytest plugin: nbval compares with the outputs of a notebook that ran already, and starts no kernel.

`NBVAL_REPLAY=EXECUTED.ipynb pytest -p nbval_replay --nbval-lax COMMITTED.ipynb`
"""

import os
from collections import deque
from typing import Any

import nbformat
from nbval import plugin


class ReplayKernel:
    """What nbval calls of a kernel; every cell gives the outputs that it gave in the executed notebook."""

    def __init__(self, kernel_name: str, cwd: str | None = None, startup_timeout: float = 60) -> None:
        cells = nbformat.read(os.environ["NBVAL_REPLAY"], as_version=4).cells
        self._cells = deque(cell for cell in cells if cell.cell_type == "code")
        self._messages: deque[dict[str, Any]] = deque()

    def execute_cell_input(self, source: str, allow_stdin: bool | None = None) -> str:
        cell = self._cells.popleft()
        assert cell.source == source, "the executed notebook has another cell here"
        contents = [(output.output_type, dict(output)) for output in cell.outputs]
        contents.append(("status", {"execution_state": "idle"}))
        header = {"msg_id": cell.id}
        self._messages = deque({"msg_type": kind, "content": c, "parent_header": header} for kind, c in contents)
        return cell.id

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        return self._messages.popleft()

    def await_reply(self, msg_id: str, timeout: float | None = None) -> dict[str, Any]:
        return {"content": {"status": "ok"}}

    def await_idle(self, msg_id: str, timeout: float) -> None:
        self._messages.clear()

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None:
        pass


plugin.RunningKernel = ReplayKernel
