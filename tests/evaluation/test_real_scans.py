"""ACDC's dense labels against shifted copies, where the answer is known without a metric library."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
from nnunet_attenscribble.evaluation.protocols import get_protocol
from nnunet_attenscribble.evaluation.scoring import CasePair, score_case
from nnunet_attenscribble.evaluation.structures import LabelCoding, Structure

# The validation patients of MAAG (Valvano et al. 2021), two frames each.
PATIENTS = (84, 32, 27, 96, 17, 18, 57, 81, 79, 22, 1, 44, 49, 25, 95)
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ACDC"
FILES = sorted(DATA.rglob("*_gt.nii.gz"))[:4]
CODING = LabelCoding(
    (Structure("RV", (1,)), Structure("MYO", (2,)), Structure("LV", (3,))), frozenset(range(4)), None, ".nii.gz"
)

pytestmark = pytest.mark.skipif(not FILES, reason="ACDC is not beside the project, see shared/data")


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["z", "y", "x"])
def test_a_shift_by_one_voxel(tmp_path, axis):
    file = FILES[axis]
    dense = sitk.ReadImage(str(file))
    # An empty rim, so that no voxel is shifted out of the image.
    dense = sitk.ConstantPad(dense, [1, 1, 1], [1, 1, 1], 0)
    moved = sitk.GetImageFromArray(np.roll(sitk.GetArrayFromImage(dense), 1, axis=axis))
    moved.CopyInformation(dense)
    pair = CasePair("a", tmp_path / "moved.nii.gz", tmp_path / "dense.nii.gz")
    sitk.WriteImage(moved, str(pair.prediction))
    sitk.WriteImage(dense, str(pair.dense))
    result = score_case(pair, CODING, get_protocol("default"))
    step = dense.GetSpacing()[2 - axis]
    assert result.spacing == pytest.approx(dense.GetSpacing()[::-1])
    for name, scores in result.scores["a"].items():
        # Every surface voxel has its own copy one step away; some have a nearer neighbour on the other surface.
        assert 0 < scores.hd95_mm <= step + 1e-3, name
        assert 0 < scores.assd_mm < step, name
        assert scores.volume_difference_ml == 0
        if axis:
            assert scores.hd95_mm == pytest.approx(step, rel=1e-3)


def test_a_label_against_itself(tmp_path):
    copy = tmp_path / FILES[0].name
    copy.write_bytes(FILES[0].read_bytes())
    result = score_case(CasePair("a", copy, FILES[0]), CODING, get_protocol("default"))
    assert result.identical
    assert {(scores.dice, scores.hd95_mm, scores.assd_mm) for scores in result.scores["a"].values()} == {(1, 0, 0)}


@pytest.mark.slow
def test_thirty_volumes_take_less_than_fifteen_seconds(tmp_path):
    """Of processor time, which does not depend on what else the machine does."""
    (tmp_path / "predictions").mkdir()
    (tmp_path / "dense").mkdir()
    for patient in PATIENTS:
        for file in sorted((DATA / "database" / "training" / f"patient{patient:03d}").glob("*_gt.nii.gz")):
            dense = sitk.ReadImage(str(file))
            labels = sitk.GetArrayFromImage(dense)
            moved = np.roll(labels, (2, -1), (1, 2))
            moved[np.random.default_rng(patient).random(labels.shape) < 0.0005] = 1  # specks all over the volume
            prediction = sitk.GetImageFromArray(moved)
            prediction.CopyInformation(dense)
            sitk.WriteImage(prediction, str(tmp_path / "predictions" / file.name))
            sitk.WriteImage(dense, str(tmp_path / "dense" / file.name))
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    content = {"labels": labels, "file_ending": ".nii.gz"}
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps(content))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = evaluate_folder(tmp_path / "predictions", tmp_path / "dense", workers=2)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(found.cases) == 30
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
