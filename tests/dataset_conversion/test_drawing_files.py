"""Drawings as 3D Slicer, ITK-SNAP and napari open and save them."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunet_attenscribble.common.grids import Grid
from nnunet_attenscribble.dataset_conversion.label_files import Segment, parse_description, read_legend
from nnunet_attenscribble.dataset_conversion.next_drawings import (
    TOOLS,
    describe_labels,
    find_offset,
    read_drawing,
    tell_slice,
    write_drawing,
)
from nnunet_attenscribble.errors import AttenScribbleError
from tests.dataset_conversion.drawing_tools import write_slicer
from tests.tiny import make_dense, make_scan, make_strokes, make_volume

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


@pytest.fixture
def image(tmp_path):
    """A scan that lies obliquely in space."""
    file = tmp_path / "a_0000.nii.gz"
    sitk.WriteImage(make_scan(0), str(file))
    return file


@pytest.mark.parametrize("ending", TOOLS.values())
@pytest.mark.parametrize("dense", [False, True])
def test_what_is_written_is_read_back(image, tmp_path, ending, dense):
    values = make_dense() if dense else make_strokes()
    file = tmp_path / f"a_strokes{ending}"
    write_drawing(file, values, Grid.of(make_scan(0)), LABELS, dense=dense)
    assert (read_drawing(file, image, LABELS, dense=dense) == values).all()


def test_tools_see_0_where_nobody_drew(image, tmp_path):
    """And background strokes as one more than the classes: 0 is what tools leave out."""
    for ending in (".nii.gz", ".seg.nrrd"):
        write_drawing(tmp_path / f"a{ending}", make_strokes(), Grid.of(make_scan(0)), LABELS, dense=False)
        shown = sitk.ReadImage(str(tmp_path / f"a{ending}"))
        voxels = sitk.GetArrayFromImage(shown)
        assert ((voxels == 0) == (make_strokes() == 4)).all()
        assert ((voxels == 4) == (make_strokes() == 0)).all()
        np.testing.assert_allclose(shown.GetOrigin(), make_scan(0).GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(shown.GetDirection(), make_scan(0).GetDirection(), atol=1e-6)
    write_drawing(tmp_path / "a.tif", make_strokes(), Grid.of(make_scan(0)), LABELS, dense=False)
    assert (tifffile.imread(tmp_path / "a.tif") == voxels).all()
    assert parse_description(describe_labels(LABELS)) == (
        Segment("RV", 1),
        Segment("MYO", 2),
        Segment("LV", 3),
        Segment("background", 4),
    )


def test_slicer_finds_names_and_colours(tmp_path):
    file = tmp_path / "a.seg.nrrd"
    write_drawing(file, make_strokes(), Grid.of(make_scan(0)), {"background": 0, 'left "x"\n': 1}, dense=False)
    assert [segment.name for segment in read_legend(file).segments] == ["left 'x'", "background"]
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    assert reader.GetMetaData("Segment1_Color") == "1 1 1"
    assert reader.GetMetaData("Segment0_Extent") == "0 5 0 4 0 3"


def test_slicer_saves_other_values_a_part_of_the_image_and_layers(image, tmp_path):
    strokes = make_strokes()
    layers = [np.where(strokes == 3, 1, 0), np.where(strokes == 0, 1, 0)]
    file = tmp_path / "a.seg.nrrd"
    write_slicer(file, layers, [("LV", 1, 0), ("background", 1, 1)], cropped=True)
    expected = np.where(np.isin(strokes, (0, 3)), strokes, 4)
    assert (read_drawing(file, image, LABELS, dense=False) == expected).all()


def test_a_picture_is_drawn_on_as_one_slice(tmp_path):
    file, values = tmp_path / "p_0000.png", np.array([[[4, 0, 1], [2, 3, 4]]], np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(6, dtype=np.uint8).reshape(2, 3)), str(file))
    grid = Grid.of(sitk.ReadImage(str(file)))
    for ending in TOOLS.values():
        drawing = tmp_path / f"p_strokes{ending}"
        write_drawing(drawing, values, grid, LABELS, dense=False)
        assert (read_drawing(drawing, file, LABELS, dense=False) == values).all()


def test_background_that_is_painted_into_a_prediction(image, tmp_path):
    painted = np.where(make_dense() == 3, 4, make_dense())
    sitk.WriteImage(make_volume(painted), str(tmp_path / "a.nii.gz"))
    found = read_drawing(tmp_path / "a.nii.gz", image, LABELS, dense=True)
    assert (found == np.where(make_dense() == 3, 0, make_dense())).all()


def test_what_cannot_be_a_drawing_of_the_image_is_refused(image, tmp_path):
    file = tmp_path / "a.nii.gz"
    strange = make_strokes()
    strange[0, 0, 0] = 7
    for volume, message in (
        (make_volume(strange), "label values 7 are outside the coding, which knows 0, 1, 2, 3, 4"),
        (make_volume(make_strokes(), origin=(0, 0, 0)), r"origin .* differs from"),
        (make_volume(make_strokes()[1:], size=(6, 5, 3)), r"size .* differs from"),
    ):
        sitk.WriteImage(volume, str(file))
        with pytest.raises(AttenScribbleError, match=message):
            read_drawing(file, image, LABELS, dense=False)
    write_slicer(tmp_path / "b.seg.nrrd", [np.where(make_strokes() == 3, 1, 0)], [("liver", 1, 0)])
    with pytest.raises(AttenScribbleError, match="holds liver; its names are liver"):
        read_drawing(tmp_path / "b.seg.nrrd", image, LABELS, dense=False)
    tifffile.imwrite(tmp_path / "c.tif", make_strokes()[1:], photometric="minisblack")
    with pytest.raises(AttenScribbleError, match=r"c\.tif: size .* differs from"):
        read_drawing(tmp_path / "c.tif", image, LABELS, dense=False)


def test_a_slice_is_told_as_the_tool_shows_it():
    # x runs to the left, y to the back, z to the head, as SimpleITK has it; Slicer shows right, front and head.
    grid = Grid((6, 5, 4), (1.0, 2.0, 8.0), (10.0, -20.0, 30.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert tell_slice("slicer", 0, 2, grid) == "K 2 (S 46.0 mm)"
    assert tell_slice("slicer", 1, 3, grid) == "J 3 (A 14.0 mm)"  # -(-20 + 3 * 2)
    assert tell_slice("slicer", 2, 5, grid) == "I 5 (R -15.0 mm)"
    assert tell_slice("itk-snap", 0, 2, grid) == "z 3"
    assert tell_slice("napari", 0, 2, grid) == "axis 0, 2"
    # Stored from head to foot, the same place has the same offset.
    turned = Grid((6, 5, 4), (1.0, 2.0, 8.0), (10.0, -20.0, 54.0), (1, 0, 0, 0, 1, 0, 0, 0, -1))
    assert find_offset(0, 1, turned) == ("S", 46.0)
    flat = Grid((5, 4), (1.0, 1.0), (0.0, 5.0), (1, 0, 0, 1))
    assert find_offset(0, 0, flat) == ("S", 0.0)  # where 3D Slicer puts a picture
    tilted = Grid((6, 5, 4), (1.0, 1.0, 5.0), (0.0, -100.0, 30.0), (1, 0, 0, 0, 1, 0.6, 0, 0, 0.8))
    assert find_offset(0, 2, tilted) == ("S", 38.0)  # 30 + 2 * 5 * 0.8, wherever the slice was shifted to
