import math
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation import scoring
from nnunet_attenscribble.evaluation.protocols import PROTOCOLS, get_protocol, score_structure
from nnunet_attenscribble.evaluation.scoring import CasePair, read_label_image, score_case, score_structures
from nnunet_attenscribble.evaluation.structures import LabelCoding, Structure
from tests.tiny import DIRECTION

CODING = LabelCoding((Structure("RV", (1,)), Structure("MYO", (2,))), frozenset({0, 1, 2}), 3, ".nii.gz")


@pytest.fixture
def score(tmp_path, write_labels):
    """score(prediction, dense, coding, **how the prediction is written) -> CaseScores."""

    def run(prediction, dense, coding=CODING, **writing):
        pair = CasePair("a", tmp_path / "predictions" / "a.nii.gz", tmp_path / "dense" / "a.nii.gz")
        write_labels(pair.prediction, prediction, **writing)
        write_labels(pair.dense, dense)
        return score_case(pair, coding, get_protocol("default"))

    return run


def problems(score, *arguments, **options):
    """What keeps files from being scored."""
    with pytest.raises(AttenScribbleError) as caught:
        score(*arguments, **options)
    return caught.value.problems


def voxel(z, y, x):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[z, y, x] = 1
    return labels


@pytest.mark.parametrize(("moved", "millimetres"), [((1, 1, 2), 1.0), ((1, 2, 1), 2.0), ((2, 1, 1), 10.0)])
def test_spacing_belongs_to_its_axis(score, moved, millimetres):
    # The file says 1 x 2 x 10 mm along x, y, z; the array comes as z, y, x.
    result = score(voxel(*moved), voxel(1, 1, 1))
    assert result.shape == (3, 4, 5)
    assert result.spacing == (10.0, 2.0, 1.0)
    assert result.scores["a"]["RV"].hd95_mm == pytest.approx(millimetres)
    assert result.scores["a"]["RV"].assd_mm == pytest.approx(millimetres)


STRUCTURES = (*(Structure(f"{value}", (value,)) for value in (1, 2, 5)), Structure("b", (2, 5)), Structure("c", (0, 1)))


@settings(max_examples=60)
@given(st.data())
def test_scores_in_a_box_are_those_of_the_whole(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
    spacing = (2.5, 0.7, 1.1)[-len(shape) :]
    maps = []
    for _ in range(2):
        labels = np.zeros(shape, data.draw(st.sampled_from([np.uint8, np.int16, np.int64])))
        for value in data.draw(st.lists(st.sampled_from([1, 2, 5]), max_size=4)):
            sides = [sorted(data.draw(st.tuples(*[st.integers(0, length)] * 2))) for length in shape]
            labels[tuple(slice(*side) for side in sides)] = value
        maps.append(labels)
    lesions = {"nsd_mm": 1.5, "lesions": {"1": 0.5, "c": 0.1}}
    for name in PROTOCOLS:
        protocol = get_protocol(name, **(lesions if name == "default" else {}))
        whole = {
            entry.name: score_structure(*(np.isin(own, entry.values) for own in maps), spacing, protocol, entry.name)
            for entry in STRUCTURES
        }
        assert repr(score_structures(*maps, spacing, STRUCTURES, protocol)) == repr(whole)


def test_a_small_structure_is_scored_in_a_small_box(monkeypatch):
    seen, labels = [], np.zeros((40, 50, 60), np.uint8)
    labels[3, 49, 7:9] = 2
    monkeypatch.setattr(scoring, "score_structure", lambda own, true, *_: seen.append((own.shape, true.shape)))
    scoring.score_structures(labels, np.roll(labels, 2, axis=2), (1, 1, 1), STRUCTURES[:2], get_protocol("default"))
    assert seen == [((1, 50, 60),) * 2, ((3, 2, 6),) * 2]


def test_a_tiff_has_the_spacing_of_the_file_beside_it(tmp_path):
    pair = CasePair("a", tmp_path / "predictions" / "a.tif", tmp_path / "dense" / "a.tif")
    labels = np.zeros((6, 16, 16), np.uint8)
    labels[1:3, 4:12, 4:12] = 1
    for file, array in ((pair.prediction, np.roll(labels, 1, axis=0)), (pair.dense, labels)):
        file.parent.mkdir()
        tifffile.imwrite(file, array, resolution=(300, 300))
        file.with_suffix(".json").write_text('{"spacing": [10, 1, 1]}')
    result = score_case(pair, CODING, get_protocol("default"))
    assert result.spacing == (10.0, 1.0, 1.0)
    # Of two slices each one is shared, the other lies 10 mm from it.
    assert (result.scores["a"]["RV"].hd95_mm, result.scores["a"]["RV"].assd_mm) == (10, 5)
    (pair.dense.with_suffix(".json")).write_text('{"spacing": 10}')
    (problem,) = problems(score_case, pair, CODING, get_protocol("default"))
    assert f"{pair.dense.with_suffix('.json')} lies beside a TIFF" in problem


def test_every_structure_is_scored_for_itself(score, two_slabs):
    without_rv = np.where(two_slabs == 1, 0, two_slabs).astype(np.uint8)
    result = score(without_rv, two_slabs)
    assert (result.scores["a"]["RV"].status, result.scores["a"]["RV"].hd95_mm) == ("missed", math.inf)
    assert (result.scores["a"]["MYO"].dice, result.scores["a"]["MYO"].hd95_mm) == (1, 0)
    # 2 x 4 x 4 voxels of 20 mm^3
    assert result.scores["a"]["RV"].volume_difference_ml == pytest.approx(-0.64)


def test_a_region_is_the_union_of_its_labels(score, two_slabs):
    swapped = np.choose(two_slabs, [0, 2, 1]).astype(np.uint8)
    coding = LabelCoding((Structure("heart", (1, 2)), Structure("RV", (1,))), frozenset({0, 1, 2}), None, ".nii.gz")
    result = score(swapped, two_slabs, coding)
    assert result.scores["a"]["heart"].dice == 1
    assert result.scores["a"]["RV"].dice == 0


def test_identical(score, two_slabs):
    result = score(two_slabs, two_slabs)
    assert result.identical
    assert not result.turned
    assert not score(voxel(0, 0, 0), voxel(0, 0, 1)).identical


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_any_order_of_axes_scores_what_its_voxels_are(tmp_path, write_labels, two_slabs, order):
    """All 48: the prediction lies one voxel further along x, wherever its file has that axis."""
    pair = CasePair("a", tmp_path / "predictions" / "a.nii.gz", tmp_path / "dense" / "a.nii.gz")
    write_labels(pair.dense, two_slabs, origin=(-30, 40, 50))
    moved = sitk.GetImageFromArray(np.roll(two_slabs, 1, axis=2))
    moved.CopyInformation(sitk.ReadImage(str(pair.dense)))
    pair.prediction.parent.mkdir()
    for flips in product((False, True), repeat=3):
        sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(moved, order), flips, False), str(pair.prediction))
        result = score_case(pair, CODING, get_protocol("default"))
        assert (result.shape, result.spacing) == ((4, 6, 8), (10.0, 2.0, 1.0))
        assert result.turned == (order != (0, 1, 2) or any(flips))
        assert result.scores["a"]["RV"].dice == result.scores["a"]["MYO"].dice == 0.75  # 3 of 4 columns
        assert result.scores["a"]["RV"].hd95_mm == 1


def test_labels_in_another_orientation_than_nnunet_predicted(tmp_path, two_slabs):
    """A prediction as SimpleITKIO writes it, on the grid of its image; dense labels brought to RAS since."""
    pair = CasePair("a", tmp_path / "a.nii.gz", tmp_path / "dense.nii.gz")
    frame = {"spacing": (1.0, 2.0, 10.0), "origin": (-30.0, 40.0, 50.0), "direction": DIRECTION}
    SimpleITKIO().write_seg(two_slabs, str(pair.prediction), {"sitk_stuff": frame})
    for orientation in ("RAS", "LPI", "SAR"):
        label = sitk.DICOMOrient(sitk.ReadImage(str(pair.prediction)), orientation)
        sitk.WriteImage(label, str(pair.dense))
        result = score_case(pair, CODING, get_protocol("default"))
        assert result.scores["a"]["RV"].dice == result.scores["a"]["MYO"].dice == 1


@pytest.mark.parametrize("shift", [(100.0, 0, 0), (1.0, 0, 0), (0, 2.0, 0), (0, 0, -10.0)])
def test_what_lies_elsewhere_is_not_scored(score, two_slabs, shift):
    """By one voxel, or by 100 mm."""
    (problem,) = problems(score, two_slabs, two_slabs, origin=shift)
    assert "predictions/a.nii.gz: origin (" in problem
    score(two_slabs, two_slabs, origin=(0.05, 0, 0))  # headers round


@pytest.mark.parametrize("reader", [NibabelIO, NibabelIOWithReorient])
def test_sheared_axes_are_scored_as_nibabel_reads_them(tmp_path, two_slabs, reader):
    pair = CasePair("a", tmp_path / "a.nii.gz", tmp_path / "dense.nii.gz")
    affine = np.array([[1.0, 0.3, 0, 5], [0, 2, 0, 6], [0, 0, 10, 7], [0, 0, 0, 1]])
    for file in (pair.prediction, pair.dense):
        nibabel.save(nibabel.Nifti1Image(two_slabs.transpose(), affine), file)
    result = score_case(pair, CODING, get_protocol("default"), (reader, reader))
    assert result.scores["a"]["RV"].dice == 1
    flipped = affine @ np.array([[-1.0, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(two_slabs.transpose()[::-1], flipped), pair.dense)
    result = score_case(pair, CODING, get_protocol("default"), (reader, reader))
    assert (result.scores["a"]["RV"].dice, result.scores["a"]["MYO"].dice) == (1, 1)


def test_dense_labels_that_a_header_scales_are_rounded(tmp_path, two_slabs):
    """2 of 255 levels: 1 is read as 1.0039, and 2 exactly."""
    pair = CasePair("a", tmp_path / "a.nii.gz", tmp_path / "dense.nii.gz")
    label = nibabel.Nifti1Image(two_slabs.transpose().astype(float), np.eye(4))
    label.set_data_dtype(np.uint8)
    nibabel.save(label, pair.dense)
    nibabel.save(nibabel.Nifti1Image(two_slabs.transpose(), np.eye(4)), pair.prediction)
    result = score_case(pair, CODING, get_protocol("default"))
    assert result.rounded == (str(pair.dense),)
    assert result.scores["a"]["RV"].dice == result.scores["a"]["MYO"].dice == 1


def test_names_in_a_header_that_say_otherwise(tmp_path, two_slabs):
    """A segmentation of 3D Slicer, in which the two classes have each other's value."""
    pair = CasePair("a", tmp_path / "p.nrrd", tmp_path / "d.nrrd")
    for file, values in ((pair.prediction, (1, 2)), (pair.dense, (2, 1))):
        image = sitk.GetImageFromArray(two_slabs)
        for number, (name, value) in enumerate(zip(("RV", "myo"), values, strict=True)):
            image.SetMetaData(f"Segment{number}_Name", name)
            image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        sitk.WriteImage(image, file)
    assert problems(score_case, pair, CODING, get_protocol("default")) == [
        f"dense label {pair.dense} says that {name} is {own}, dataset.json that it is {known}: bring both to one coding"
        for name, own, known in (("RV", 2, 1), ("MYO", 1, 2))
    ]


def test_images_of_two_axes(score):
    result = score(voxel(0, 1, 1)[0], voxel(0, 3, 1)[0])
    assert result.scores["a"]["RV"].hd95_mm == pytest.approx(4)
    assert math.isnan(result.scores["a"]["RV"].volume_difference_ml)


def test_sizes_that_differ(score, two_slabs):
    (problem,) = problems(score, two_slabs[:, :, :-1], two_slabs)
    assert "predictions/a.nii.gz: size (7, 6, 4) differs from (8, 6, 4) of dense label" in problem


def test_spacings_that_differ(score, two_slabs):
    (problem,) = problems(score, two_slabs, two_slabs, spacing=(1.0, 2.0, 9.0))
    assert "predictions/a.nii.gz: spacing (1, 2, 9) differs from (1, 2, 10) of dense label" in problem
    # Headers round; that is no difference.
    score(two_slabs, two_slabs, spacing=(1.0, 2.0, 10.0001))


def test_scribbles_in_place_of_dense_labels(score, two_slabs):
    scribbles = np.where(two_slabs == 0, 3, two_slabs).astype(np.uint8)
    (problem,) = problems(score, two_slabs, scribbles)
    assert "holds 3, the value of unlabelled voxels: these are scribbles" in problem
    unaware = LabelCoding(CODING.structures, CODING.allowed, None, ".nii.gz")
    (problem,) = problems(score, two_slabs, scribbles, unaware)
    assert "holds 3; the labels of dataset.json are 0, 1, 2" in problem
    assert "if it marks unlabelled voxels, these are scribbles" in problem


def test_values_outside_the_coding(score, two_slabs):
    strange = two_slabs.copy()
    strange[0, 0] = range(10, 18)
    prediction, dense = problems(score, strange, strange)
    for problem, role in ((prediction, "prediction "), (dense, "dense label ")):
        assert problem.startswith(role)
        assert "holds 10, 11, 12, 13, 14, ...; the labels of dataset.json are 0, 1, 2" in problem
    (problem,) = problems(score, np.where(two_slabs == 0, 3, two_slabs).astype(np.uint8), two_slabs)
    assert problem.startswith("prediction ")


def test_unreadable_files_are_all_named(tmp_path):
    pair = CasePair("a", tmp_path / "prediction.nii.gz", tmp_path / "dense.nii.gz")
    pair.prediction.write_text("no image")
    pair.dense.write_text("no image")
    prediction, dense = problems(score_case, pair, CODING, get_protocol("default"))
    assert str(pair.prediction) in prediction
    assert "is named .gz but is not gzip data" in prediction
    assert str(pair.dense) in dense
    assert "\n" not in prediction + dense


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
@pytest.mark.parametrize("cut", ["prediction", "dense"])
def test_a_truncated_file_is_refused(tmp_path, write_labels, ending, cut):
    pair = CasePair("a", tmp_path / "predictions" / f"a{ending}", tmp_path / "dense" / f"a{ending}")
    labels = np.random.default_rng(0).integers(0, 3, (4, 32, 32), dtype=np.uint8)
    for file in (pair.prediction, pair.dense):
        write_labels(file, labels)
    file = getattr(pair, cut)
    file.write_bytes(file.read_bytes()[:-600])
    (problem,) = problems(score_case, pair, CODING, get_protocol("default"))
    assert problem.startswith(f"{file}: is truncated")


def test_what_is_no_label_map(tmp_path, write_labels):
    write_labels(tmp_path / "a.nii.gz", np.full((2, 3, 4), 0.5, np.float32))
    with pytest.raises(AttenScribbleError, match="not integers"):
        read_label_image(tmp_path / "a.nii.gz")
    write_labels(tmp_path / "b.mha", np.full((2, 3, 4), np.nan, np.float32))  # NIfTI has no NaN once read
    with pytest.raises(AttenScribbleError, match="not integers"):
        read_label_image(tmp_path / "b.mha")
    sitk.WriteImage(sitk.Image([4, 4], sitk.sitkVectorUInt8, 3), str(tmp_path / "c.png"))
    with pytest.raises(AttenScribbleError, match="several components per voxel"):
        read_label_image(tmp_path / "c.png")


def test_whole_numbers_may_be_stored_as_floats(tmp_path, write_labels, two_slabs):
    write_labels(tmp_path / "a.nii.gz", two_slabs.astype(np.float32))
    image = read_label_image(tmp_path / "a.nii.gz")
    assert np.issubdtype(image.labels.dtype, np.integer)
    np.testing.assert_array_equal(image.labels, two_slabs)
