"""`attenscribble doctor`: what it finds, whether everything is in order, and what to do where it is not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        subject: what was looked at.
        found: what was seen.
        status: `ok`, `note` (good to know) or `problem`.
        advice: what to do; None where there is nothing.
    """

    subject: str
    found: str
    status: str = OK
    advice: str | None = None


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
    from nnunet_attenscribble.cli.doctor.installation import ask_nnunet, check_installation

    answer = ask_nnunet()  # which goes on while the datasets are looked at
    from nnunet_attenscribble.cli.doctor.datasets import check_dataset, list_datasets

    told = [finding for dataset in datasets or [] for finding in check_dataset(dataset)]
    findings = [*check_installation(answer()), *(told if datasets else list_datasets())]
    ok = all(finding.status != PROBLEM for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
    if not ok:
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    """A line per finding, and what to do below it; wrapped between words on a terminal, and nowhere else."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    styles = {OK: "green", NOTE: "yellow", PROBLEM: "bold red"}
    table = Table.grid(padding=(0, 1))
    lines = []
    for finding in findings:
        lines.append((finding.status, f"{finding.subject}: {finding.found}"))
        if finding.advice is not None:
            lines.append(("", f"-> {finding.advice}"))
    if console.is_terminal:
        for status, text in lines:
            table.add_row(Text(status, styles.get(status, "")), Text(text))  # no markup: paths may hold brackets
        console.print(table)
    else:
        typer.echo("\n".join(f"{status:<8}{text}" for status, text in lines))
    counts = {word: sum(finding.status == word for finding in findings) for word in (PROBLEM, NOTE)}
    told = [f"{number} {word}{'' if number == 1 else 's'}" for word, number in counts.items() if number]
    typer.echo(f"\n{', '.join(told) or 'Everything is in order'}.")
