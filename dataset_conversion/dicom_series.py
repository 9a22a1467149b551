"""One DICOM series as a volume whose geometry comes from the slices' positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.volumes import stamp
from nnunet_attenscribble.errors import AttenScribbleError, refuse

_TOLERANCE = 1e-2  # mm
# Of each, how many there are.
_NUMBERS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
_NEEDED = ("SeriesInstanceUID", *_NUMBERS)

# Where slices differ in one of these, ITK puts the values of all into the type of the first.
_VALUES = ("RescaleSlope", "RescaleIntercept", "PixelRepresentation", "BitsAllocated")

_UNREADABLE = "{}: its pixels cannot be read: it is truncated or compressed in a way GDCM does not know"


def is_dicom(file: Path) -> bool:
    """By its ending or, where it has none, by its first bytes; a DICOMDIR, which lists others, is none."""
    if file.name.upper() == "DICOMDIR":
        return False
    if file.suffix.lower() in (".dcm", ".ima", ".dicom"):
        return True
    if file.suffix[1:].isalpha():
        return False  # endings of other kinds; those of numbers are parts of a UID
    try:
        with file.open("rb") as content:
            return content.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_modality(file: Path) -> str | None:
    """What a slice says that it was taken with (`CT`, `MR`, `PT`...); None where it does not."""
    import pydicom

    try:
        return str(pydicom.dcmread(file, specific_tags=["Modality"], stop_before_pixels=True).Modality) or None
    except Exception:  # what is wrong with it is told where it is read
        return None


def sort_series(files: Sequence[Path]) -> list[Path]:
    """The files of one series in the order of their slices, along the direction in which SimpleITK stacks them.

    Raises:
        AttenScribbleError: for unreadable files, several series, slices of unlike geometry, twice in one place, beside
            the line of the others, or missing.
    """
    return [file for file, _ in _sorted_headers(files)]


def read_series(files: Sequence[Path]) -> sitk.Image:
    """The volume of one series.

    The slice distance is that of the positions, or SpacingBetweenSlices where that says the same less some rounding;
    SliceThickness, which may be smaller or larger, is not looked at.

    Raises:
        AttenScribbleError: see `sort_series`; or pixels that cannot be read, or a single slice without
            SpacingBetweenSlices.
    """
    # A copy, as the caller may change it; its voxels are shared until then.
    return sitk.Image(_read_series(tuple(files), tuple(map(stamp, files))))


@lru_cache(maxsize=1)  # for a case's image, and again for the grid of its label
def _read_series(files: tuple[Path, ...], _stamps: tuple[tuple[int, int] | None, ...]) -> sitk.Image:
    ordered = _sorted_headers(files)
    paths = [file for file, _ in ordered]
    first, last = ordered[0][1], ordered[-1][1]
    told = _told_distance(first)
    if len(ordered) > 1:
        distance = float(np.linalg.norm(_position(last) - _position(first))) / (len(ordered) - 1)
        distance = told if told and abs(told - distance) < _TOLERANCE / len(ordered) else distance
    elif told:
        distance = told
    else:
        raise AttenScribbleError(
            f"{paths[0]}: is a single slice and has no SpacingBetweenSlices: give the whole series"
        )
    if cut := [_UNREADABLE.format(path) for path in paths if _is_cut(path)]:
        raise AttenScribbleError(cut)
    try:
        alike = len({tuple(str(header.get(name)) for name in _VALUES) for _, header in ordered}) == 1
        image = sitk.ReadImage([str(path) for path in paths], sitk.sitkUnknown if alike else sitk.sitkFloat32)
    except RuntimeError:
        raise AttenScribbleError(_unreadable(paths)) from None
    image.SetSpacing((*image.GetSpacing()[:2], distance))
    return image


def _sorted_headers(files: Sequence[Path]) -> list[tuple[Path, Any]]:
    headers = _read_headers(files)
    folder = files[0].parent
    if len(series := {str(header.SeriesInstanceUID) for header in headers.values()}) > 1:
        raise AttenScribbleError(
            f"{folder}: holds {len(series)} DICOM series: give a folder with one, or make NIfTI of them with dcm2niix"
        )
    first = headers[files[0]]
    problems = [
        f"{file}: its {name} differs from that of {files[0].name}: give slices of one volume"
        for name in ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
        for file, header in headers.items()
        if not np.allclose(_values(header, name), _values(first, name), atol=1e-4)
    ]
    refuse(problems)
    along_rows, along_columns = _values(first, "ImageOrientationPatient").reshape(2, 3)
    normal = np.cross(along_rows, along_columns)
    ordered = sorted(headers.items(), key=lambda entry: float(_position(entry[1]) @ normal))
    offsets = np.array([_position(header) for _, header in ordered]) - _position(ordered[0][1])
    heights = offsets @ normal
    aside = np.linalg.norm(offsets - np.outer(heights, normal), axis=1)
    problems += [
        f"{file}: lies {shift:.3g} mm aside of the line through the other slices: a tilted stack is no volume"
        for (file, _), shift in zip(ordered, aside, strict=True)
        if shift > max(_TOLERANCE, 0.1 * float(min(first.PixelSpacing)))
    ]
    steps = np.diff(heights)
    again = _count_visits(steps)
    if again > 1:
        raise AttenScribbleError(
            f"{folder}: every position occurs {again} times, as in a series of several phases or echoes: give a folder "
            "with the slices of one, or make NIfTI of it with dcm2niix"
        )
    apart = steps[steps >= _TOLERANCE]
    usual = float(np.sort(apart)[(len(apart) - 1) // 2]) if len(apart) else 0.0  # the lower median: gaps only widen
    for (before, _), (file, _), step in zip(ordered, ordered[1:], steps, strict=False):
        if step < _TOLERANCE:
            problems.append(f"{file}: lies where {before.name} lies: give every slice once")
        elif abs(step - usual) > max(_TOLERANCE, 0.01 * usual):
            problems.append(
                f"{folder}: a slice is missing between {before.name} and {file.name}: "
                f"they are {step:.4g} mm apart, others {usual:.4g} mm"
            )
    refuse(problems)
    return ordered


def _count_visits(steps: np.ndarray) -> int:
    """How often every position occurs, by the distances of slices in order; 1 where some occur more often."""
    ends = np.flatnonzero(np.append(steps, np.inf) >= _TOLERANCE)
    visits = np.unique(np.diff(ends, prepend=-1))
    return int(visits[0]) if len(visits) == 1 and len(ends) > 1 else 1


def _read_headers(files: Sequence[Path]) -> dict[Path, Any]:
    import pydicom

    if not files:
        raise AttenScribbleError("no DICOM file was given")
    headers, problems = {}, []
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            _refuse_unknown_kinds(header)
            absent = [name for name in _NEEDED if not header.get(name)]
            if not absent:
                _refuse_impossible_numbers(header)
                for name in _VALUES:
                    header.get(name)  # which raises where it is damaged
                headers[file] = header
        except Exception as error:  # pydicom has one of its own for each of the ways in which a file can be broken
            told = (str(error) or type(error).__name__).splitlines()[0]
            problems.append(f"{file}: cannot be read as DICOM ({told}): restore the download")
        else:
            if absent:
                problems.append(
                    f"{file}: is no slice of a DICOM volume: it has no {', '.join(absent)}: make NIfTI of images with "
                    "dcm2niix, and .seg.nrrd of drawings (SEG, RTSTRUCT) with 3D Slicer"
                )
    refuse(problems)
    return headers


def _refuse_unknown_kinds(header: Any) -> None:
    """A ValueError about a value of a kind that DICOM has not: GDCM takes the bytes behind it for its length, and makes
    room for gigabytes. pydicom looks at kinds late, or never.
    """
    from pydicom.valuerep import VR

    known = {kind.value for kind in VR}
    for element in (*header.file_meta.values(), *header.values()):
        if element.VR is not None and element.VR not in known:
            raise ValueError(f"{element.tag} is of the kind {element.VR!r}, which DICOM has not")


def _refuse_impossible_numbers(header: Any) -> None:
    """A ValueError about a place or size that is none, of which GDCM makes one of its own."""
    for name, count in _NUMBERS.items():
        values = _values(header, name)
        if len(values) != count or not np.isfinite(values).all() or (name == "PixelSpacing" and min(values) <= 0):
            raise ValueError(f"{name} is {header[name].value}")


def _told_distance(header: Any) -> float | None:
    """SpacingBetweenSlices, where it is one number above 0."""
    try:
        distance = float(header.get("SpacingBetweenSlices"))
    except (TypeError, ValueError):  # there is none, there are several, or it is no number
        return None
    return distance if 0 < distance < np.inf else None


def _unreadable(paths: Sequence[Path]) -> list[str]:
    """Name the files that stop a series from being read."""
    broken = []
    for path in paths:
        try:
            sitk.ReadImage(str(path))
        except RuntimeError:
            broken.append(_UNREADABLE.format(path))
    return broken or [f"{paths[0].parent}: its slices cannot be read as one volume"]


def _is_cut(path: Path) -> bool:
    """Whether uncompressed pixels end too early, which the GDCM of older SimpleITK fills up without a word."""
    import pydicom
    from pydicom.pixels.utils import get_expected_length

    try:
        content = pydicom.dcmread(path)
    except Exception:  # as in _read_headers; its header could be read, what follows cannot
        return True
    try:
        stored = not content.file_meta.TransferSyntaxUID.is_compressed
        return stored and len(content.PixelData) < get_expected_length(content)
    except Exception:  # pixels are not described, or not as they may be: GDCM has the last word
        return False


def _values(header, name: str) -> np.ndarray:
    return np.ravel(header[name].value).astype(float)


def _position(header) -> np.ndarray:
    return _values(header, "ImagePositionPatient")
