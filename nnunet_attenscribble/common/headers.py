"""What headers state: NIfTI through nibabel (NIfTI-2, sheared axes, which SimpleITK does not take), and whether
any file says how far apart its voxels are, or leaves readers to assume 1 mm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.grids import Placed
from nnunet_attenscribble.common.soundness import read_scaling
from nnunet_attenscribble.common.tiff import is_tiff, stated_spacing

__all__ = [
    "has_right_angles",
    "holds_place",
    "is_sheared",
    "place",
    "quiet",
    "read_with_nibabel",
    "states_spacing",
    "write_with_nibabel",
]

_PICTURES = (".png", ".bmp", ".jpg", ".jpeg")
_KEYS = {".nrrd": (b"spacings:", b"space directions:"), ".mha": (b"ElementSpacing", b"ElementSize")}
_HEADER = 1 << 14  # bytes
_TO_LPS = np.array(
    [-1.0, -1.0, 1.0]
)  # nibabel's axes point to right, anterior and superior, SimpleITK's first two away

_MM = {"meter": 1e3, "micron": 1e-3}  # which SimpleITK regards and nibabel does not


def read_with_nibabel(file: Path) -> sitk.Image:
    """Read a file of up to three axes; more than these, of one frame each, are dropped.

    Raises:
        RuntimeError: it cannot be read.
    """
    import nibabel

    try:
        loaded: Any = nibabel.load(file)
        voxels = np.asanyarray(loaded.dataobj)  # scaled where the header says so
        while voxels.ndim > 3 and voxels.shape[-1] == 1:
            voxels = voxels[..., 0]
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose()))
    except Exception as error:  # what nibabel raises has nothing in common
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    if scaling := read_scaling(file):
        image.SetMetaData("scl_slope", repr(scaling[0]))  # as SimpleITK tells it
    scale = _MM.get(loaded.header.get_xyzt_units()[0], 1.0)
    affine = np.diag([scale, scale, scale, 1.0]) @ loaded.affine
    place(image, affine, [scale * float(step) for step in loaded.header.get_zooms()[: image.GetDimension()]])
    return image


def place(image: sitk.Image, affine: np.ndarray, spacing: Sequence[float]) -> None:
    """Give an image nibabel's grid.

    Args:
        image: of two or three axes; others are left as they are.
        affine: (4, 4), from indices to mm.
        spacing: mm along x, y, z: that of the header, which nnU-Net takes, and not always the length of the affine's
            columns.
    """
    count = image.GetDimension()
    if count > 3:
        return
    columns = (_TO_LPS[:, None] * affine[:3, :3])[:count, :count]
    image.SetSpacing([abs(float(step)) for step in spacing])
    image.SetOrigin((_TO_LPS * affine[:3, 3])[:count].tolist())
    if np.linalg.det(columns):
        image.SetDirection((columns / np.linalg.norm(columns, axis=0)).ravel().tolist())


@contextmanager
def quiet() -> Iterator[None]:
    """Without ITK's C++ warnings, which no caller can catch and which would bury our own messages."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def is_sheared(file: Path) -> bool:
    """Whether it is a NIfTI file whose axes SimpleITK refuses, as they are not at right angles."""
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return False
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        with quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        return "orthonormal" in str(error)
    return False


def has_right_angles(image: sitk.Image) -> bool:
    """Whether SimpleITK writes its axes as they are, and does not coerce them."""
    axes = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)
    return bool(np.allclose(axes.T @ axes, np.eye(len(axes)), atol=1e-4))


def write_with_nibabel(image: sitk.Image, file: Path) -> None:
    """Write a volume of three axes as NIfTI."""
    import nibabel

    axes = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = _TO_LPS[:, None] * axes
    affine[:3, 3] = _TO_LPS * np.array(image.GetOrigin())
    voxels = sitk.GetArrayFromImage(image).transpose()
    nibabel.save(nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype), file)


def holds_place(file: Path | None) -> bool:
    """Whether a file's format can say where its voxels lie; None, for what is no file, can."""
    return file is None or not (is_tiff(file) or file.suffix.lower() in _PICTURES)


def states_spacing(file: Path, image: Placed) -> bool:
    """Whether the spacing of an image along all of its axes stands in its file, or beside a TIFF.

    Args:
        file: that was read and found in order.
        image: what was read.
    """
    if is_tiff(file):
        return len(stated_spacing(file) or ()) >= len(image.GetSize())
    if any(step != 1 for step in image.GetSpacing()):
        return True
    if file.suffix.lower() in _PICTURES:
        return False
    keys = _KEYS.get(file.suffix.lower())
    if keys is None:
        return True
    with file.open("rb") as stream:
        lines = stream.read(_HEADER).split(b"\n")
    return any(line.startswith(keys) and b"nan" not in line.lower() for line in lines)
