from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_dilation, distance_transform_edt, label

from nnunet_attenscribble.dataset_conversion.phantom import (
    LABELS,
    UNLABELLED,
    make_phantom,
    phantom_index,
    write_phantoms,
)

SERIES = range(8)


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(index) for index in SERIES]


def test_same_arguments_give_the_same_voxels(phantoms):
    again = make_phantom(3)
    for name in ("image", "labels", "scribble"):
        np.testing.assert_array_equal(getattr(again, name), getattr(phantoms[3], name))
    assert again.spacing == phantoms[3].spacing


def test_index_and_seed_both_matter(phantoms):
    others = make_phantom(4), make_phantom(3, seed=1)
    for other in others:
        same_shape = other.image.shape == phantoms[3].image.shape
        assert not (same_shape and np.array_equal(other.image, phantoms[3].image))


def test_arrays_and_spacing_are_what_they_are_said_to_be(phantoms):
    for phantom in phantoms:
        assert phantom.image.shape == phantom.labels.shape == phantom.scribble.shape
        assert phantom.image.dtype == np.float32
        assert phantom.labels.dtype == phantom.scribble.dtype == np.uint8
        assert np.isfinite(phantom.image).all()
        assert phantom.image.min() >= 0  # a magnitude image
        x, y, z = phantom.spacing
        assert x == y
        assert 4.3 <= x <= 4.7
        assert z in (8.0, 10.0)
    assert len({phantom.image.shape for phantom in phantoms}) > 1


def test_scribbles_never_leave_their_class(phantoms):
    for phantom in phantoms:
        drawn = phantom.scribble != UNLABELLED
        np.testing.assert_array_equal(phantom.scribble[drawn], phantom.labels[drawn])


def test_every_slice_is_scribbled_in_each_of_its_classes(phantoms):
    for phantom in phantoms:
        for labels, scribble in zip(phantom.labels, phantom.scribble, strict=True):
            assert set(np.unique(labels)) == set(np.unique(scribble)) - {UNLABELLED}


def test_some_slices_show_no_heart_and_most_do(phantoms):
    for phantom in phantoms:
        with_heart = (phantom.labels > 0).any(axis=(1, 2))
        assert 5 <= with_heart.sum() < len(with_heart)
        assert set(np.unique(phantom.labels)) == set(LABELS.values())


def test_scribbles_cover_about_as_much_of_a_class_as_those_of_acdc(phantoms):
    expected = {"RV": 0.11, "MYO": 0.155, "LV": 0.115}  # means of its 100 frames
    for name, share in expected.items():
        value = LABELS[name]
        covered = [np.mean(p.scribble[p.labels == value] == value) for p in phantoms]
        assert np.mean(covered) == pytest.approx(share, abs=0.02)
        assert min(covered) > 0.6 * share
    background = [np.mean(p.scribble == 0) for p in phantoms]
    assert 0.01 < np.mean(background) < 0.03  # 0.01 there, of fields of view that are wider still


def test_most_of_an_image_is_far_from_every_stroke(phantoms):
    for phantom in phantoms:
        for drawn in phantom.scribble != UNLABELLED:
            assert np.mean(distance_transform_edt(~drawn) > 6) > 0.5


def test_strokes_are_thin(phantoms):
    for phantom in phantoms:
        for section in phantom.scribble:
            for value in LABELS.values():
                stroke = section == value
                blocks = stroke[:-3, :-3].copy()
                for dy in range(4):
                    for dx in range(4):
                        blocks &= stroke[dy : dy + blocks.shape[0], dx : dx + blocks.shape[1]]
                assert not blocks.any()  # nowhere wider than 3 pixels


def test_the_left_ventricle_lies_within_the_myocardium(phantoms):
    for phantom in phantoms:
        for section in phantom.labels:
            cavity = section == LABELS["LV"]
            around = binary_dilation(cavity) & ~cavity
            assert (section[around] == LABELS["MYO"]).all()


def test_each_structure_is_one_piece_per_slice(phantoms):
    for phantom in phantoms:
        for section in phantom.labels:
            for name in LABELS:
                assert name == "background" or label(section == LABELS[name], np.ones((3, 3)))[1] <= 1


def test_the_right_ventricle_lies_on_one_side_of_the_left():
    for index in (*SERIES, 22):
        for section in make_phantom(index).labels:
            right, left = (np.argwhere(section == LABELS[name]) for name in ("RV", "LV"))
            if len(right) and len(left):
                toward = right.mean(axis=0) - left.mean(axis=0)
                behind = (right - left.mean(axis=0)) @ toward < 0
                assert behind.mean() < 0.1


def test_a_dark_wall_parts_the_right_ventricle_from_what_lies_around_it():
    for index in range(48):  # those of the demo
        phantom, shares = make_phantom(index), []
        for image, labels in zip(phantom.image, phantom.labels, strict=True):
            cavity = labels == LABELS["RV"]
            away, from_left = distance_transform_edt(~cavity), distance_transform_edt(labels < LABELS["MYO"])
            if cavity.any():
                shares.append(image[(away > 1) & (away < 2) & (from_left > 2)].mean() / image[cavity].mean())
        assert np.mean(shares) < 0.88, index


def test_intensity_alone_does_not_tell_the_heart(phantoms):
    for phantom in phantoms:
        background = phantom.image[phantom.labels == 0]
        for value in (1, 2, 3):
            low, high = np.percentile(phantom.image[phantom.labels == value], (10, 90))
            alike = np.count_nonzero((background > low) & (background < high))
            assert alike > np.count_nonzero(phantom.labels == value)  # distractors outnumber the structure
        muscle, blood = (np.median(phantom.image[phantom.labels == value]) for value in (2, 3))
        assert 1.2 < blood / muscle < 3.0


def test_datasets_are_written_with_a_fold_and_unseen_cases(tmp_path):
    written = write_phantoms(raw_folder=tmp_path, dataset_id=7, dense_id=8, training=2, validation=1, test=1, seed=5)
    assert (written.training, written.test) == (3, 1)
    scribble, dense = tmp_path / "Dataset007_Phantom", tmp_path / "Dataset008_PhantomDense"
    assert json.loads((scribble / "splits_final.json").read_text()) == [
        {"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"]}
    ]
    assert json.loads((scribble / "dataset.json").read_text())["labels"] == {**LABELS, "ignore": UNLABELLED}
    assert json.loads((dense / "dataset.json").read_text())["labels"] == LABELS
    assert [file.name for file in (scribble / "imagesTs").iterdir()] == ["phantom_003_0000.nii.gz"]

    phantom = make_phantom(phantom_index("phantom_001"), seed=5)
    for folder, voxels in ((scribble, phantom.scribble), (dense, phantom.labels)):
        image = sitk.ReadImage(str(folder / "labelsTr" / "phantom_001.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels)
        assert image.GetSpacing() == pytest.approx(phantom.spacing)
    unseen = sitk.ReadImage(str(scribble / "labelsTs" / "phantom_003.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(unseen), make_phantom(3, seed=5).labels)
