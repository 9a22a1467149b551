"""TIFF: voxels as nnU-Net reads them, spacing from wherever it is stated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.common.formats import find_sidecar, states_spacing
from nnunet_attenscribble.common.readers import count_colours
from nnunet_attenscribble.common.volumes import read_image, read_volume
from nnunet_attenscribble.errors import AttenScribbleError


def voxels(*shape: int, dtype: object = np.uint8) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write_spacing(file: Path, *spacing: object) -> None:
    file.write_text(json.dumps({"spacing": spacing}))


@pytest.mark.parametrize("slices", [1, 2, 3, 4, 5])  # tifffile writes three and four as colours of one image
def test_a_label_is_read_as_nnunet_wrote_it(tmp_path, slices):
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    file = tmp_path / "case.tif"
    Tiff3DIO().write_seg(voxels(slices, 6, 7), str(file), {"spacing": [10, 2, 1.5]})
    image = read_volume(file, "")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels(slices, 6, 7))
    assert image.GetSpacing() == (1.5, 2, 10)
    seen, properties = Tiff3DIO().read_seg(str(file))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), seen[0])
    assert image.GetSpacing() == tuple(properties["spacing"])[::-1]


@pytest.mark.parametrize("ending", [".tif", ".tiff", ".TIF"])
def test_every_channel_has_the_spacing_of_its_case(tmp_path, ending):
    write_spacing(tmp_path / "case_0007.json", 4, 2, 1)
    for channel in (0, 1):
        tifffile.imwrite(tmp_path / f"case_0007_000{channel}{ending}", voxels(5, 6, 7, dtype=np.float32))
        assert read_image(tmp_path / f"case_0007_000{channel}{ending}").GetSpacing() == (1, 2, 4)


def test_a_resolution_for_printing_is_no_spacing(tmp_path):
    for shape in ((6, 7), (5, 6, 7)):
        file = tmp_path / f"{len(shape)}.tif"
        tifffile.imwrite(file, voxels(*shape), resolution=(300, 300), resolutionunit="INCH")
        assert read_image(file).GetSpacing() == (1,) * len(shape)


def write_imagej(file: Path, *, unit: object = "mm", spacing: object = 8, steps=(0.5, 0.25)) -> None:
    stated = {"axes": "ZYX", "unit": unit, "spacing": spacing}
    stated = {key: value for key, value in stated.items() if value is not None}
    tifffile.imwrite(file, voxels(5, 6, 7), imagej=True, resolution=tuple(1 / s for s in steps), metadata=stated)


def write_ome(file: Path, unit: str | None = "mm", **sizes: float) -> None:
    stated = {f"PhysicalSize{axis}": size for axis, size in sizes.items()}
    units = {} if unit is None else {f"PhysicalSize{axis}Unit": unit for axis in sizes}
    tifffile.imwrite(file, voxels(5, 6, 7), ome=True, metadata={"axes": "ZYX", **stated, **units})


@pytest.mark.parametrize(
    ("unit", "mm"),
    [("mm", 1), ("cm", 10), ("micron", 1e-3), ("um", 1e-3), ("\\u00B5m", 1e-3), ("nm", 1e-6), ("inch", 25.4)],
)
def test_imagej_states_a_spacing(tmp_path, unit, mm):
    write_imagej(tmp_path / "a.tif", unit=unit)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").GetSpacing(), (0.5 * mm, 0.25 * mm, 8 * mm), rtol=1e-6)


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("\u00b5m", 1e-3), (None, 1e-3), ("nm", 1e-6)])
def test_ome_states_a_spacing(tmp_path, unit, mm):
    write_ome(tmp_path / "a.ome.tif", unit, X=0.5, Y=0.25, Z=8)
    found = read_image(tmp_path / "a.ome.tif").GetSpacing()
    np.testing.assert_allclose(found, (0.5 * mm, 0.25 * mm, 8 * mm), rtol=1e-6)


def test_what_states_no_spacing(tmp_path):
    write_imagej(tmp_path / "pixels.tif", unit="pixel")
    write_imagej(tmp_path / "no unit.tif", unit=None)
    write_imagej(tmp_path / "no z.tif", spacing=None)
    write_imagej(tmp_path / "zero.tif", spacing=0)
    write_ome(tmp_path / "frame.ome.tif", "pixel", X=2, Y=2, Z=2)
    write_ome(tmp_path / "only x.ome.tif", X=2)
    tifffile.imwrite(tmp_path / "plain.tif", voxels(5, 6, 7), resolution=(300, 300), resolutionunit="INCH")
    for file in tmp_path.glob("*.tif"):
        image = read_image(file)
        assert image.GetSpacing() == (1, 1, 1), file
        assert not states_spacing(file, image), file
        (tmp_path / f"{file.stem}.json").write_text('{"spacing": [8, 0.25, 0.5]}')
        image = read_image(file)
        assert image.GetSpacing() == (0.5, 0.25, 8), file
        assert states_spacing(file, image), file


def test_two_statements_agree_or_are_refused(tmp_path):
    file, sidecar = tmp_path / "a.tif", tmp_path / "a.json"
    write_imagej(file)
    sidecar.write_text('{"spacing": [8, 0.25, 0.5]}')
    assert read_image(file).GetSpacing() == (0.5, 0.25, 8)
    sidecar.write_text('{"spacing": [8, 0.5, 0.5]}')
    with pytest.raises(AttenScribbleError) as caught:
        read_volume(file, str(file))
    assert caught.value.problems == [
        f"{file}: its spacing is stated in two ways, {sidecar} say (0.5, 0.5, 8) and its ImageJ tags say "
        "(0.5, 0.25, 8) mm along x, y, z: correct one of them"
    ]


def test_a_picture_needs_two_axes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", voxels(6, 7), imagej=True, resolution=(2, 4), metadata={"unit": "mm"})
    image = read_image(tmp_path / "a.tif")
    assert image.GetSpacing() == (0.5, 0.25)
    assert states_spacing(tmp_path / "a.tif", image)


@pytest.mark.parametrize(("ending", "header"), [(".mha", b"ElementSpacing"), (".nrrd", b"space directions")])
def test_other_headers_may_state_none(tmp_path, ending, header):
    file = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels(5, 6, 7)), str(file))
    assert states_spacing(file, sitk.ReadImage(str(file)))  # 1 mm, but it is said
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join(line for line in lines if not line.startswith(header)))
    image = sitk.ReadImage(str(file))
    assert image.GetSpacing() == (1, 1, 1)
    assert not states_spacing(file, image)


def test_colours_are_no_slices_and_truths_are_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "colours.tif", voxels(6, 7, 3), photometric="rgb")
    image = read_image(tmp_path / "colours.tif")
    assert (image.GetSize(), image.GetNumberOfComponentsPerPixel()) == ((7, 6), 3)
    tifffile.imwrite(tmp_path / "mask.tif", voxels(5, 6, 7) > 9)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "mask.tif")), voxels(5, 6, 7) > 9)
    tifffile.imwrite(tmp_path / "big.tif", voxels(5, 6, 7, dtype=">u2"), byteorder=">")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "big.tif")), voxels(5, 6, 7))
    tifffile.imwrite(tmp_path / "frames.tif", voxels(2, 5, 6, 7))
    told = "it: has 4 dimensions, 2 or 3 are needed: extract one frame"
    for label, more in ((True, ""), (False, ", or, of channels, give a file for each, _0000, _0001 and so on")):
        with pytest.raises(AttenScribbleError) as caught:
            read_volume(tmp_path / "frames.tif", "it", label=label)
        assert caught.value.problems == [told + more]


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_that_lie_plane_behind_plane_are_no_slices(tmp_path, colours):
    planes = voxels(colours, 6, 7)
    options = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "a.tif", planes, metadata=None, **options)
    image = read_image(tmp_path / "a.tif")
    assert (image.GetSize(), count_colours(tmp_path / "a.tif")) == ((7, 6), colours)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), planes.transpose(1, 2, 0))
    tifffile.imwrite(tmp_path / "b.tif", planes, **options)  # as nnU-Net stores slices, with a note of their shape
    assert (read_image(tmp_path / "b.tif").GetSize(), count_colours(tmp_path / "b.tif")) == ((7, 6, colours), 1)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize(("axes", "told"), [("TYX", "at several times"), ("CYX", "in several channels")])
def test_times_and_channels_are_no_slices(tmp_path, kind, axes, told):
    tifffile.imwrite(tmp_path / "film.tif", voxels(4, 6, 7), metadata={"axes": axes}, **{kind: True})
    with pytest.raises(AttenScribbleError, match=rf"film\.tif: says that it shows one plane {told} \(axes {axes}\)"):
        read_volume(tmp_path / "film.tif", "it")


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", *(f'{{"spacing": {s}}}' for s in ("1", "[1, 1]", "[1, 0, 1]", "[1, 1, NaN]"))]
)
def test_a_spacing_that_is_none_is_refused(tmp_path, text):
    tifffile.imwrite(tmp_path / "case.tif", voxels(5, 6, 7))
    (tmp_path / "case.json").write_text(text)
    with pytest.raises(AttenScribbleError, match=r"case\.json lies beside a TIFF and does not tell its spacing"):
        read_volume(tmp_path / "case.tif", "it")


def write_pages(file: Path, pages: np.ndarray) -> None:
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page)


def test_json_of_other_things_tells_no_spacing(tmp_path):
    """As LabelMe leaves it beside a picture."""
    file = tmp_path / "case_0000.tif"
    tifffile.imwrite(file, voxels(5, 6, 7))
    (tmp_path / "case_0000.json").write_text('{"version": "5.4", "shapes": []}')
    assert read_volume(file, "it").GetSpacing() == (1, 1, 1)
    assert find_sidecar(file) is None
    write_spacing(tmp_path / "case.json", 8, 0.25, 0.5)
    assert read_volume(file, "it").GetSpacing() == (0.5, 0.25, 8)


def test_pages_that_are_no_stack_are_refused(tmp_path):
    write_pages(tmp_path / "case.tif", voxels(5, 6, 7))
    with pytest.raises(AttenScribbleError) as caught:
        read_volume(tmp_path / "case.tif", "it")
    assert caught.value.problems == [f"{tmp_path / 'case.tif'}: holds 5 separate images: save it as one stack"]
    with tifffile.TiffWriter(tmp_path / "stack.tif") as writer:
        for page in voxels(5, 6, 7):
            writer.write(page, contiguous=True)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(tmp_path / "stack.tif")), voxels(5, 6, 7))


@pytest.mark.parametrize("command", ["convert", "scribble", "inspect"])
def test_every_command_tells_pages_in_one_sentence(tmp_path, command):
    folders = (tmp_path / "Dataset007_Pages" / "imagesTr", tmp_path / "Dataset007_Pages" / "labelsTr")
    for folder, name, dtype in zip(folders, ("a_0000.tif", "a.tif"), (np.float32, np.uint8), strict=True):
        folder.mkdir(parents=True)
        tifffile.imwrite(folder / name, voxels(5, 6, 7, dtype=dtype) % 2)
    write_pages(folders[1] / "a.tif", voxels(5, 6, 7) % 2)
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "file_ending": ".tif"}
    (folders[0].parent / "dataset.json").write_text(json.dumps({**description, "numTraining": 1}))
    images, labels = folders
    arguments = {
        "convert": ("folder", images, "--dense", labels, "--name", "B", "--labels", "a", "-d", 8, "--spacing", 1, 1, 1),
        "scribble": (7, "-o", 8),
        "inspect": (7,),
    }[command]
    result = CliRunner().invoke(
        app, [command, *map(str, arguments), "--workers", "1"], env={"nnUNet_raw": str(tmp_path)}
    )
    assert isinstance(result.exception, AttenScribbleError)
    assert result.exception.problems == [f"{folders[1] / 'a.tif'}: holds 5 separate images: save it as one stack"]


@pytest.mark.parametrize("kept", [2, 7, 50, 300])
def test_a_damaged_file_is_named(tmp_path, kept):
    file = tmp_path / "case.tif"
    tifffile.imwrite(file, voxels(5, 40, 40), compression="zlib")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(AttenScribbleError, match=r"case\.tif: is truncated, or not an image"):
        read_volume(file, str(file))
