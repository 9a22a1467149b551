"""Files of a dataset as nnU-Net sees them: read by the reader that its dataset.json names, or that fits its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.formats import (
    is_grey_bmp,
    is_planar,
    is_sheared,
    is_tiff,
    note_slope,
    place,
    stated_spacing,
)
from nnunet_attenscribble.common.grids import SPACING_TOLERANCE, read_header
from nnunet_attenscribble.common.soundness import is_nifti2
from nnunet_attenscribble.common.text import tell_error
from nnunet_attenscribble.common.volumes import Source, check_file, file_of, read_pixels, read_volume, stamp
from nnunet_attenscribble.errors import AttenScribbleError

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

#: A class of nnU-Net's; None for its SimpleITKIO, which sees what `volumes.read_volume` sees.
Reader = type["BaseReaderWriter"] | None

_OWN = "SimpleITKIO"
_OWN_ENDINGS = (".nii.gz", ".nrrd", ".mha", ".gipl")
_NIBABEL = ("NibabelIO", "NibabelIOWithReorient")
_PICTURES = "NaturalImage2DIO"
_FLAT = 999  # mm, what nnU-Net takes for the third step of a picture


def find_reader(dataset_json: Mapping[str, Any], example: Path) -> Reader:
    """The reader that nnU-Net takes for the files of a dataset.

    Args:
        dataset_json: its content.
        example: one of its images, which nnU-Net tries to read.

    Raises:
        AttenScribbleError: nnU-Net has none.
    """
    named = dataset_json.get("overwrite_image_reader_writer")
    if named == _OWN:
        return None
    ending = dataset_json.get("file_ending")
    if not isinstance(named, str | None) or not isinstance(ending, str):
        raise AttenScribbleError(
            f"dataset.json: its overwrite_image_reader_writer is {named!r} and its file_ending {ending!r}: give the "
            'name of a reader of nnU-Net, or none, and text such as ".nii.gz"'
        )
    if named in (None, "None") and ending.lower() in _OWN_ENDINGS and _is_readable(example):
        return None  # which nnU-Net finds by trying, too, behind imports of a second
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    for file in (str(example), None):  # nothing reads a damaged example, which then is told as such
        try:
            with _quiet_nnunet():
                found = determine_reader_writer_from_dataset_json(dict(dataset_json), file, verbose=False)
        except RuntimeError:
            continue
        if isinstance(found, type) and issubclass(found, BaseReaderWriter):
            return as_reader(found)
    raise AttenScribbleError(
        f"nnU-Net has no reader {named or ''} for files that end in {ending!r}: name one in dataset.json "
        "(overwrite_image_reader_writer), or convert the files to .nii.gz"
    )


def as_reader(found: type[BaseReaderWriter]) -> Reader:
    """A class of nnU-Net's, as is said here."""
    return None if found.__name__ == _OWN else found


def keeps_files(reader: Reader) -> bool:
    """Whether a dataset whose NIfTI files stay as they are needs this very reader."""
    return reader is not None and reader.__name__ in _NIBABEL


@dataclass(frozen=True)
class DatasetFile:
    """A channel of a file, as nnU-Net reads it, as a source of its own."""

    file: Path
    reader: Reader
    """None only for a file of several."""
    channel: int = 0
    channels: int = 1
    """Of the whole file."""
    label: bool = False

    def __call__(self) -> sitk.Image:
        """The channel as a scalar image; raises as `read_volume` does."""
        if self.channels == 1:
            return _read(self.file, self.reader, label=self.label)[self.channel]
        # A copy, as the caller may change it; its voxels are shared until then.
        return sitk.Image(_read_colours(replace(self, channel=0), stamp(self.file))[self.channel])


def split_channels(file: Path) -> tuple[Source, ...]:
    """The file, or a source for each of its colours where it is a picture with several."""
    colours = count_colours(file)
    return (file,) if colours == 1 else tuple(DatasetFile(file, None, number, colours) for number in range(colours))


def count_colours(file: Path) -> int:
    """Values per pixel by its header; 1 where that cannot be read, as will be told elsewhere."""
    if is_tiff(file):
        return _count_samples(file)
    if is_grey_bmp(file):
        return 1
    try:
        return read_header(file).GetNumberOfComponents()
    except RuntimeError:
        return 1


def _count_samples(file: Path) -> int:
    """As `read_tiff` reads them: a volume of three slices has no colours, whatever its tags say."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as content:
            series = content.series[0]
            if is_planar(series):
                return series.shape[0]
            return series.shape[-1] if series.axes.endswith("S") else 1
    except Exception:  # as in read_tiff
        return 1


def as_readable(source: Source, *, label: bool = False) -> Source:
    """A NIfTI file with axes that SimpleITK refuses, as nnU-Net's NibabelIO reads it; any other source as it is."""
    if not isinstance(source, Path) or not is_sheared(source):
        return source
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    return DatasetFile(source, NibabelIO, label=label)


def open_files(files: list[Path], reader: Reader, *, channels: int = 1, label: bool = False) -> tuple[Source, ...]:
    """Files of one case as sources, one per channel.

    Args:
        files: as they are named; a picture in colour is one file of several channels.
        reader: of their dataset.
        channels: that are expected; where they are more than the files, these are opened to count theirs.
        label: they hold classes.

    Raises:
        AttenScribbleError: where a file had to be opened, and cannot be read.
    """
    found: list[Source] = []
    for file in files:
        if reader is None:
            _refuse_nifti2(file)
            own = (file,) if len(files) >= channels else split_channels(file)
            if len(own) == 1 and len(files) < channels:
                read_pixels(file)  # which tells what is wrong with it, if it is not that it has one colour
            found += own
            continue
        count = 1 if len(files) >= channels else _count_channels(file, reader, label=label)
        found += [DatasetFile(file, reader, number, count, label) for number in range(count)]
    return tuple(found)


def read_channels(file: Path, reader: Reader) -> list[sitk.Image]:
    """Every channel of a file, such as the colours of a picture, as a scalar image; raises as `read_volume`."""
    return [read_volume(channel, str(file)) for channel in _read(file, reader, label=False)]


def read_label(source: Source, reader: Reader) -> sitk.Image:
    """A label, by a reader that knows its ending, else as `read_volume` reads it.

    Raises:
        AttenScribbleError: naming the file and what is wrong with it.
    """
    file = file_of(source)
    endings = () if reader is None else tuple(reader.supported_file_endings)
    if isinstance(source, Path) and source.name.lower().endswith(endings):
        source = DatasetFile(source, reader, label=True)
    return read_volume(source, str(file), label=True)


def write_label(labels: np.ndarray, like: Path, target: Path, reader: Reader) -> None:
    """Have nnU-Net's reader write labels (z, y, x) or (y, x) as it read another file of the same grid."""
    assert reader is not None
    with _quiet_nnunet():
        writer = reader()
        _, properties = writer.read_seg(str(like))
        writer.write_seg(labels if labels.ndim == 3 else labels[None], str(target), properties)


def _count_channels(file: Path, reader: Reader, *, label: bool) -> int:
    """By its header, where nnU-Net takes the colours of a picture as Pillow has them; else all of it is read."""
    if reader is not None and reader.__name__ == _PICTURES and not is_tiff(file) and not label:
        from PIL import Image

        with suppress(Exception), Image.open(file) as picture:  # what is wrong is told by reading it
            if picture.mode in ("RGB", "RGBA"):
                return len(picture.mode)
    return len(_read(file, reader, label=label))


@lru_cache(maxsize=1)  # a picture is asked for one colour after the other
def _read_colours(first: DatasetFile, _: tuple[int, int] | None) -> list[sitk.Image]:
    return _read(first.file, first.reader, label=first.label)


def _read(file: Path, reader: Reader, *, label: bool) -> list[sitk.Image]:
    if reader is None:
        pixels = read_pixels(file)
        if pixels.GetNumberOfComponentsPerPixel() == 1:
            return [pixels]
        return [sitk.VectorIndexSelectionCast(pixels, n) for n in range(pixels.GetNumberOfComponentsPerPixel())]
    check_file(file)
    stated = _read_stated(file)
    try:
        with _quiet_nnunet():
            opened = reader()
            voxels, properties = opened.read_seg(str(file)) if label else opened.read_images((str(file),))
        images = [sitk.GetImageFromArray(_shrink(channel)) for channel in voxels]
    except Exception as error:  # each of nnU-Net's readers has its own
        if is_tiff(file) and isinstance(error, KeyError) and error.args == ("spacing",):
            beside = file.with_name(f"{file.stem if label else file.stem[:-5]}.json")  # without _0000
            raise AttenScribbleError(
                f'{beside}: tells other things, where nnU-Net looks for the spacing of {file.name}: add "spacing": '
                "[z, y, x], in mm, or move it elsewhere"
            ) from None
        raise AttenScribbleError(
            f"{file}: is truncated, or not an image that nnU-Net's {reader.__name__} can read ({tell_error(error)})"
        ) from None
    if label and len(images) > 1:
        raise AttenScribbleError(
            f"{file}: has several components per voxel (colour or vectors): save the label with one value per voxel, "
            "the number of its class"
        )
    images = [_give_grid(image, properties) for image in images]
    if stated is not None and images[0].GetDimension() == 3:
        _check_spacing(file, stated, images[0].GetSpacing())
    note_slope(images, file)
    return images


def _give_grid(image: sitk.Image, properties: Mapping[str, Any]) -> sitk.Image:
    spacing = tuple(float(step) for step in properties["spacing"])[::-1]
    if "nibabel_stuff" in properties:
        found = properties["nibabel_stuff"]
        place(image, found.get("reoriented_affine", found["original_affine"]), spacing)
    elif "sitk_stuff" in properties:
        found = properties["sitk_stuff"]
        image = image[:, :, 0] if len(found["spacing"]) == 2 else image
        image.SetSpacing(found["spacing"])
        image.SetOrigin(found["origin"])
        image.SetDirection(found["direction"])
    elif spacing[-1] == _FLAT and image.GetSize()[-1] == 1:
        image = image[:, :, 0]
        image.SetSpacing(spacing[:2])
    else:
        image.SetSpacing(spacing)
    return image


def _read_stated(file: Path) -> tuple[float, ...] | None:
    """The spacing that a TIFF states, in whatever place."""
    try:
        return stated_spacing(file) if is_tiff(file) else None
    except RuntimeError as error:
        raise AttenScribbleError(f"{file}: is truncated, or not an image that can be read ({error})") from None


def _check_spacing(file: Path, stated: tuple[float, ...], seen: tuple[float, ...]) -> None:
    """nnU-Net reads the JSON file beside a TIFF, and none of its tags."""
    if len(stated) == len(seen) and not np.allclose(stated, seen, rtol=SPACING_TOLERANCE, atol=0):
        steps = [float(f"{step:.6g}") for step in stated[::-1]]
        raise AttenScribbleError(
            f"{file}: its tags state a spacing, but nnU-Net takes {seen[::-1]} mm: write "
            f'{{"spacing": {steps}}} into a JSON file beside it, CASE.json'
        )


def _shrink(voxels: np.ndarray) -> np.ndarray:
    """Whole numbers, which nnU-Net's readers give as float32, in as few bytes as they need."""
    if not np.isfinite(voxels).all() or (voxels != np.rint(voxels)).any():
        return voxels
    low, high = voxels.min(initial=0), voxels.max(initial=0)
    kinds = (np.uint8, np.int16, np.uint16)
    fitting = (kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return voxels.astype(next(fitting, voxels.dtype))


def _is_readable(file: Path) -> bool:
    """By SimpleITK."""
    try:
        read_volume(file, "", thorough=False, whole=False)
        return not is_nifti2(file)
    except AttenScribbleError:
        return False


def _refuse_nifti2(file: Path) -> None:
    try:
        found = is_nifti2(file)
    except Exception:  # which is told where it is read
        return
    if found:
        raise AttenScribbleError(
            f"{file}: is NIfTI-2, which nnU-Net's SimpleITKIO does not read: save it as NIfTI-1, or name NibabelIO in "
            "dataset.json (overwrite_image_reader_writer)"
        )


@contextmanager
def _quiet_nnunet() -> Iterator[None]:
    """Without what its readers print; tracebacks of those that it tries are among it."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
