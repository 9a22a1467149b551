import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.kept_scores import (
    SCORES_FILE,
    TRAININGS_FILE,
    find_summaries,
    read_kept,
    write_kept,
)
from nnunet_attenscribble.evaluation.metrics import StructureScores
from nnunet_attenscribble.evaluation.structures import Structure
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, write_summary

NAN, INF = math.nan, math.inf
ABSENT = StructureScores("absent", NAN, NAN, NAN, NAN, NAN, 0, 0)
MISSED = StructureScores("missed", 0.0, 0.0, INF, INF, -0.5, 0, 25)


def make_summary(dice=0.1 + 0.2, *, row="masked, CRF", seed="0", cases="ab", **changes):
    """Cases of a structure that is missed or absent, and of one whose Dice is given; b has other voxels than a."""
    whole = StructureScores("present", dice, 0.25, 3.5, 1 / 3, 0.5, 75, 50)
    scores = {"a": {"RV": MISSED, "heart, whole": whole}, "b": {"RV": ABSENT, "heart, whole": whole}}
    summary = Summary(
        structures=(Structure("RV", (1,)), Structure("heart, whole", (1, 2))),
        cases={case: scores[case] for case in cases},
        shapes={case: {"a": (3, 4, 5), "b": (3, 4, 6)}[case] for case in cases},
        spacings=dict.fromkeys(cases, (10.0, 2.0, 1.5625)),
        notes=("Mind the gap.",),
        provenance={"row": row, "seed": seed, "plans_sha256": None, "splits_sha256": "1"},
        versions={"nnunet-attenscribble": "0.0", "torch": seed},
    )
    return replace(summary, **changes)


@pytest.fixture
def summaries():
    processed = {"row": "masked, CRF", "seed": "0", "postprocessing": "of RV"}
    return {
        "seed_0/fold_0/masked_crf": make_summary(0.3),
        "seed_0/fold_0/masked_crf/postprocessed": make_summary(0.4, provenance=processed),
        "seed_1/fold_0/masked_crf": make_summary(0.5, seed="1", notes=()),
        "seed_0/fold_1/dense": make_summary(0.6, row="dense", cases="b", not_predicted=("c",)),
    }


@pytest.fixture
def kept(tmp_path, summaries):
    write_kept(tmp_path / "new" / "kept", summaries)
    return tmp_path / "new" / "kept"


def test_what_is_written_is_read(kept, summaries):
    again = read_kept(kept)
    assert list(again) == list(summaries)
    for training, summary in summaries.items():
        assert repr(again[training].cases) == repr(summary.cases)  # NaN is not equal to itself, but reads the same
        assert replace(again[training], cases={}) == replace(summary, cases={})
    assert sorted(file.name for file in kept.iterdir()) == [SCORES_FILE, TRAININGS_FILE]
    lines = (kept / SCORES_FILE).read_text().splitlines()
    columns = [
        "status",
        "dice",
        "iou",
        "hd95_mm",
        "assd_mm",
        "volume_difference_ml",
        "prediction_voxels",
        "dense_voxels",
    ]
    named = [f"RV {column}" for column in columns] + [f'"heart, whole {column}"' for column in columns]
    assert lines[0] == f"training,case,{','.join(named)}"
    assert lines[1].startswith("seed_0/fold_0/masked_crf,a,missed,0.0,0.0,inf,inf,-0.5,0,25,present,0.3,")
    assert len(lines) == 1 + 3 * 2 + 1


@given(st.lists(st.floats(width=32) | st.floats(0, 1), min_size=3, max_size=3))
def test_no_digit_is_lost(tmp_path_factory, values):
    dice, distance, volume = values
    entry = StructureScores("present", dice, 1.0, distance, distance, volume, 75, 50)
    summary = make_summary()
    cases = {"a": {"RV": entry, "heart, whole": entry}}
    folder = tmp_path_factory.mktemp("kept")
    write_kept(folder, {"seed_0/fold_0/x": replace(summary, cases=cases)})
    assert repr(read_kept(folder)["seed_0/fold_0/x"].cases) == repr(cases)


def test_what_trainings_share_stands_once(kept):
    content = json.loads((kept / TRAININGS_FILE).read_text())
    assert content["shared"]["versions"] == {"nnunet-attenscribble": "0.0"}
    assert content["shared"]["protocol"] == "default"
    own = content["trainings"]["seed_1/fold_0/masked_crf"]
    assert set(own) == {"versions", "provenance", "notes", "not_predicted"}
    assert own["provenance"] == {"row": "masked, CRF", "seed": "1", "plans_sha256": None, "splits_sha256": "1"}


def test_trainings_and_rows_are_named_as_folders_were(kept, summaries, monkeypatch):
    def dice(path):
        return [summary.cases["b"]["heart, whole"].dice for summary in find_summaries(path)]

    assert dice(kept / "seed_1" / "fold_0" / "masked_crf") == [0.5]
    assert dice(kept / "seed_0" / "fold_0" / "masked_crf" / "postprocessed") == [0.4]
    assert dice(kept / "masked_crf") == [0.3, 0.5]
    assert dice(kept / "masked_crf" / "postprocessed") == [0.4]
    write_summary(summaries["seed_0/fold_1/dense"], kept.parent / "folder")
    assert dice(kept.parent / "folder") == dice(kept.parent / "folder" / SUMMARY_FILE) == [0.6]
    monkeypatch.chdir(kept)
    assert dice(kept.relative_to(kept) / "dense") == [0.6]
    for path, told in (
        (kept, "holds the scores of several rows"),
        (kept / "seed_0" / "x", "has no scores of seed_0/x"),
    ):
        with pytest.raises(
            AttenScribbleError, match=rf"kept {told}: give .*kept/masked_crf \(it has masked_crf, dense"
        ):
            find_summaries(path)
    with pytest.raises(AttenScribbleError, match=f"no {SUMMARY_FILE} at .*nowhere"):
        find_summaries(kept.parent / "nowhere")


def test_compare_reads_them_as_folders(tmp_path, kept, summaries):
    for training, summary in summaries.items():
        write_summary(summary, tmp_path / "folders" / training)
    models = ["crf=seed_0/fold_0/masked_crf", "crf=seed_1/fold_0/masked_crf"]
    reference = "processed=seed_0/fold_0/masked_crf/postprocessed"

    def compare(*words):
        result = CliRunner().invoke(app, ["compare", *words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    outputs = [
        compare(*(word.replace("=", f"={root}/") for word in [*models, "-r", reference]))
        for root in (tmp_path / "folders", kept)
    ]
    outputs.append(compare(f"crf={kept}/masked_crf", "-r", f"processed={kept}/masked_crf/postprocessed"))
    assert outputs[0] == outputs[1] == outputs[2]
    assert next(row for row in outputs[2]["rows"] if row["model"] == "crf")["runs"] == 2


def replace_in(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (TRAININGS_FILE, '"schema": "nnunet-attenscribble/kept"', '"schema": "other"', "is not of kept scores"),
        (TRAININGS_FILE, '"schema_version": 2', '"schema_version": 1', "schema version 1, this program reads 2"),
        (TRAININGS_FILE, '"default"', '"mine"', "damaged"),
        (TRAININGS_FILE, '"seed_1/fold_0/masked_crf"', '"seed_1/masked_crf"', "damaged"),
        (TRAININGS_FILE, '"a": {"shape"', '"z": {"shape"', r"damaged \(KeyError\('a'\)\)"),
        (TRAININGS_FILE, "{", "", "is no JSON"),
        (TRAININGS_FILE, '"shape": [', '"shape": [7, ', "damaged .*not as many axes"),
        (TRAININGS_FILE, '"shape": [', '"shape": [null, ', "must be a whole number"),
        (SCORES_FILE, "0.25", "much", "damaged"),
        (SCORES_FILE, ",75,50", "", "damaged"),
        (SCORES_FILE, "missed", "lost", r"damaged \(.*lost"),
        (SCORES_FILE, "crf,b,", "crf,a,", "damaged .*stands there twice"),
        (SCORES_FILE, "iou", "jaccard", r"damaged \(KeyError\('iou'\)\)"),
        (SCORES_FILE, '"heart, whole status"', "heart status", r"damaged \(KeyError"),
        (TRAININGS_FILE, '"rows": 7', '"rows": 8', "7 rows in place of 8"),
    ],
)
def test_damaged_files_are_refused(kept, name, old, new, told):
    replace_in(kept / name, old, new)
    with pytest.raises(AttenScribbleError, match=told):
        read_kept(kept)


def test_a_missing_file_is_refused(kept):
    (kept / SCORES_FILE).unlink()
    with pytest.raises(AttenScribbleError, match=f"cannot be read.*{SCORES_FILE}"):
        read_kept(kept)


def test_only_what_is_written_anew_is_replaced(kept, summaries):
    more = summaries | {"seed_2/fold_0/dense": make_summary(0.7)}
    write_kept(kept, more)
    assert list(read_kept(kept)) == list(more)
    with pytest.raises(AttenScribbleError, match=r"more than would replace it \(seed_2/fold_0/dense\)"):
        write_kept(kept, summaries)
    (kept / "README.md").touch()
    with pytest.raises(AttenScribbleError, match=r"more than would replace it \(README\.md\)"):
        write_kept(kept, more)
    (kept / TRAININGS_FILE).unlink()
    with pytest.raises(AttenScribbleError, match="something else than kept scores"):
        write_kept(kept, more)
    assert (kept / SCORES_FILE).read_text().count("seed_2") == 2


def test_what_a_system_leaves_in_a_folder_is_nobodys_score(tmp_path, kept, summaries):
    for folder in (tmp_path / "seen", kept):
        folder.mkdir(exist_ok=True)
        (folder / ".DS_Store").touch()
        write_kept(folder, summaries)
        assert list(read_kept(folder)) == list(summaries)


@pytest.mark.parametrize("changes", [{"hd95": "union"}, {"shapes": {"a": (3, 4, 5), "b": (9, 9, 9)}}])
def test_what_cannot_be_compared_is_not_kept_together(tmp_path, changes):
    summaries = {"seed_0/fold_0/a": make_summary(), "seed_0/fold_0/b": make_summary(0.9, **changes)}
    with pytest.raises(AttenScribbleError, match="seed_0/fold_0/b and seed_0/fold_0/a were scored"):
        write_kept(tmp_path / "kept", summaries)
    assert not (tmp_path / "kept").exists()


def test_what_was_asked_for_is_kept_too(tmp_path):
    lesions = {"lesion_f1": 0.5, "lesions_found": 1.0, "lesions_missed": 2.0, "lesions_false": 0.0}
    one = StructureScores("present", 0.9, 0.8, 3.5, 1.0, 0.5, 75, 50, nsd=0.75, **lesions)
    other = StructureScores("absent", NAN, NAN, NAN, NAN, NAN, 0, 0, nsd=NAN)
    summary = Summary(
        structures=(Structure("tumour", (1,)), Structure("liver", (2,))),
        cases={"a": {"tumour": one, "liver": other}},
        shapes={"a": (3, 4, 5)},
        spacings={"a": (10.0, 2.0, 1.5)},
        provenance={"row": "masked, CRF", "seed": "0"},
        nsd_mm=2.0,
        lesions={"tumour": 0.1},
        confusions={"a": ((1, 2, 3), (4, 5, 6), (7, 8, 9))},
    )
    write_kept(tmp_path / "kept", {"seed_0/fold_0/masked_crf": summary})
    (again,) = read_kept(tmp_path / "kept").values()
    assert repr(again.cases) == repr(summary.cases)
    assert replace(again, cases={}) == replace(summary, cases={})
