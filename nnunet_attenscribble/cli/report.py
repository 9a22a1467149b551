"""`attenscribble report`: a collected benchmark as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_attenscribble.cli.app import app


@app.command()
def report(
    collected: Annotated[
        Path, typer.Argument(help="Folder that `attenscribble benchmark collect` wrote: collected in --work.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report; a report that is there is replaced.")
    ],
    cases_of: Annotated[
        str | None,
        typer.Option(
            "--cases-of",
            metavar="ROW",
            help="Row whose best, median and worst case are shown; by default the last one trained on scribbles.",
        ),
    ] = None,
    scans: Annotated[
        bool,
        typer.Option("--scans/--no-scans", help="Show slices of the scans, which their terms may not let you pass on."),
    ] = True,
) -> None:
    """Write one HTML page about a benchmark, with its figures as PNG, its numbers as CSV, and as Markdown.

    The page needs no network: tables with intervals, every case of every row, each row against full supervision case by
    case, best, median and worst case, training curves, and where the numbers come from.

    Example:  attenscribble report acdc_cpu/collected -o acdc_cpu/report
    """
    from nnunet_attenscribble.common.progress import show_progress
    from nnunet_attenscribble.evaluation.report.build import write_report

    page = write_report(
        collected,
        output,
        cases_of=cases_of,
        scans=scans,
        progress=lambda items, word: show_progress(items, total=len(items), description=word),
    )
    typer.echo(f"wrote {page}")
