from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

from nnunet_attenscribble.common.grids import Grid
from nnunet_attenscribble.common.readers import find_reader
from nnunet_attenscribble.dataset_conversion import next_slices
from nnunet_attenscribble.dataset_conversion.next_folder import CaseToDraw
from nnunet_attenscribble.dataset_conversion.next_slices import (
    CaseSlices,
    ChosenSlice,
    Search,
    choose_slices,
    find_drawing_axis,
    measure_slices,
    search_slices,
)
from nnunet_attenscribble.trained_model import CasePrediction


def slices(*entropy: float, drawn: tuple[int, ...] = (), foreground: tuple[float, ...] | None = None) -> CaseSlices:
    """Whose scores are their entropy, unless a foreground is given."""
    count = len(entropy)
    is_drawn = np.isin(np.arange(count), np.array(drawn, int))
    share = np.full(count, 0.99) if foreground is None else np.array(foreground)
    return CaseSlices(0, np.array(entropy), np.zeros(count), share, np.zeros(count, int), is_drawn)


def choose(cases: dict[str, CaseSlices], count: int) -> list[tuple[str, int]]:
    return [(chosen.case, chosen.position) for chosen in choose_slices(cases, count)]


def test_a_slice_is_measured_by_its_means():
    entropy, disagreement = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    entropy[1] = [[0.3, 0.1, 0.1], [0.2, 0.2, 0.3]]
    disagreement[0, :, 1] = 0.3
    labels = np.array([[[0, 1, 1], [0, 0, 0]], [[2, 1, 1], [0, 0, 0]]])
    strokes = np.zeros((2, 2, 3), bool)
    strokes[0, 1, 2] = True
    found = measure_slices(entropy, disagreement, labels, strokes.any(axis=(1, 2)), 0)
    assert found.entropy.tolist() == pytest.approx([0, 0.2])  # 1.2 over 6 pixels
    assert found.disagreement.tolist() == pytest.approx([0.1, 0])
    assert found.foreground.tolist() == pytest.approx([2 / 6, 3 / 6])
    assert found.scores.tolist() == pytest.approx([0.1 * (2 / 6 + 0.01), 0.2 * (3 / 6 + 0.01)])
    assert found.unsure.tolist() == [0, 2]  # 0.3 against 0.2 of class 1; background, 0.7, always is along the others
    assert found.drawn.tolist() == [True, False]
    across = measure_slices(entropy, disagreement, labels, strokes.any(axis=(0, 1)), 2)
    assert across.entropy.tolist() == pytest.approx([0.125, 0.075, 0.1])
    assert across.drawn.tolist() == [False, False, True]
    assert across.unsure.tolist() == [2, 1, 1]


def test_the_surest_slices_come_last_and_drawn_ones_never():
    assert choose({"a": slices(0.1, 0.9, 0.2, 0.8, drawn=(1,))}, 10) == [("a", 3), ("a", 2), ("a", 0)]
    assert choose({"a": slices(0.5, drawn=(0,))}, 10) == []


def test_doubt_counts_where_there_is_something_to_draw():
    assert choose({"a": slices(0.9, 0.5, foreground=(0, 0.3))}, 2) == [("a", 1), ("a", 0)]  # 0.009 and 0.155
    assert choose({"a": slices(0.5, 0.9, foreground=(0, 0))}, 2) == [("a", 1), ("a", 0)]  # nothing is predicted yet


def test_slices_are_spread_over_cases_and_levels():
    # a lies at 0.1, 0.5 and 0.9, b at 1/6 and 5/6. After a's 0.9 come 0.8 / 2; 0.6 / (1 + 2/3), as b's first slice is
    # a third of 0.2 off; 0.7 / 3; and 0.35 / 2 / (1 + 2/3).
    cases = {"a": slices(0.9, 0, 0.8, 0, 0.7), "b": slices(0.6, 0, 0.35)}
    assert choose(cases, 5) == [("a", 0), ("a", 2), ("b", 0), ("a", 4), ("b", 2)]
    # At the level of another 0.8 becomes 0.4.
    assert choose({"a": slices(0.9, 0, 0), "b": slices(0.8, 0, 0.5)}, 2) == [("a", 0), ("b", 2)]


def test_a_slice_beside_another_counts_half():
    # Beside the drawn slice 0.6 becomes 0.3, less than the 0.4 farther off.
    assert choose({"a": slices(0, 0.6, 0.4, drawn=(0,))}, 1) == [("a", 2)]
    assert choose({"a": slices(0, 0.9, 0.4, drawn=(0,))}, 1) == [("a", 1)]


def test_equal_scores_go_by_case_and_position_whatever_the_order():
    cases = {"b": slices(0.5, 0.5), "a": slices(0.5, 0.5), "c": slices(0.5, 0.5)}
    expected = [("a", 0), ("b", 1), ("c", 0), ("a", 1), ("b", 0), ("c", 1)]
    assert choose(cases, 6) == expected
    assert choose(dict(reversed(cases.items())), 6) == expected
    assert choose({"a": slices(0, 0, 0)}, 3) == [("a", 0), ("a", 1), ("a", 2)]  # where nothing is unsure, too


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strokes_tell_the_axis_across_which_they_were_drawn(axis):
    drawn = np.zeros((6, 6, 6), bool)
    drawn[::2, 1, 1:5] = drawn[::2, 1:5, 4] = True  # in every second slice, along both other axes
    assert find_drawing_axis([np.moveaxis(drawn, 0, axis)]) == axis


def test_points_and_three_orthogonal_planes_tell_no_axis():
    points = np.zeros((6, 6, 6), bool)
    points[2, 2, 2] = points[4, 1, 3] = True
    planes = np.zeros((7, 7, 7), bool)
    planes[3, 3, :] = planes[3, :, 3] = planes[:, 3, 3] = True
    assert find_drawing_axis([]) is find_drawing_axis([points]) is find_drawing_axis([planes]) is None


def test_predictions_are_packed_until_slices_are_chosen(tmp_path, monkeypatch):
    labels = np.zeros((1, 200, 200), np.uint8)
    labels[0, 50:90, 50:90] = 1
    doubt = np.zeros(labels.shape, np.float32)
    monkeypatch.setattr(next_slices, "predict_case", lambda *_: CasePrediction(labels, doubt, doubt))
    case = SimpleNamespace(
        identifier="a",
        images=(),
        read_grid=lambda: SimpleNamespace(size=(200, 200)),
        read_strokes=lambda names: np.full(labels.shape, len(names)),
        turn=lambda *volumes, to_nnunet: volumes,
    )
    found = search_slices(None, {"a": case}, {"background": 0, "ring": 1}, count=1, predictions=tmp_path, axis=0)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < labels.nbytes / 20
    np.testing.assert_array_equal(next(found.list_drawn_cases()).prediction, labels)


def test_only_cases_that_are_predicted_are_counted(tmp_path, monkeypatch, capsys):
    labels = np.zeros((1, 4, 4), np.uint8)
    monkeypatch.setattr(next_slices, "predict_case", lambda *_: CasePrediction(labels, labels * 0.1, labels * 0.1))
    cases = {
        name: SimpleNamespace(
            identifier=name,
            images=(),
            read_grid=lambda: SimpleNamespace(size=(4, 4)),
            read_strokes=lambda names, value=value: np.full(labels.shape, value),
            turn=lambda *volumes, to_nnunet: volumes,
        )
        for name, value in (("drawn", 1), ("new", 2))
    }
    found = search_slices(None, cases, {"background": 0, "ring": 1}, count=1, predictions=tmp_path, progress=True)
    assert [*found.cases] == ["new"]
    read = "Reading strokes: 1 of 2\nReading strokes: 2 of 2\n"
    assert capsys.readouterr().err == f"{read}Predicting: 1 of 1\n"


def test_slices_are_those_of_the_file_whatever_order_nnunet_reads_in(tmp_path, monkeypatch):
    """Of LPS nnU-Net's reader makes RAS."""
    voxels = np.zeros((4, 5, 6), np.float32)
    voxels[3, 1, 2] = 1
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1, 1, 8))
    sitk.WriteImage(image, file := tmp_path / "a_0000.nii.gz")

    def predict(_, files):
        read = NibabelIOWithReorient().read_images([*map(str, files)])[0][0]
        return CasePrediction(read.astype(np.uint8), read, read)

    monkeypatch.setattr(next_slices, "predict_case", predict)
    reader = find_reader({"file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIOWithReorient"}, file)
    cases = {"a": CaseToDraw.of_files("a", [file], reader, 1)}
    for axis in (0, 1, 2):
        found = search_slices(None, cases, {"background": 0, "RV": 1}, count=1, predictions=tmp_path, axis=axis)
        ((case, position),) = ((chosen.case, chosen.position) for chosen in found.chosen)
        assert (case, position) == ("a", (3, 1, 2)[axis])
        (row,) = found.list_rows("napari")
        assert (row["slice"], row["axis"]) == (f"axis {axis}, {position}", "zyx"[axis])
    np.testing.assert_array_equal(next(found.list_drawn_cases()).prediction, voxels)


def test_where_no_spacing_tells_slices_lie_as_strokes_do(tmp_path, monkeypatch):
    strokes = np.full((6, 6, 6), 2)
    strokes[1, ::2, 1:5] = strokes[1:5, ::2, 4] = 1  # across y
    grid = Grid.of(sitk.GetImageFromArray(strokes))
    doubt = np.zeros(strokes.shape, np.float32)
    monkeypatch.setattr(next_slices, "predict_case", lambda *_: CasePrediction(doubt.astype(np.uint8), doubt, doubt))
    cases = {
        name: SimpleNamespace(
            identifier=name,
            images=(),
            label=label,
            read_grid=lambda: grid,
            turn=lambda *volumes, to_nnunet: volumes,
            read_strokes=lambda names, values=values: values,
        )
        for name, label, values in (("drawn", "label", strokes), ("new", None, np.full_like(strokes, 2)))
    }
    found = search_slices(None, cases, {"background": 0, "RV": 1}, count=9, predictions=tmp_path)
    assert {name: slices.axis for name, slices in found.slices.items()} == {"drawn": 1, "new": 1}
    assert {chosen.position for chosen in found.chosen if chosen.case == "drawn"} == {1, 3, 5}


def test_pixels_of_pictures_are_as_high_and_wide_as_voxels(tmp_path, monkeypatch):
    sections = []
    monkeypatch.setattr(next_slices, "draw_sections", lambda drawn, **_: sections.extend(drawn))
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4), np.float32))
    image.SetSpacing((1, 2, 8))
    sitk.WriteImage(image, file := tmp_path / "a.nii.gz")
    np.savez(tmp_path / "a.npz", labels=np.zeros((2, 3, 4), np.uint8))
    for axis in (0, 1, 2):
        own = {"a": replace(slices(0.1, 0.2), axis=axis)}
        Search({"a": CaseToDraw("a", (), (file,), None)}, own, [ChosenSlice("a", 1, 1.0)], {"RV": 1}, tmp_path).draw(
            "napari", ""
        )
    assert [(section.scan.shape, section.aspect) for section in sections] == [((3, 4), 2), ((2, 4), 8), ((2, 3), 4)]


def test_pictures_are_upright_but_for_napari_which_shows_them_as_stored(tmp_path):
    voxels = np.random.default_rng(0).random((3, 6, 8)).astype(np.float32)
    drawn = {}
    for order in ("LPS", "RAS"):
        image = sitk.DICOMOrient(sitk.GetImageFromArray(voxels), order)
        sitk.WriteImage(image, str(tmp_path / f"{order}.nii.gz"))
        np.savez(tmp_path / "a.npz", labels=(sitk.GetArrayFromImage(image) > 0.5).astype(np.uint8))
        case = CaseToDraw("a", (), (tmp_path / f"{order}.nii.gz",), None)
        search = Search({"a": case}, {"a": slices(0.1, 0.2, 0.3)}, [ChosenSlice("a", 1, 1.0)], {"RV": 1}, tmp_path)
        drawn[order] = {tool: search.draw(tool, "") for tool in ("slicer", "napari")}
    assert drawn["LPS"]["slicer"] == drawn["RAS"]["slicer"]
    assert drawn["LPS"]["napari"] != drawn["RAS"]["napari"]
