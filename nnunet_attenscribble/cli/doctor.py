"""`attenscribble doctor`: whether everything is in order, and what to do where it is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.cli.findings import NOTE, PROBLEM, Finding


@app.command()
def doctor(
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="[DATASET]...", help="IDs or names of datasets to look into as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check versions, nnU-Net's folders, its lookup of the trainers, device, disk and datasets; say what to do.

    Exit code 1 if there is a problem. A note is nothing wrong, but good to know.

    Example:  attenscribble doctor

    Example:  attenscribble doctor 501 --json
    """
    from nnunet_attenscribble.cli.doctor_datasets import check_dataset, list_datasets
    from nnunet_attenscribble.cli.doctor_installation import check_installation

    findings = check_installation()
    for dataset in datasets or []:
        findings += check_dataset(dataset)
    if not datasets:
        findings += list_datasets()
    if as_json:
        entries = [asdict(finding) for finding in findings]
        typer.echo(json.dumps({"ok": not _count(findings, PROBLEM), "findings": entries}, indent=2))
    else:
        _print(findings)
    if _count(findings, PROBLEM):
        raise typer.Exit(1)


def _count(findings: list[Finding], status: str) -> int:
    return sum(finding.status == status for finding in findings)


def _print(findings: list[Finding]) -> None:
    """A line per finding, and what to do below it; for commands that can be copied, nothing is wrapped."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    styles = {"ok": "green", NOTE: "yellow", PROBLEM: "bold red"}
    for finding in findings:
        console.print(
            Text.assemble((f"{finding.status:<8}", styles[finding.status]), f"{finding.subject}: {finding.found}")
        )
        if finding.advice is not None:
            console.print(Text.assemble("      -> ", finding.advice))
    problems, notes = _count(findings, PROBLEM), _count(findings, NOTE)
    told = [f"{number} {word}{'' if number == 1 else 's'}" for number, word in ((problems, "problem"), (notes, "note"))]
    console.print(f"\n{', '.join(told)}" if problems or notes else "\nEverything is in order.")
