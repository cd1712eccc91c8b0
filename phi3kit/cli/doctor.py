"""`phi3kit doctor`: look at this machine, and say how to mend what is wrong."""

import json
import shutil
import textwrap
from dataclasses import asdict
from typing import Annotated

import typer

COLOURS = {"ok": "green", "note": "yellow", "fix": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Look at this machine; each line is ok, a note, or says how to fix it. Exit code 1 if anything needs fixing."""
    import phi3kit
    from phi3kit.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            _tell(finding.verdict, f"{finding.name}: {finding.what}", finding.remedy)
    healthy = all(finding.verdict != "fix" for finding in findings)
    if as_json:
        report = {"phi3kit": phi3kit.__version__, "healthy": healthy, "findings": [asdict(one) for one in findings]}
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
    raise typer.Exit(0 if healthy else 1)


def _tell(verdict: str, what: str, remedy: str) -> None:
    width = min(shutil.get_terminal_size().columns, 100)
    lines = textwrap.wrap(what, width - 6, break_long_words=False, break_on_hyphens=False)
    lines += textwrap.wrap(remedy, width - 6, initial_indent="> ", break_long_words=False, break_on_hyphens=False)
    typer.echo(typer.style(f"{verdict:<6}", fg=COLOURS[verdict]) + "\n      ".join(lines))
