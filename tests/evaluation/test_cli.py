import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.summary import METRICS_FILE, SUMMARY_FILE, read_summary


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def evaluated(folders):
    predictions, dense = folders
    run("evaluate", predictions, dense, "--workers", 1)
    return predictions


def test_evaluate_prints_a_table_and_writes_beside_the_predictions(folders):
    predictions, dense = folders
    (predictions / "summary.json").write_text("nnU-Net's own")
    result = run("evaluate", predictions, dense, "--workers", 1)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert " ".join(lines[0].split()) == "label Dice HD95 (mm) ASSD (mm) volume/true missed spurious absent"
    assert " ".join(lines[1].split()) == "RV 0.750 ± 0.000 1.00 ± 0.00 0.25 ± 0.00 1.00 0 0 0"
    assert " ".join(lines[2].split()) == "MYO 1.000 ± 0.000 0.00 ± 0.00 0.00 ± 0.00 1.00 0 0 0"
    assert lines[3].startswith("foreground mean")
    assert "note: Slices lie up to 10 mm apart: HD95 moves in steps of the slice distance" in result.stdout
    assert f"wrote {predictions / SUMMARY_FILE}" in result.stdout
    assert read_summary(predictions).cases["a"]["RV"].dice == pytest.approx(0.75)
    assert (predictions / METRICS_FILE).read_text().count("\n") == 1 + 3 * 2
    assert (predictions / "summary.json").read_text() == "nnU-Net's own"
    assert not (dense / SUMMARY_FILE).exists()


@pytest.mark.parametrize(
    ("protocol", "titles"),
    [
        ("acdc-wsl4mis", "Dice HD95 (mm) ASD (mm)"),
        ("acdc-wsl4mis-voxels", "Dice HD95 (voxels) ASD (voxels)"),
        ("chaos-pacingpseudo", "Dice HD95 (mm)"),
        ("nnunet", "Dice"),
    ],
)
def test_columns_are_called_what_a_protocol_computes(folders, protocol, titles):
    header = run("evaluate", *folders, "--workers", 1, "--protocol", protocol).stdout.splitlines()[0]
    assert " ".join(header.split()) == f"label {titles} volume/true missed spurious absent"


def test_names_with_brackets_are_shown_as_they_are(folders, write_dataset_json, monkeypatch):
    write_dataset_json(folders[0], {"background": 0, "kidney [left]": 1, "a [/b]": 2})
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    monkeypatch.setenv("COLUMNS", "200")
    printed = run("evaluate", *folders, "--workers", 1).stdout
    assert "kidney [left]" in printed
    assert "a [/b]" in printed


def test_names_are_told_apart_on_a_narrow_terminal(folders, write_dataset_json, monkeypatch):
    write_dataset_json(folders[0], {"background": 0, "left_atrial_appendage": 1, "left_atrium_cavity": 2})
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    printed = run("evaluate", *folders, "--workers", 1, "--nsd", 1).stdout
    assert "…" not in printed.partition("note:")[0]


def test_options_of_evaluate(folders, tmp_path, write_dataset_json):
    write_dataset_json(tmp_path / "coding", {"background": 0, "heart": [1, 2]})
    arguments = ["-o", tmp_path / "a" / "b", "--dataset-json", tmp_path / "coding", "--hd95", "union", "--all-cases"]
    assert run("evaluate", *folders, *arguments, "--workers", 1).exit_code == 0
    summary = read_summary(tmp_path / "a" / "b")
    assert (summary.names, summary.hd95) == (["heart"], "union")
    assert not (folders[0] / SUMMARY_FILE).exists()
    options = ["--protocol", "scribblebench", "--nsd", "0.5", "--lesions", "RV=0.6", "--lesions", "MYO=.9"]
    result = run("evaluate", *folders, *options, "--workers", 1)
    assert result.stdout.splitlines()[0].split()[6:10] == ["NSD", "(0.5", "mm)", "lesion"]
    summary = read_summary(folders[0])
    assert (summary.protocol, summary.nsd_mm, summary.lesions) == ("scribblebench", 0.5, {"RV": 0.6, "MYO": 0.9})
    # The RV, all surface, lies one column further along x: 3 of 5 columns are shared, one of each mask's 4 is off.
    rv = summary.cases["a"]["RV"]
    assert (rv.lesions_found, rv.lesions_missed, rv.lesions_false, rv.lesion_f1) == (1, 0, 0, 1)
    assert (rv.nsd, summary.cases["a"]["MYO"].nsd) == (pytest.approx(1 - 16 / 64), 1)
    assert run("evaluate", *folders, "--hd95", "max").exit_code == 2
    assert run("evaluate", *folders, "--workers", 0).exit_code == 2


def test_definitions_that_do_not_go_together(folders):
    for arguments, messages in (
        (["--protocol", "nnunet", "--hd95", "union"], ["--hd95 union was given with --protocol nnunet"]),
        (
            ["--protocol", "acdc-wsl4mis", "--nsd", "2", "--lesions", "RV=0.1"],
            ["--nsd 2 was given with --protocol acdc-wsl4mis", "--lesions RV=0.1 was given with"],
        ),
        (
            ["--nsd", "0", "--lesions", "RV", "--lesions", "=0.5", "--lesions", "RV=0", "--lesions", "MYO=1.5"],
            ["--lesions is 'RV'", "--lesions is '=0.5'", "--nsd is 0: give", "RV an IoU of 0:", "MYO an IoU of 1.5:"],
        ),
        (["--nsd", "nan", "--lesions", "RV=nan"], ["--lesions is 'RV=nan'", "--nsd is nan"]),
        (["--lesions", "RV=0.1", "--lesions", "RV=0.2"], ["--lesions gives RV two thresholds"]),
        (["--lesions", "LV=0.1"], ["--lesions names LV, which "]),
    ):
        with pytest.raises(AttenScribbleError) as caught:
            run("evaluate", *folders, *arguments)
        assert len(caught.value.problems) == len(messages)
        for problem, message in zip(caught.value.problems, messages, strict=True):
            assert message in problem


def test_nothing_is_written_if_a_case_cannot_be_scored(folders, tmp_path):
    (folders[0] / "c.nii.gz").write_text("no image")
    with pytest.raises(AttenScribbleError, match="is not gzip data"):
        run("evaluate", *folders, "-o", tmp_path / "out", "--workers", 1)
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_written_to_are_told_first(folders, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AttenScribbleError, match=r"file is a file: give a folder"):
            run("evaluate", *folders, "-o", place)


def test_a_drive_that_is_not_there_is_told(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(AttenScribbleError, match="out is on a drive that is not there"):
        run("evaluate", *folders, "-o", tmp_path / "out")


def test_json_is_all_that_goes_to_stdout(folders, tmp_path):
    result = run("evaluate", *folders, "--workers", 1, "--json")
    assert json.loads(result.stdout) == json.loads((folders[0] / SUMMARY_FILE).read_text())
    assert "Scoring cases: 3 of 3" in result.stderr
    shutil.copytree(folders[0], tmp_path / "copy")
    result = run("compare", f"scribble={folders[0]}", "-r", f"dense={tmp_path / 'copy'}", "--json")
    assert json.loads(result.stdout)["models"] == ["dense", "scribble"]


def test_compare(evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path / "copy")
    files = [tmp_path / "new" / f"table{suffix}" for suffix in (".md", ".csv", ".json")]
    outputs = [argument for file in files for argument in ("-o", file)]
    result = run("compare", f"scribble={evaluated / SUMMARY_FILE}", "-r", f"dense={tmp_path / 'copy'}", *outputs)
    assert result.exit_code == 0
    assert "| scribble | 0.875 [0.875, 0.875] | 100.0 % |" in result.stdout
    assert files[0].read_text(encoding="utf-8") == result.stdout[:-1]
    assert files[1].read_text().startswith("model,structure,metric,")
    assert json.loads(files[2].read_text())["reference"] == "dense"


def test_errors_of_compare(evaluated, tmp_path):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "summary.json").write_text(json.dumps({"metric_per_case": []}))
    with pytest.raises(AttenScribbleError) as caught:
        run("compare", "folder", "=x", "a=", f"b={tmp_path / 'fold_0'}", "-r", f"dense={evaluated}")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "'folder' names no model",
        "'=x' names no model",
        "'a=' names no model",
        f"no {SUMMARY_FILE} at {tmp_path / 'fold_0'}",
    ]
    own = f"own={evaluated}"
    for arguments, message in (
        ([own, "-r", own], "own is a model and the reference"),
        ([own, "-r", f"a={evaluated}", "-r", f"b={evaluated}"], "--reference names several models"),
        ([own, own, "-r", f"dense={evaluated}"], "own has the same results twice, of the cases a, b, c"),
        ([own, "-r", f"dense={evaluated}", "-o", "table.txt"], "end its name in .md, .csv, .json"),
    ):
        with pytest.raises(AttenScribbleError) as caught:
            run("compare", *arguments)
        assert message in str(caught.value)


def test_scoring_starts_without_the_libraries_of_training(folders):
    code = (
        "import sys\nfrom nnunet_attenscribble.cli import app\n"
        "app(['evaluate', *sys.argv[1:], '--workers', '1'], standalone_mode=False)\n"
        "print({'torch', 'monai', 'nnunetv2', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_installed_command(folders):
    predictions, dense = folders
    program = [sys.executable, "-c", "from nnunet_attenscribble.cli import main; main()"]
    failed = subprocess.run(
        [*program, "evaluate", predictions, dense / "nowhere"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr == (
        f"error: no dense labels to compare with: {dense / 'nowhere'} is not a folder; give a folder of dense labels\n"
    )
