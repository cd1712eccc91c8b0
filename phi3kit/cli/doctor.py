"""`phi3kit doctor`: examine this machine, and say how to repair what is wrong."""

import json
import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from phi3kit.doctor import Finding

COLOURS = {"ok": "green", "note": "yellow", "fix": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Examine this machine; each line is ok, a note, or says how to fix it. Exit code 1 if anything needs fixing."""
    import phi3kit
    from phi3kit.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            _print(finding)
    healthy = all(finding.verdict != "fix" for finding in findings)
    if as_json:
        report = {"phi3kit": phi3kit.__version__, "healthy": healthy, "findings": [asdict(one) for one in findings]}
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
    raise typer.Exit(0 if healthy else 1)


def _print(finding: "Finding") -> None:
    width = min(shutil.get_terminal_size().columns, 100) - 6
    options = {"width": width, "break_long_words": False, "break_on_hyphens": False}
    lines = textwrap.wrap(f"{finding.name}: {finding.what}", **options)
    lines += textwrap.wrap(finding.remedy, initial_indent="> ", **options)
    typer.echo(typer.style(f"{finding.verdict:<6}", fg=COLOURS[finding.verdict]) + "\n      ".join(lines))
