"""`phi3kit doctor`: the state of this machine, as a bug report needs it, and how to repair what is wrong.

It knows nothing of wrapped models or of lessons.

A check that fails or hangs yields a finding like any other. No finding holds a password, a token, the name of the user
or the path of the home folder.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from phi3kit.tracking import address

# A check yields a verdict (see `Finding`), the state that it describes, and a remedy, any number of times.
Check = Callable[[], Iterable[tuple[str, str, str]]]

TIMEOUT = 30.0  # seconds for one check; the slowest, which load torch or MLflow, take two or three
SECRET = re.compile("TOKEN|PASSWORD|SECRET|KEY|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: the subject of the check.
        verdict: `ok`; `note`: good to know; `fix`: something does not work until it is repaired.
        what: the state of the subject.
        remedy: what to do about it, with the command to type; empty when there is nothing to do.
    """

    name: str
    verdict: str
    what: str
    remedy: str = ""


def examine(checks: Mapping[str, Check] | None = None, timeout: float = TIMEOUT) -> Iterator[Finding]:
    """Run all checks, a few seconds in all, and yield each finding as soon as its check has ended.

    Args:
        checks: the checks by name; by default `phi3kit.doctor.checks.ALL`.
        timeout: seconds after which a check is abandoned.
    """
    if checks is None:
        from phi3kit.doctor.checks import ALL as checks
    for name, check in checks.items():
        results: queue.SimpleQueue[list[tuple[str, str, str]]] = queue.SimpleQueue()
        threading.Thread(target=_run, args=(check, results), daemon=True).start()
        try:
            findings = results.get(timeout=timeout)
        except queue.Empty:
            findings = [("fix", f"gave no answer in {timeout:g} s", "Check whether a disk or the network hangs.")]
        for verdict, what, remedy in findings:
            yield Finding(name, verdict, redact(what), redact(remedy))


def _run(check: Check, results: queue.SimpleQueue) -> None:
    try:
        results.put(list(check()))
    except Exception as error:  # a failed check must not hide the results of the others
        what = " ".join(f"could not be checked: {type(error).__name__}: {error}".split())
        results.put([("fix", what[:400], "If this stays after `python install.py`, please report it.")])


def redact(text: str) -> str:
    """The text without passwords, tokens, the query of an address, the path of the home folder, the user's name."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 5:
            text = text.replace(value, "***")
    text = address.without_password(text)
    text = re.sub(r"(://[^\s?]*)\?[^\s'\"]*", r"\1", text)
    for home in {str(Path.home()), str(Path.home().resolve()), Path.home().as_posix()} - {"/"}:
        text = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)
    with contextlib.suppress(KeyError, OSError, ImportError):  # a container's user may have no name
        text = re.sub(rf"(?<=[/\\]){re.escape(getpass.getuser())}(?![\w.-])", "<user>", text)
    return text
