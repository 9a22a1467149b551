"""A benchmark as a page to read: tables, figures and the numbers behind them in one folder.

Layout of the folder:

    report.html     everything on one page, which needs neither the rest of the folder nor a network
    report.md       the same as Markdown
    figures/*.png   every picture of the page
    data/*.csv      the numbers behind every table and picture
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import style

from nnunet_attenscribble.common.figures import encode_png
from nnunet_attenscribble.common.files import is_of_system, replaced_folder, write_text
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.report.attention import describe_attention_section
from nnunet_attenscribble.evaluation.report.data import (
    ReportData,
    ReportRow,
    Section,
    read_collected,
    render_html,
    render_markdown,
)
from nnunet_attenscribble.evaluation.report.pictures import choose_cases, choose_row, describe_pictures_section
from nnunet_attenscribble.evaluation.report.scores import (
    describe_annotation_section,
    describe_cases_section,
    describe_scatter_section,
    describe_table_section,
)
from nnunet_attenscribble.evaluation.report.training import describe_provenance_section, describe_training_section

PAGE_FILE = "report.html"
_MARKDOWN_FILE, _FIGURES, _DATA = "report.md", "figures", "data"
_OWN = {PAGE_FILE, _MARKDOWN_FILE, _FIGURES, _DATA}
_KINDS = {(_FIGURES, ".png"), (_DATA, ".csv")}  # of files in its folders


def write_report(
    collected: Path,
    output: Path,
    *,
    cases_of: str | None = None,
    scans: bool = True,
    progress: bool = False,
) -> Path:
    """Write the report of a collected benchmark. The folder appears whole or not at all, and replaces an older report.

    Args:
        collected: folder that `attenscribble benchmark collect` wrote.
        output: folder for the report; anything else than a report must not be in it.
        cases_of: the row whose best, median and worst case are shown; by default the last one on scribbles.
        scans: show slices of the scans. Their terms may forbid to pass such pictures on.
        progress: shown on stderr.

    Returns:
        The page.

    Raises:
        AttenScribbleError: nothing to report, damaged files, or something else in the folder.
    """
    output = output.absolute()
    _check_output(output, collected.absolute())
    data = read_collected(collected)
    row = choose_row(data, cases_of)
    sections = _describe(data, row, scans=scans)
    pictures = [picture for section in sections for part in section.parts for picture in part.pictures]
    drawn: dict[str, bytes] = {}
    with style.context("default"):  # whatever was drawn before, and whatever matplotlibrc says
        for picture in show_progress(pictures, total=len(pictures), description="drawing", enabled=progress):
            drawn[picture.name] = encode_png(picture.draw())
    with replaced_folder(output) as part:
        _write(part, data, sections, drawn)
    return output / PAGE_FILE


def _describe(data: ReportData, row: ReportRow | None, *, scans: bool) -> list[Section]:
    chosen = {} if row is None else choose_cases(row.scores)
    middle = chosen.get("median", next(iter(chosen.values()), (None, None)))[0]
    return [
        describe_table_section(data),
        describe_annotation_section(data),
        describe_cases_section(data),
        describe_scatter_section(data),
        *([describe_pictures_section(data, row)] if scans else []),
        describe_attention_section(data, middle, scans=scans),
        describe_training_section(data),
        describe_provenance_section(data),
    ]


def _write(folder: Path, data: ReportData, sections: Sequence[Section], drawn: dict[str, bytes]) -> None:
    for place in (_FIGURES, _DATA):
        (folder / place).mkdir(parents=True)
    for name, content in drawn.items():
        (folder / _FIGURES / f"{name}.png").write_bytes(content)
    texts = {PAGE_FILE: render_html(data, sections, drawn), _MARKDOWN_FILE: render_markdown(data, sections)}
    for part in (part for section in sections for part in section.parts):
        texts |= {f"{_DATA}/{name}": text for name, text in part.files.items()}
    for name, text in texts.items():
        write_text(folder / name, text)


def _check_output(output: Path, collected: Path) -> None:
    if output == collected:
        raise AttenScribbleError(f"{output} is the folder to report on: give another one with -o")
    if output.exists() and not output.is_dir():
        raise AttenScribbleError(f"-o {output} is a file: give a folder")
    found = sorted(file.relative_to(output) for place in ("*", "*/[!.]*") for file in output.glob(place))
    found = [file for file in found if not is_of_system(file.name)]
    others = [file for file in found if str(file) not in _OWN and (str(file.parent), file.suffix) not in _KINDS]
    if Path(PAGE_FILE) not in found:
        others += found  # folders of these names, but of no report
    if others:
        raise AttenScribbleError(f"{output} holds something else than a report ({others[0]}): give another one with -o")
