"""docs/results.md and docs/experiments.md tell what the scores in results give."""

from __future__ import annotations

import csv
import shlex
from functools import cache
from pathlib import Path
from statistics import fmean, median

import pytest
from typer.testing import CliRunner

from nnunet_attenscribble.cli.app import app
from nnunet_attenscribble.evaluation.benchmark.file import name_folder, read_benchmark
from nnunet_attenscribble.evaluation.compare import compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import WRITERS
from nnunet_attenscribble.evaluation.kept_scores import POSTPROCESSED, read_kept
from nnunet_attenscribble.evaluation.pooling import pool_runs
from nnunet_attenscribble.evaluation.summary import Summary

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "results"
REFERENCE = "nnU-Net, dense labels"
DOCUMENT = "".join((ROOT / "docs" / page).read_text() for page in ("results.md", "experiments.md"))


@cache
def load(benchmark: str) -> dict[str, Summary]:
    """Kept scores by training."""
    return read_kept(KEPT / benchmark)


def find_example(benchmark: str) -> Path:
    own = KEPT / benchmark / "benchmark.yaml"
    return own if own.exists() else ROOT / "examples" / f"{benchmark}.yaml"


def kept_rows(benchmark: str, further: bool = False) -> dict[str, list[str]]:
    """By row, its trainings, in the order of the example's rows; with further ones than the example's."""
    example = read_benchmark(find_example(benchmark))
    trainings: dict[str, list[str]] = {}
    for training, summary in load(benchmark).items():
        if (further or int(summary.provenance["seed"]) in example.seeds) and not training.endswith(POSTPROCESSED):
            trainings.setdefault(str(summary.provenance["row"]), []).append(training)
    rows = [row.name for row in example.rows]
    assert set(trainings) <= set(rows), "kept scores of rows that the example does not have"
    return {name: sorted(trainings[name]) for name in rows if name in trainings}


def marked(mark: str) -> list[str]:
    """The lines of the document between this mark and the next end."""
    _, begins, rest = DOCUMENT.partition(f"<!-- {mark} -->\n")
    block, ends, _ = rest.partition("<!-- end -->\n")
    assert begins
    assert ends
    return block.splitlines()


def tables(benchmark: str) -> list[str]:
    """The rows of the first two tables: all metrics, and the Dice of every structure."""
    kept = load(benchmark)
    pooled = {name: pool_runs(name, [kept[one] for one in own]) for name, own in kept_rows(benchmark).items()}
    example = read_benchmark(find_example(benchmark))
    comparison = compare_summaries(pooled, REFERENCE, subject=example.subject)
    text = "\n#### ".join(WRITERS[".md"](comparison).split("\n#### ")[:2])
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]


def split_cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| ").split(" | ")]


def halves(benchmark: str) -> tuple[list[list[str]], list[list[str]]]:
    """The cells of the two tables, headings included."""
    rows = [split_cells(row) for row in tables(benchmark)]
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


CPU = sorted(folder.name for folder in KEPT.iterdir() if folder.name.endswith("_cpu"))
GLANCE = ["acdc_cpu", "acdc_generated_cpu", "hippocampus_cpu"]


def glance() -> list[str]:
    """The table at the top: of the rows that all three benchmarks have been compared by, what their tables say."""
    cells: dict[str, list[str]] = {}
    for benchmark in GLANCE:
        for name, dice, share, hausdorff, *_ in halves(benchmark)[0]:
            cells.setdefault(name, []).append(f"{dice.partition(' ')[0]}, {share}, {hausdorff}")
    cells.pop("model")
    return [f"| {name} | {' | '.join(found)} |" for name, found in cells.items() if len(found) == len(GLANCE)]


def test_the_overview_has_what_the_tables_say():
    assert len(glance()) > 4
    assert "|---|---:|---:|---:|\n" + "\n".join(glance()) + "\n\n" in DOCUMENT


@pytest.mark.parametrize("benchmark", CPU)
def test_the_document_has_the_tables_of_the_kept_scores(benchmark):
    rows = tables(benchmark)
    assert len(rows) > 4
    assert [line for line in marked(benchmark) if line.startswith("| ")] == rows  # none of them left over either


def postprocessed_rows(benchmark: str) -> list[str]:
    """Of the cells whose predictions were postprocessed as well: mean Dice and HD95 without and with it."""
    rows = []
    kept = load(benchmark)
    for name, trainings in kept_rows(benchmark, further=True).items():
        both = [training for training in trainings if f"{training}/{POSTPROCESSED}" in kept]
        if both:
            before = pool_runs(name, [kept[training] for training in both])
            behind = pool_runs(name, [kept[f"{training}/{POSTPROCESSED}"] for training in both])
            means = [summary.aggregate()["foreground_mean"] for summary in (before, behind)]
            dice = " → ".join(f"{mean['dice']['mean']:.3f}" for mean in means)
            distance = " → ".join(f"{mean['hd95_mm']['mean']:.1f}" for mean in means)
            rows.append(f"| {name} | {dice} | {distance} | {max(1, len(before.runs))} |")
    return rows


@pytest.mark.parametrize("benchmark", ["acdc_generated_cpu", "hippocampus_cpu"])
def test_the_document_has_the_kept_scores_with_and_without_postprocessing(benchmark):
    rows = postprocessed_rows(benchmark)
    assert len(rows) > 4
    assert marked(f"{benchmark}, postprocessed")[2:] == rows


def test_the_table_of_single_trainings_has_the_kept_postprocessed_scores():
    _, _, table = DOCUMENT.partition("HD95 of single trainings")
    lines = [line for line in table.partition("\n\n### ")[0].splitlines() if line.startswith("| ")]
    told = {name: (dice.split(", "), distance.split(", ")) for name, dice, distance in map(split_cells, lines)}
    kept = [summary for training, summary in load("acdc_cpu").items() if training.endswith(POSTPROCESSED)]
    assert kept
    for summary in kept:
        seed, means = int(summary.provenance["seed"]), summary.aggregate()["foreground_mean"]
        dice, distance = told[str(summary.provenance["row"])]
        assert f"{means['dice']['mean']:.3f}" == dice[seed]
        assert f"{means['hd95_mm']['mean']:.1f}" == distance[seed]


IN_THE_README = {
    "nnU-Net on dense labels": "nnU-Net, dense labels",
    "AttenScribble on scribbles": "AttenScribble",
    "without the similarity (`Attention`)": "Attention",
    "without the block as well (`MaskedCRF`)": "Masked CRF",
    "nnU-Net on scribbles (its own partial loss)": "nnU-Net, scribbles",
    "partial cross-entropy on scribbles": "Partial CE",
}


def test_the_readme_has_rows_of_the_table_of_acdc():
    metrics, dice = ({row[0]: row for row in half} for half in halves("acdc_cpu"))
    _, begins, table = (ROOT / "README.md").read_text().partition("| model | runs | Dice [95 % interval] |")
    assert begins
    told = [split_cells(line) for line in table.partition("\n\n")[0].splitlines()[2:]]
    assert [name for name, *_ in told] == list(IN_THE_README)
    for name, runs, mean, share, *classes, hausdorff, surface in told:
        row = metrics[IN_THE_README[name]]
        assert [mean, runs] == [row[1], row[7]]
        assert float(share.removesuffix(" %")) == float(row[2].removesuffix(" %"))
        assert classes == [cell.split(" ")[0] for cell in dice[IN_THE_README[name]][1:4]]
        assert float(hausdorff) == pytest.approx(float(row[3]), abs=0.056)  # rounded twice
        assert float(surface) == pytest.approx(float(row[4]), abs=0.056)


CLASSES = {
    "acdc_cpu": ["background", "RV", "MYO", "LV"],
    "hippocampus_earlier_windows_cpu": ["background", "anterior", "posterior"],
}


def kept_similarities(benchmark: str, row: str) -> dict[frozenset[str], float]:
    """By pair of classes: mean over volumes, each the mean over its trainings, of neighbours within the window."""
    values: dict[frozenset[str], dict[str, list[float]]] = {}
    with (KEPT / benchmark / "similarity.csv").open(newline="") as lines:
        for line in csv.DictReader(lines):
            if line["training"].split("/")[2] == row:
                cases = values.setdefault(frozenset((line["first"], line["second"])), {})
                cases.setdefault(line["case"], []).append(float(line["mean"]))
    return {pair: fmean(fmean(runs) for runs in cases.values()) for pair, cases in values.items()}


def similarity_rows(benchmark: str) -> list[str]:
    """The rows of the table of similarities, with the affinity loss and with the cross-entropy."""
    before, now = kept_similarities(benchmark, "attenscribble_affinity"), kept_similarities(benchmark, "attenscribble")
    rows = []
    for one in CLASSES[benchmark]:
        pairs = [frozenset((one, other)) for other in CLASSES[benchmark]]
        rows.append(f"| {one} | {' | '.join(f'{before[pair]:.2f} → {now[pair]:.2f}' for pair in pairs)} |")
    return rows


@pytest.mark.parametrize("benchmark", CLASSES)
def test_the_document_has_the_kept_similarities(benchmark):
    assert "\n".join(similarity_rows(benchmark)) in DOCUMENT


def kept_volumes(benchmark: str, row: str, structure: str) -> float:
    """A structure's predicted volume by its true one: median over volumes, each the mean over its trainings."""
    shares: dict[str, list[float]] = {}
    for training, summary in load(benchmark).items():
        if training.split("/")[2:] != [row]:
            continue
        for case, structures in summary.cases.items():
            scores = structures[structure]
            shares.setdefault(case, []).append(scores.prediction_voxels / scores.dense_voxels)
    return median(fmean(runs) for runs in shares.values())


def test_the_document_has_the_volumes_with_the_background_far_and_near():
    _, _, table = DOCUMENT.partition("| MYO's volume, far | near |\n")
    rows = [line.split(" | ") for line in table.partition("\n\n")[0].splitlines()[1:]]
    assert len(rows) >= 3
    for name, *_, far, near in rows:
        row = name_folder(name.removeprefix("| "))
        assert f"{kept_volumes('acdc_far_background_cpu', row, 'MYO'):.2f}" == far
        assert f"{kept_volumes('acdc_generated_cpu', row, 'MYO'):.2f}" == near.removesuffix(" |")
    for row, told in (("attenscribble", "MYO's volume is {} times the true"), ("nnu_net_dense_labels", "labels {})")):
        assert told.format(f"{kept_volumes('acdc_cpu', row, 'MYO'):.2f}") in DOCUMENT


def test_every_kept_score_tells_what_it_rests_on():
    for folder in KEPT.iterdir():
        for training, summary in load(folder.name).items():
            origin = summary.provenance
            assert {"row", "seed", "fold", "plans_sha256", "commit_training", "commit"} <= set(origin), training
            assert ("postprocessing" in origin) == training.endswith(f"/{POSTPROCESSED}"), training
            place = f"seed_{origin['seed']}/fold_{origin['fold']}/{name_folder(str(origin['row']))}"
            assert training.removesuffix(f"/{POSTPROCESSED}") == place


FULL_PLAN = {
    "nnu_net_dense_labels": "0.894 [0.882, 0.905] | 100.0 % | 7.65 | 1.17",
    "attenscribble": "0.861 [0.849, 0.872] | 96.3 % | 7.50 | 1.29",
    "masked_crf": "0.862 [0.851, 0.872] | 96.4 % | 8.98 | 1.50",
    "attenscribble_stride_4_similarity_weight_1": "0.846 [0.831, 0.859] | 94.6 % | 6.95 | 1.21",
    "nnu_net_scribbles": "0.700 [0.678, 0.723] | 78.3 % | 140.71 | 37.78",
}


def test_compare_gives_the_table_that_the_full_plan_was_published_with():
    dense, *others = [f"{row}={KEPT / 'acdc_full_plan' / row}" for row in FULL_PLAN]
    result = CliRunner().invoke(app, ["compare", *others, "-r", dense, "--subject", "patient[0-9]+"])
    assert result.exit_code == 0, result.output
    for row, numbers in FULL_PLAN.items():
        assert f"| {row} | {numbers} |" in result.output
    assert "| attenscribble | foreground mean | -0.033 [-0.037, -0.028] | <0.001, <0.001 | -0.15 [" in result.output
    assert "| attenscribble | RV | -0.008 [-0.017, 0.000] | 0.052, 0.052 |" in result.output
    assert "- Tested on the 15 MAAG test patients" in result.output


def test_the_commands_of_the_document_give_its_differences(monkeypatch):
    told = [
        ["+0.147 | [0.111, 0.188]", "RV +0.227", "MYO +0.079", "LV +0.136"],
        ["+0.018 | [-0.005, 0.046]", "MYO +0.005"],
        ["+0.003 | [-0.003, 0.008]"],
        ["+0.025 | [0.001, 0.053]"],
        ["+0.005 | [-0.003, 0.013]"],
        ["+0.161 | [0.126, 0.200]", "RV +0.290", "MYO +0.105", "LV +0.088"],
        ["-0.003 | [-0.031, 0.033]", "MYO -0.023"],
        ["+0.002 | [-0.003, 0.006]"],
        ["+0.008 | [0.003, 0.014]", "LV +0.014"],
        ["+0.007 | [0.003, 0.012]", "LV +0.018"],
        ["+0.022 | [0.013, 0.034]"],
        ["+0.015 | [0.006, 0.027]"],
        ["-0.014 | [-0.028, -0.003]"],
        ["+0.078 | [0.061, 0.095]"],
        ["-0.050 | [-0.059, -0.041]"],
        ["-0.032 | [-0.064, -0.001]"],
        ["+0.109 | [0.076, 0.145]"],
        ["+0.010 | [0.001, 0.020]"],
        ["+0.016 | [0.006, 0.028]"],
        ["+0.005 | [-0.024, 0.040]"],
        ["+0.001 | [-0.014, 0.013]"],
        ["-0.006 | [-0.020, 0.007]", "LV -0.012"],
        ["+0.016 | [-0.001, 0.034]"],
        ["+0.036 | [0.027, 0.045]", "anterior +0.027", "posterior +0.045"],
        ["-0.022 | [-0.029, -0.015]"],
        ["+0.382 | [0.351, 0.412]"],
        ["+0.014 | [0.009, 0.020]"],
        ["-0.005 | [-0.009, 0.000]"],
        ["+0.012 | [0.005, 0.020]"],
        ["+0.029 | [0.022, 0.036]"],
        ["+0.043 | [0.035, 0.052]"],
        ["-0.007 | [-0.010, -0.004]", "posterior -0.008"],
        ["-0.017 | [-0.024, -0.010]"],
        ["+0.010 | [0.003, 0.017]"],
        ["+0.009 | [0.003, 0.015]"],
        ["+0.001 | [-0.003, 0.004]"],
        ["+0.002 | [-0.003, 0.006]"],
        ["-0.012 | [-0.017, -0.007]"],
        ["-0.004 | [-0.009, -0.000]"],
        ["+0.039 | [0.029, 0.050]"],
        ["-0.019 | [-0.026, -0.013]"],
        ["+0.023 | [0.015, 0.030]"],
        ["+0.009 | [0.000, 0.016]"],
        ["+0.022 | [0.012, 0.036]", "MYO +0.049"],
        ["+0.034 | [0.022, 0.053]", "MYO +0.060"],
        ["-0.025 | [-0.036, -0.015]", "RV -0.102", "MYO +0.067"],
        ["+0.115 | [0.080, 0.157]", "RV +0.172", "MYO +0.124", "LV +0.049"],
        ["-0.025 | [-0.047, 0.000]", "MYO -0.072"],
        ["+0.014 | [-0.004, 0.037]"],
        ["+0.018 | [0.003, 0.041]", "LV +0.024"],
        ["+0.016 | [0.008, 0.027]", "LV +0.034"],
        ["+0.001 | [-0.008, 0.015]"],
        ["+0.010 | [-0.001, 0.021]", "LV +0.028"],
        ["+0.035 | [0.019, 0.053]", "anterior +0.024", "posterior +0.045"],
        ["-0.030 | [-0.038, -0.023]"],
        ["+0.004 | [-0.007, 0.019]"],
        ["-0.016 | [-0.022, -0.010]", "posterior -0.024"],
    ]
    commands = []
    for line in DOCUMENT.splitlines():
        if line.startswith("cd "):
            folder = ROOT / line.removeprefix("cd ")
        elif line.startswith("attenscribble compare "):
            commands.append((folder, shlex.split(line)))
    for (folder, command), figures in zip(commands, told, strict=True):
        monkeypatch.chdir(folder)
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, result.output
        model = command[2].partition("=")[0]
        rows = [line for line in result.output.splitlines() if line.startswith(f"| {model} |")]
        for figure in figures:
            structure, _, value = figure.rpartition(" ") if "|" not in figure else ("foreground mean", "", figure)
            assert any(f"| {structure} | {value.replace(' | ', ' ')}" in row for row in rows), figure
            assert value.split(" ")[0] in DOCUMENT
