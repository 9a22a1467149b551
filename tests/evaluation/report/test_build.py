from __future__ import annotations

import base64
import json
import math
import re
import shutil
from dataclasses import replace
from html import unescape

import matplotlib
import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common import volumes
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.comparison_files import read_comparison
from nnunet_attenscribble.evaluation.report import scores
from nnunet_attenscribble.evaluation.report.build import write_report
from nnunet_attenscribble.evaluation.report.data import read_collected
from nnunet_attenscribble.evaluation.report.pictures import read_slice
from nnunet_attenscribble.evaluation.report.scores import describe_cases_section
from nnunet_attenscribble.evaluation.summary import read_summary
from tests.evaluation.collected_folder import CASES, ROWS, SHIFTS, SLUGS, STRUCTURES, read_csv, write_collected

PNG = b"\x89PNG\r\n\x1a\n"


def write_markdown(folder, output) -> str:
    write_report(folder, output)
    return (output / "report.md").read_text(encoding="utf-8")


# --- the folder ---


def test_everything_is_there(report):
    assert sorted(file.name for file in report.iterdir()) == ["data", "figures", "report.html", "report.md"]
    figures = {file.stem for file in (report / "figures").iterdir()}
    slugs = set(SLUGS.values())
    assert figures == {
        *("means_dice", "legend", "scatter_partial_ce", "scatter_method_new"),
        *(f"cases_{metric}_{number}" for metric in ("dice", "hd95_mm", "assd_mm") for number in (1, 2)),
        *(f"training_{slug}" for slug in slugs),
        *(f"{word}_{what}" for word in ("best", "median", "worst") for what in ("scan", "scribble")),
        *(f"{word}_prediction_{slug}" for word in ("best", "median", "worst") for slug in slugs),
        *(f"attention_method_new_{what}" for what in ("scan", "attention", "similarity")),
    }
    assert all(file.read_bytes().startswith(PNG) for file in (report / "figures").iterdir())
    assert {file.name for file in (report / "data").iterdir()} == {
        *("comparison.csv", "cases_dice.csv", "cases_hd95_mm.csv", "cases_assd_mm.csv", "scatter_dice.csv"),
        *("pictures.csv", "training_log.csv", "loss_terms.csv", "trainings.csv"),
        *("attention.csv", "similarity_means.csv", "similarity_pairs.csv", "confusion.csv"),
    }


def test_the_page_holds_every_picture_and_asks_for_nothing_else(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    inside = {base64.b64decode(text) for text in re.findall(r'src="data:image/png;base64,([^"]+)"', page)}
    assert inside == {file.read_bytes() for file in (report / "figures").iterdir()}
    outside = [address for address in re.findall(r'(?:src|href)="([^"]+)"', page) if not address.startswith("data:")]
    anchors = {address[1:] for address in outside if address.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))
    links = [address for address in outside if not address.startswith("#")]
    assert links
    assert all((report / address).is_file() for address in links)
    assert not re.search(r"https?://|@import|url\(|<script", page)


def test_every_picture_of_the_markdown_is_there(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert {report / path for path in shown} == set((report / "figures").iterdir())
    assert all((report / path).is_file() for path in re.findall(r"[^!]\[[^\]]*\]\(([^)]+)\)", text))


def test_every_picture_has_a_description_and_every_name_is_escaped(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<img [^>]*>", page)
    assert all(re.search(r'alt="[^"]{8,}"', picture) for picture in pictures)
    assert "Method &lt;new&gt;" in page
    assert "<new>" not in page
    assert "<b>" not in page
    text = (report / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"(?<!\\)<\w", text) == []
    assert "![Dice of Method \\<new> against Dense & full" in text


def test_with_the_reference_alone_there_are_no_differences(tmp_path):
    missing = tuple(f"seed_0/fold_0/{slug}" for slug in ("partial_ce", "method_new"))
    folder = write_collected(tmp_path / "collected", missing=missing)
    assert "Differences and tests" not in write_markdown(folder, tmp_path / "out")
    assert "Difference from" not in (folder / "comparison.md").read_text(encoding="utf-8")


def test_the_same_results_give_the_same_report(collected, report, tmp_path):
    with matplotlib.rc_context({"font.size": 25, "axes.grid": True}):  # as behind nnU-Net's progress.png
        write_report(collected, tmp_path / "again")
    files = [file.relative_to(report) for file in report.rglob("*") if file.is_file()]
    assert all((report / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_volumes_and_confusion_stand_with_how_to_read_them(report):
    text = (report / "report.md").read_text(encoding="utf-8").partition("### Volume and confusion of classes")[2]
    text = text.partition("\n### ")[0]
    assert "1 is without bias" in text
    assert "adds up to 1" in text
    # The RV of 'Partial CE' is missed in one case of four, and always moved within the image otherwise.
    assert "| Partial CE | 1.00 | 1.00 |" in text
    shares = {
        (row["row"], row["true_class"], row["predicted_class"]): float(row["share"])
        for row in read_csv(report / "data" / "confusion.csv")
    }
    assert shares["Partial CE", "RV", "RV"] + shares["Partial CE", "RV", "background"] == pytest.approx(1)
    assert shares["Partial CE", "RV", "LV"] == 0
    assert f"| Partial CE | RV | {shares['Partial CE', 'RV', 'background']:.3f} |" in text
    dense = shares["Dense & full", "RV", "RV"]
    assert dense == pytest.approx(np.mean([_overlap(shift + seed) for shift in (0, 1, 1, 2) for seed in (0, 1)]))


def _overlap(shift: int) -> float:
    """The share of the RV, 6 rows of 6 columns and 2 of 4, that it keeps when it is moved by so many columns."""
    return (6 * max(0, 6 - shift) + 2 * max(0, 4 - shift)) / 44


# --- honesty ---


@pytest.mark.parametrize("file", ["report.html", "report.md"])
def test_what_was_selected_on_what_is_told_before_any_number(report, file):
    text = unescape((report / file).read_text(encoding="utf-8"))
    told = text.index("No checkpoint was selected on any case.")
    assert told < text.index("0.9")
    assert text.replace("\\", "").index("A note with <b>markup</b>.") < text.index("Comparison", told)


def test_missing_cells_are_listed(tmp_path):
    folder = write_collected(tmp_path / "collected", missing=("seed_0/fold_0/partial_ce",))
    text = write_markdown(folder, tmp_path / "out")
    assert "| seed_0/fold_0/partial_ce | training |" in text
    assert "scatter_partial_ce" not in text


def test_every_training_tells_plans_commit_and_versions(report):
    rows = read_csv(report / "data" / "trainings.csv")
    assert [row["cell"] for row in rows] == [f"seed_{seed}/fold_0/{slug}" for seed in (0, 1) for slug in SLUGS.values()]
    assert {row["plans_sha256"] for row in rows} == {"a1" * 32}
    assert {row["nnunetv2"] for row in rows} == {"2.8.1"}
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "c0ffeec0ffee-dirty" in page


# --- the numbers ---


def test_a_comparison_is_read_as_it_was_written(collected):
    comparison = read_comparison(collected / "comparison.json")
    assert comparison.models == tuple(name for name, _ in ROWS)
    row = comparison.get("Partial CE", "RV", "hd95_mm")
    assert (row.infinite, row.missed, row.n) == (1, 1, 3)
    assert math.isnan(comparison.get("Dense & full", "RV", "dice").p)
    written = read_csv(collected / "comparison.csv")
    found = {(row.model, row.structure, row.metric): row.mean for row in comparison.rows}
    assert len(written) == len(found)
    for entry in written:
        key = entry["model"], entry["structure"], entry["metric"]
        assert found[key] == pytest.approx(float(entry["mean"]), nan_ok=True)


def test_the_numbers_of_the_plots_are_those_of_the_cases(collected, report):
    runs = {
        name: [read_summary(collected / "rows" / slug / f"seed_{seed}") for seed in (0, 1)]
        for name, slug in SLUGS.items()
    }
    rows = read_csv(report / "data" / "cases_dice.csv")
    assert len(rows) == len(ROWS) * len(CASES) * 2
    for entry in rows:
        both = [run.cases[entry["case"]][entry["structure"]].dice for run in runs[entry["row"]]]
        assert float(entry["dice"]) == pytest.approx(np.mean(both))
    by_key = {(entry["row"], entry["structure"], entry["case"]): entry["dice"] for entry in rows}
    scattered = read_csv(report / "data" / "scatter_dice.csv")
    assert len(scattered) == (len(ROWS) - 1) * len(CASES) * 2
    for entry in scattered:
        key = entry["structure"], entry["case"]
        assert entry["dice"] == by_key[(entry["row"], *key)]
        assert entry["dice_reference"] == by_key[("Dense & full", *key)]


def test_a_missed_structure_is_infinite_in_the_numbers(report):
    rows = read_csv(report / "data" / "cases_hd95_mm.csv")
    missed = [(entry["row"], entry["case"], entry["structure"]) for entry in rows if entry["hd95_mm"] == "inf"]
    assert missed == [("Partial CE", "p3", "RV")]
    assert next(entry["status"] for entry in rows if entry["hd95_mm"] == "inf") == "missed"


def test_curves_are_those_of_the_trainings(report):
    terms = read_csv(report / "data" / "loss_terms.csv")
    assert {entry["row"] for entry in terms} == {"Partial CE", "Method <new>"}
    crf = [entry for entry in terms if entry["quantity"] == "crf"]
    assert len(crf) == 2 * 2 * 3
    assert {float(entry["value"]) for entry in crf} == {100.0}
    log = read_csv(report / "data" / "training_log.csv")
    last = {entry["row"]: float(entry["value"]) for entry in log if entry["quantity"] == "train_loss"}
    assert last == dict.fromkeys(SLUGS, pytest.approx(1 / 3))


def list_ticks(axes) -> list[str]:
    axes.figure.canvas.draw()
    (low, high), places = axes.get_xlim(), axes.get_xticks()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    return [label for place, label in zip(places, labels, strict=True) if low <= place <= high]


def test_every_plot_of_cases_has_a_scale(collected):
    drawn = {
        picture.name: picture.draw().axes[0]
        for part in describe_cases_section(read_collected(collected)).parts
        for picture in part.pictures
    }
    assert drawn["cases_dice_2"].get_xlim()[1] == 1  # no Dice is higher
    assert len(list_ticks(drawn["cases_hd95_mm_2"])) > 2  # all distances are 0
    assert list_ticks(drawn["cases_hd95_mm_1"]) == ["0", "1", "3", "none"]
    assert list_ticks(drawn["cases_assd_mm_1"]) == ["0", "0.5", "1", "none"]
    assert not any(line.get_clip_on() for line in drawn["cases_dice_1"].lines if line.get_marker() != "None")


def test_a_structure_that_is_nowhere_has_no_plots(collected, monkeypatch):
    def collect(cases, names, metric):
        return np.full((len(cases), len(names)), math.nan if names == ["LV"] else 0.5)

    monkeypatch.setattr(scores, "collect_metric", collect)
    parts = describe_cases_section(read_collected(collected)).parts
    assert {picture.name[-1] for part in parts for picture in part.pictures} == {"1"}


# --- best, median and worst ---


def test_cases_are_those_of_the_last_row_on_scribbles(report):
    chosen = {entry["choice"]: entry["case"] for entry in read_csv(report / "data" / "pictures.csv")}
    # Method <new> moves the RV by 0 to 3 voxels, further in the second repetition: p2 < p1 < p3 < p4.
    assert chosen == {"best": "p2", "median": "p3", "worst": "p4"}


def test_cases_can_be_those_of_another_row(collected, tmp_path):
    write_report(collected, tmp_path / "out", cases_of="Dense & full")
    chosen = {entry["choice"]: entry["case"] for entry in read_csv(tmp_path / "out" / "data" / "pictures.csv")}
    assert chosen == {"best": "p1", "median": "p3", "worst": "p4"}
    with pytest.raises(AttenScribbleError, match="no result of a row 'Unet' to choose cases by; there are Dense"):
        write_report(collected, tmp_path / "other", cases_of="Unet")
    assert not (tmp_path / "other").exists()


def test_the_slice_with_most_foreground_is_shown_and_scored(report):
    rows = read_csv(report / "data" / "pictures.csv")
    assert {entry["slice"] for entry in rows} == {"2"}
    (entry,) = [row for row in rows if (row["choice"], row["row"], row["structure"]) == ("worst", ROWS[2][0], "RV")]
    # In slice 2 the RV is 6 x 6, moved by 3 along x in the repetition that is shown: half of it is left.
    assert SHIFTS[ROWS[2][0]][3] == 3
    assert float(entry["dice_of_slice"]) == pytest.approx(0.5)
    # Beside it the whole case of that repetition, not the mean of both: of 8 more voxels in slice 1 two are left.
    assert float(entry["dice"]) == pytest.approx(20 / 44)


def test_a_slice_that_was_scored_by_itself_is_the_one_that_is_shown(collected):
    data = read_collected(collected)
    cells = tuple(
        replace(cell, summary=replace(cell.summary, cases={"p1_slice000": cell.summary.cases["p1"]}))
        for cell in data.cells
    )
    found = read_slice(replace(data, cells=cells), "p1_slice000", STRUCTURES, "chaos-pacingpseudo")
    assert found.position == 0
    assert found.image.dtype == np.float64  # only the slice: the volume is kept as it is read
    # Drawn are rows 6 to 7 and columns 4 to 9, where the RV lies or is predicted; the margin is a tenth of 24 pixels.
    assert found.dense.shape == (2 + 2 * 3, 6 + 2 * 3)
    assert found.dense[3:5, 3:7].all()
    assert np.count_nonzero(found.dense) == 8
    assert found.spacing == (2.0, 1.0)


def test_strokes_of_background_are_shown_too(tmp_path, folder):
    file = tmp_path / "data" / "scribbles" / "p1.nii.gz"
    image = sitk.ReadImage(str(file))
    image[2:22, 19, 1] = 0
    sitk.WriteImage(image, str(file))
    found = read_slice(read_collected(folder), "p1", STRUCTURES, "default")
    assert np.count_nonzero(found.scribble == 0) == 17 + 20


def test_every_file_is_read_once(collected, monkeypatch):
    read, real = [], volumes.read_image
    monkeypatch.setattr(volumes, "read_image", lambda file: read.append(file) or real(file))
    found = read_slice(read_collected(collected), "p1", STRUCTURES, "default")
    assert len(read) == len(set(read)) == 3 + len(found.predictions)  # image, dense label and scribble


def test_a_case_that_is_called_like_a_slice_is_shown(tmp_path, monkeypatch):
    renamed = ("p1_slice001", "p1_slice002", "p1_slice003", "p2_slice001")
    monkeypatch.setattr("tests.evaluation.collected_folder.CASES", renamed)
    write_report(write_collected(tmp_path / "collected"), tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "data" / "pictures.csv")
    assert {entry["choice"]: entry["case"] for entry in rows} == {
        "best": "p1_slice002", "median": "p1_slice003", "worst": "p2_slice001"
    }  # fmt: skip
    assert {entry["slice"] for entry in rows} == {"2"}


def test_slices_are_taken_across_the_coarsest_axis(tmp_path, folder):
    for file in {file.resolve() for file in tmp_path.rglob("p1*.nii.gz")}:
        image = sitk.ReadImage(str(file))
        image.SetSpacing((5.0, 1.0, 2.0))
        sitk.WriteImage(image, str(file))
    found = read_slice(read_collected(folder), "p1", STRUCTURES, "default")
    # Across x, of spacing 5: the LV is 2 x 6 in columns 14 to 17, the RV at most 8 pixels in a column.
    assert found.position == 14
    assert found.spacing == (2.0, 1.0)


def test_a_single_slice_is_not_looked_at_from_its_side(tmp_path, folder):
    for file in {file.resolve() for file in tmp_path.rglob("p1*.nii.gz")}:
        image = sitk.ReadImage(str(file))[:, :, 2:3]
        image.SetSpacing((1.5, 2.0, 1.0))  # along z a placeholder
        sitk.WriteImage(image, str(file))
    found = read_slice(read_collected(folder), "p1", STRUCTURES, "default")
    assert found.position == 0
    assert found.spacing == (2.0, 1.5)


def test_scans_can_be_left_out(collected, tmp_path):
    write_report(collected, tmp_path / "out", scans=False)
    assert not list((tmp_path / "out" / "figures").glob("*_scan.png"))
    assert not (tmp_path / "out" / "data" / "pictures.csv").exists()
    assert "Best, median" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_rows_that_are_called_like_other_pictures_have_their_own(tmp_path, folder):
    file = folder / "collected.json"
    text = file.read_text().replace('"slug": "partial_ce"', '"slug": "scribble"')
    file.write_text(text.replace('"slug": "method_new"', '"slug": "scan"'))
    figures = write_report(folder, tmp_path / "out").parent / "figures"
    best = {shown.stem: shown.read_bytes() for shown in figures.glob("best_*")}
    assert len(best) == 2 + len(ROWS)  # scan, scribble and a prediction of each row, no two alike
    assert len(set(best.values())) == len(best)


def test_a_case_whose_files_are_gone_is_told(tmp_path, folder):
    (tmp_path / "data" / "images" / "p4_0000.nii.gz").unlink()
    (tmp_path / "data" / "labels" / "p2.nii.gz").write_text("damaged")
    text = write_markdown(folder, tmp_path / "out")
    assert "Not shown: there is no image of p4" in text
    assert "p2.nii.gz: is named .gz but is not gzip data" in text
    assert "median_scan.png" in text


def test_a_prediction_of_another_shape_is_told(tmp_path, folder):
    file = folder / "cells" / "seed_0" / "fold_0" / "partial_ce" / "predictions" / "p4.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(file))
    assert "p4.nii.gz: size (4, 3, 2) differs from (24, 20, 3) of" in write_markdown(folder, tmp_path / "out")


def test_files_are_drawn_on_each_other_in_whatever_order_they_are_stored(tmp_path, folder):
    before = read_slice(read_collected(folder), "p1", STRUCTURES, "default")
    flips = iter([(True, False, True), (False, True, False), (True, True, True)] * 4)
    for file in sorted(folder.rglob("p1*.nii.gz")):
        image = sitk.ReadImage(str(file))
        sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(image, (2, 0, 1)), next(flips), False), str(file))
    for file in sorted((tmp_path / "data" / "labels").glob("p1*.nii.gz")):  # on which the case was scored
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "RAS"), str(file))  # it is shown as LPS
    after = read_slice(read_collected(folder), "p1", STRUCTURES, "default")
    for name in ("image", "dense", "scribble"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert list(after.predictions) == list(before.predictions)
    for name in after.predictions:
        np.testing.assert_array_equal(after.predictions[name], before.predictions[name])


def test_files_that_do_not_lie_on_each_other_are_not_drawn(tmp_path, folder):
    (file,) = (tmp_path / "data" / "images").glob("p1_0000.nii.gz")
    image = sitk.ReadImage(str(file))
    image.SetOrigin((100, 0, 0))
    sitk.WriteImage(image, str(file))
    with pytest.raises(AttenScribbleError, match=r"p1_0000\.nii\.gz: origin \(100, 0, 0\) differs from \(0, 0, 0\)"):
        read_slice(read_collected(folder), "p1", STRUCTURES, "default")


# --- what is not there, or not whole ---


def test_without_the_reference_there_are_curves_and_no_comparison(tmp_path):
    folder = write_collected(tmp_path / "collected", missing=("seed_0/fold_0/dense_full",))
    text = write_markdown(folder, tmp_path / "out")
    assert "'Dense & full' has no whole repetition yet, so there is nothing to compare with" in text
    assert "training_partial_ce.png" in text
    assert "scatter" not in text


def test_nothing_at_all_is_refused(tmp_path):
    missing = tuple(f"seed_0/fold_0/{slug}" for slug in SLUGS.values())
    folder = write_collected(tmp_path / "collected", missing=missing)
    with pytest.raises(AttenScribbleError, match="no complete cell"):
        write_report(folder, tmp_path / "out")


def test_every_damaged_file_is_told(tmp_path, folder):
    (folder / "rows" / "partial_ce" / "seed_0" / "attenscribble_summary.json").write_text("{")
    (folder / "cells" / "seed_0" / "fold_0" / "method_new" / "attenscribble_summary.json").unlink()
    (folder / "comparison.csv").unlink()
    with pytest.raises(AttenScribbleError) as error:
        write_report(folder, tmp_path / "out")
    assert len(error.value.problems) == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema": "nnunet-attenscribble/collected"}'])
def test_what_is_no_collected_benchmark_is_refused(tmp_path, content):
    (tmp_path / "collected.json").write_text(content)
    with pytest.raises(AttenScribbleError, match=r"collected\.json"):
        read_collected(tmp_path)


def test_a_collected_benchmark_with_keys_missing_is_damaged(tmp_path, folder):
    content = json.loads((folder / "collected.json").read_text())
    for key in ("cells", "rows", "test", "scribbles"):
        (folder / "collected.json").write_text(
            json.dumps({name: value for name, value in content.items() if name != key})
        )
        with pytest.raises(AttenScribbleError, match=f"has no '{key}'"):
            read_collected(folder)


@pytest.mark.parametrize("missing", ["scribble", "epochs"])
def test_a_collected_benchmark_names_both_twins_and_whole_budgets(tmp_path, folder, missing):
    content = json.loads((folder / "collected.json").read_text())
    del (content["datasets"] if missing == "scribble" else content["rows"][0]["budget"])[missing]
    (folder / "collected.json").write_text(json.dumps(content))
    with pytest.raises(AttenScribbleError, match=missing):
        write_report(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["training_log.csv", "loss_terms.csv"])
def test_damaged_curves_are_told(tmp_path, folder, name):
    (folder / "cells" / "seed_0" / "fold_0" / "partial_ce" / name).write_text("epoch,total\n0,much\n")
    with pytest.raises(AttenScribbleError, match=f"{name} is damaged"):
        write_report(folder, tmp_path / "out")


def test_a_report_is_replaced_and_anything_else_is_left_alone(collected, report, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(report, output)
    for name in ("figures/stale.png", "figures/.DS_Store", "figures/Thumbs.db", ".DS_Store"):
        (output / name).touch()
    write_report(collected, output, scans=False)
    assert not (output / "figures" / "stale.png").exists()
    (output / "thesis.tex").touch()
    with pytest.raises(AttenScribbleError, match=r"something else than a report \(thesis\.tex\)"):
        write_report(collected, output)
    assert (output / "report.html").exists()
    with pytest.raises(AttenScribbleError, match="folder to report on"):
        write_report(collected, collected)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(("page", "own"), [(False, "figures/a.png"), (True, "figures/a.svg"), (True, "data/b/c.csv")])
def test_figures_and_data_of_somebody_else_are_left_alone(collected, tmp_path, page, own):
    file = tmp_path / own
    file.parent.mkdir(parents=True)
    for name in (file, *[tmp_path / "report.html"] * page):
        name.touch()
    with pytest.raises(AttenScribbleError, match="something else than a report"):
        write_report(collected, tmp_path, scans=False)
    assert file.exists()


def test_a_place_that_cannot_be_written_is_told(collected, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AttenScribbleError, match="file"):
            write_report(collected, output, scans=False)


@pytest.mark.parametrize("name", ["$5 per case", r"$\nonsense$", "100 % {braces} _under", "<script>alert(1)</script>"])
def test_names_are_shown_as_they_are(tmp_path, folder, name):
    for file in [*folder.rglob("*.json"), folder / "comparison.csv"]:
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("Partial CE", json.dumps(name)[1:-1]).replace('"RV"', json.dumps(name)))
    page = write_report(folder, tmp_path / "out", scans=False)
    text = page.read_text(encoding="utf-8")
    assert name in unescape(text)
    assert "<script" not in text


def test_the_command(collected, tmp_path):
    result = CliRunner().invoke(app, ["report", str(collected), "-o", str(tmp_path / "out"), "--no-scans"])
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'out' / 'report.html'}" in result.output
    assert "Example:" in CliRunner().invoke(app, ["report", "--help"]).output
