"""`phi3kit doctor`: what a bug report needs to say about this machine, and how to mend what is wrong with it.

A check that stumbles or hangs becomes a line like any other, and no line holds a password, a token, the name of the
user or where the home folder lies.
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

# What a check finds, as often as it finds something: a verdict (see `Finding`), what it is, and what to do about it.
Check = Callable[[], Iterable[tuple[str, str, str]]]

PATIENCE = 30.0  # seconds for one check; the slowest, with torch or MLflow to load, take two or three
SECRET = re.compile("TOKEN|PASSWORD|SECRET|KEY|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        verdict: `ok`; `note`: good to know; `fix`: something does not work until it is mended.
        what: what was found.
        remedy: what to do about it, with the command to type; empty when there is nothing to do.
    """

    name: str
    verdict: str
    what: str
    remedy: str = ""


def examine(checks: Mapping[str, Check] | None = None, patience: float = PATIENCE) -> Iterator[Finding]:
    """Look at everything, a few seconds in all, and give each finding as soon as it is there.

    Args:
        checks: other ones than `phi3kit.doctor.checks.ALL`, by name.
        patience: seconds after which a check is given up.
    """
    if checks is None:
        from phi3kit.doctor.checks import ALL as checks
    for name, check in checks.items():
        found: queue.SimpleQueue[list[tuple[str, str, str]]] = queue.SimpleQueue()
        threading.Thread(target=_look, args=(check, found), daemon=True).start()
        try:
            findings = found.get(timeout=patience)
        except queue.Empty:
            findings = [("fix", f"gave no answer in {patience:g} s", "Look whether a disk or the network hangs.")]
        for verdict, what, remedy in findings:
            yield Finding(name, verdict, discreet(what), discreet(remedy))


def _look(check: Check, found: queue.SimpleQueue) -> None:
    try:
        found.put(list(check()))
    except Exception as error:  # a doctor who faints helps nobody
        what = " ".join(f"could not be looked at: {type(error).__name__}: {error}".split())
        found.put([("fix", what[:400], "If this stays after `python install.py`, please report it.")])


def discreet(text: str) -> str:
    """The text without what a stranger need not know: passwords, the query of an address, the home folder, the user."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 5:
            text = text.replace(value, "***")
    text = re.sub(r"://\S*@", "://", text)
    text = re.sub(r"(://[^\s?]*)\?\S*", r"\1", text)
    for home in {str(Path.home()), str(Path.home().resolve()), Path.home().as_posix()} - {"/"}:
        text = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)
    with contextlib.suppress(KeyError, OSError, ImportError):  # a container's user may have no name
        text = re.sub(rf"(?<=[/\\]){re.escape(getpass.getuser())}(?![\w.-])", "<user>", text)
    return text
