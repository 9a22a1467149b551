"""The pages tell what the scores in results/ give: their tables are generated from these, here once more."""

from __future__ import annotations

import csv
import itertools
import re
import shlex
from pathlib import Path
from statistics import fmean, median

import pytest
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.evaluation.benchmark.file import Benchmark, name_folder, read_benchmark
from nnunet_attenscribble.evaluation.kept_scores import POSTPROCESSED, SCORES_FILE, read_kept
from tools.site import results_tables
from tools.site.results_tables import PAGES, RESULTS, TABLES, fill_in, list_rows

ROOT = Path(__file__).parents[3]
EXPERIMENTS = sorted(folder.name for folder in RESULTS.iterdir())
TEXT = "".join(page.read_text() for page in PAGES)
# A difference or a mean with its interval; minus signs and decimals as tables have them.
INTERVAL = re.compile(r"[+-]?\d+\.\d+ \[-?\d+\.\d+, -?\d+\.\d+\]")


def find_benchmark(experiment: str) -> Benchmark:
    own = RESULTS / experiment / "benchmark.yaml"
    return read_benchmark(own if own.exists() else ROOT / "examples" / f"{experiment}.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_and_effects_are_those_of_the_kept_scores(page):
    text = page.read_text()
    assert fill_in(text) == text, "run python -m tools.site.results_tables"


def test_every_table_stands_on_a_page():
    assert set(re.findall(r"<!-- generated: (.+) -->", TEXT)) == set(TABLES)


def test_a_mean_distance_stands_beside_the_organs_that_are_not_in_it():
    line = next(line for line in TABLES["scores hippocampus_cpu"]().splitlines() if line.startswith("|Partial CE|"))
    assert "|16.96 (2 missed)|3.83 (2 missed)|" in line


def test_a_wrong_digit_is_mended():
    table = TABLES["similarity"]()
    page = f"before\n<!-- generated: similarity -->\n{table}\n<!-- end -->\nbehind\n"
    assert fill_in(page.replace("0.79", "0.80")) == page
    effect = "| what | {} <!-- acdc_full_plan/attenscribble minus acdc_full_plan/masked_crf --> | kept |\n"
    assert fill_in(effect.format("+1.000")) == effect.format("-0.000 [-0.003, 0.003], p=0.443")
    with pytest.raises(KeyError, match="acdc_cpu has no row other"):
        fill_in("| <!-- acdc_cpu/other minus acdc_cpu/masked_crf --> |")


def test_what_the_text_says_with_an_interval_is_in_a_table():
    lines = TEXT.splitlines()
    told = {figure for line in lines if not line.startswith("|") for figure in INTERVAL.findall(line)}
    assert told
    assert told <= {figure for line in lines if line.startswith("|") for figure in INTERVAL.findall(line)}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_kept_score_tells_what_it_rests_on(experiment):
    for training, summary in read_kept(RESULTS / experiment).items():
        origin = summary.provenance
        assert {"row", "seed", "fold", "plans_sha256", "commit_training", "commit"} <= set(origin), training
        assert ("postprocessing" in origin) == training.endswith(f"/{POSTPROCESSED}"), training
        place = f"seed_{origin['seed']}/fold_{origin['fold']}/{name_folder(str(origin['row']))}"
        assert training.removesuffix(f"/{POSTPROCESSED}") == place


@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name != "acdc_full_plan"])
def test_rows_are_those_of_the_benchmark_file(experiment):
    benchmark = find_benchmark(experiment)
    rows = list_rows(experiment)
    named = {row.folder: row.name for row in benchmark.rows}
    assert list(rows.items()) == [(folder, name) for folder, name in named.items() if folder in rows]
    home = results_tables.EXPERTS if experiment == results_tables.RIVALS else experiment  # of the row of dense labels
    assert results_tables.DENSE in list_rows(home)
    assert {training.split("/")[0] for training in read_kept(RESULTS / experiment)} <= {
        f"seed_{seed}" for seed in benchmark.seeds
    }
    assert benchmark.subject == results_tables._subject(experiment)
    assert named[results_tables.DENSE] == benchmark.reference


def test_the_rivals_stand_beside_rows_that_their_own_file_would_train_alike():
    files = [find_benchmark(experiment) for experiment in (results_tables.EXPERTS, results_tables.RIVALS)]
    experts, rivals = ({row.folder: row for row in file.rows} for file in files)
    for row in itertools.chain(*results_tables.BESIDE_RIVALS):
        assert experts[row] == rivals[row]
    assert not set(list_rows(results_tables.RIVALS)) & set(experts)
    trainings = [
        kept for name in (results_tables.EXPERTS, results_tables.RIVALS) for kept in read_kept(RESULTS / name).values()
    ]
    for key in ("epochs", "iterations_per_epoch", "splits_sha256"):
        assert len({str(kept.provenance[key]) for kept in trainings}) == 1


def run_compare(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["compare", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


FULL_PLAN = {
    "nnu_net_dense_labels": "0.894 [0.882, 0.905] | 100.0 % | 7.65 | 1.17",
    "attenscribble": "0.861 [0.849, 0.872] | 96.3 % | 7.50 | 1.29",
    "masked_crf": "0.862 [0.851, 0.872] | 96.4 % | 8.98 | 1.50",
    "attenscribble_block_at_a_quarter_similarity_weight_1": "0.846 [0.831, 0.859] | 94.6 % | 6.95 | 1.21",
    "nnu_net_scribbles": "0.700 [0.678, 0.723] | 78.3 % | 140.71 | 37.78",
}


def test_compare_gives_the_table_that_the_full_plan_was_published_with():
    dense, *others = [f"{row}={RESULTS / 'acdc_full_plan' / row}" for row in FULL_PLAN]
    output = run_compare(*others, "-r", dense, "--subject", "patient[0-9]+")
    for row, numbers in FULL_PLAN.items():
        assert f"| {row} | {numbers} |" in output
    assert "| attenscribble | foreground mean | -0.033 [-0.037, -0.028] | <0.001, <0.001 | -0.15 [" in output
    assert "| attenscribble | RV | -0.008 [-0.017, 0.000] | 0.052, 0.052 |" in output
    assert "- Tested on the 15 MAAG test patients" in output


@pytest.mark.parametrize(
    ("experiment", "seeds", "folds"),
    [("acdc_cpu", "01", "0"), ("hippocampus_cpu", "01", "01")],
    ids=lambda value: value,
)
def test_compare_gives_what_the_table_of_steps_says(experiment, seeds, folds):
    """The command with every training by its name, against the table with rows."""
    own, other = (
        [f"{row}={RESULTS / experiment}/seed_{seed}/fold_{fold}/{row}" for seed in seeds for fold in folds]
        for row in ("attenscribble", "masked_crf")
    )
    subject = ["--subject", "patient[0-9]+"] if experiment.startswith("acdc") else []
    output = run_compare(*own, *(word for model in other for word in ("-r", model)), *subject)
    dice, _, p = re.search(r"\| attenscribble \| foreground mean \| ((\S+ ){3})\| \S+, (\S+) \|", output).groups()
    line = next(line for line in TABLES["steps"]().splitlines() if "|AttenScribble minus Masked CRF|" in line)
    assert f"|{dice.strip()}, p={p}|" in line


def test_the_commands_of_the_pages_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^attenscribble compare (.+)$", TEXT, re.MULTILINE)
    assert commands
    for command in commands:
        run_compare(*shlex.split(command))


def read_volumes(experiment: str, row: str, structure: str) -> float:
    """From the CSV file alone: predicted by true volume, median over cases of the mean over trainings."""
    shares: dict[str, list[float]] = {}
    with (RESULTS / experiment / SCORES_FILE).open(newline="") as lines:
        for line in csv.DictReader(lines):
            if line["training"].split("/")[2:] == [row]:
                share = int(line[f"{structure} prediction_voxels"]) / int(line[f"{structure} dense_voxels"])
                shares.setdefault(line["case"], []).append(share)
    return median(fmean(runs) for runs in shares.values())


def test_volumes_are_those_of_the_files():
    near = read_volumes("acdc_generated_cpu", "masked_crf", "MYO")
    assert f"times the true one with the CRF, near {near:.2f}" in " ".join(TEXT.split())
    for experiment, row, structure in (
        ("acdc_generated_cpu", "masked_crf", "MYO"),
        ("hippocampus_cpu", "attention", "posterior"),
        ("acdc_full_plan", "attenscribble", "LV"),
    ):
        comparison = results_tables.compare(experiment, (row,), row)
        assert comparison.get(row, structure, "volume_share").median == read_volumes(experiment, row, structure)
