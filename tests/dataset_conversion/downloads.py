"""Made-up copies of the layouts in which people have their data: a few voxels each, oblique and anisotropic."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from nnunet_attenscribble.dataset_conversion.folder import FolderOptions
from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing, WrittenDatasets
from tests.tiny import (
    DIRECTION,
    ORIGIN,
    SIZE,
    SPACING,
    make_dense,
    make_scan,
    make_strokes,
    make_volume,
)

GREY = {0: 0, 1: 63, 2: 126, 3: 189, 4: 252}
STEP = 6.5  # mm between slices; SliceThickness says something else


def organs(seed: int = 0) -> np.ndarray:
    """A dense label with the five values of CHAOS, (z, y, x)."""
    label = np.zeros(SIZE[::-1], np.uint8)
    label[1:, 1:3, 1:5] = [1, 2, 3, 4]
    return np.roll(label, seed % 2, axis=1)


def organ_strokes(seed: int = 0) -> np.ndarray:
    """Its scribble in PacingPseudo's coding: 0 unlabelled, 5 a stroke in the background."""
    truth = organs(seed)
    strokes = np.zeros_like(truth)
    strokes[:, 2] = np.where(truth[:, 2] == 0, 5, truth[:, 2])
    return strokes


def write_slice(
    file: Path, pixels: np.ndarray, height: float, series: str, *, direction=DIRECTION, shift=0.0, number: int = 1
) -> None:
    """One DICOM slice (rows, columns), `height` mm along the normal."""
    axes = np.reshape(direction, (3, 3))
    position = np.array(ORIGIN) + height * np.cross(axes[:, 0], axes[:, 1]) + shift * axes[:, 0]
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(file)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = pydicom.dataset.FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Modality, header.SeriesInstanceUID, header.InstanceNumber = "MR", series, number
    header.Rows, header.Columns = pixels.shape
    header.PixelSpacing = [SPACING[1], SPACING[0]]
    header.SliceThickness, header.SpacingBetweenSlices = 5.0, STEP
    header.ImagePositionPatient = [f"{value:.9g}" for value in position]
    header.ImageOrientationPatient = [f"{value:.9g}" for value in (*axes[:, 0], *axes[:, 1])]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.PixelData = pixels.astype("<u2").tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(file, enforce_file_format=True)


def write_chaos(root: Path, patients=(1, 2, 3), *, t2: bool = False) -> tuple[Path, Path]:
    """CHAOS's layout with PacingPseudo's scribbles: (folder of the download, folder of the scribbles)."""
    mr, scribbles = root / "CHAOS" / "MR", root / "scribble_data"
    for patient in patients:
        part = mr / str(patient) / ("T2SPIR" if t2 else "T1DUAL")
        series = generate_uid(entropy_srcs=[str(patient)])
        truth = organs(patient)
        phases = {"": 0} if t2 else {"OutPhase": 1, "InPhase": 0}
        for phase, offset in phases.items():
            pixels = sitk.GetArrayFromImage(make_scan(10 * patient + offset)).astype(np.uint16)
            for position in range(SIZE[2]):
                # In-phase slices carry the even numbers; and numbers fall while positions rise.
                number = 2 * (SIZE[2] - position) - offset
                file = part / "DICOM_anon" / phase / f"IMG-{patient:04d}-{number:05d}.dcm"
                write_slice(file, pixels[position], STEP * position, series, number=number)
                if offset == 0:
                    (part / "Ground").mkdir(exist_ok=True)
                    grey = np.vectorize(GREY.get)(truth[position]).astype(np.uint8)
                    sitk.WriteImage(sitk.GetImageFromArray(grey), part / "Ground" / f"{file.stem}.png")
        target = scribbles / str(patient) / f"patient{patient}_{'t2' if t2 else 't1'}_scb.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(make_volume(organ_strokes(patient), spacing=(*SPACING[:2], STEP)), target)
    return mr, scribbles


def write_mscmr(root: Path, training=(2, 4, 6), held_back=(1, 3)) -> Path:
    """CycleMix's layout."""
    folder = root / "MSCMR_dataset"
    for subject in (*training, *held_back):
        part = folder / ("train" if subject in training else "val" if subject == 1 else "TestSet")
        for sub in ("images", "labels"):
            (part / sub).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(make_scan(subject), part / "images" / f"subject{subject}_DE.nii.gz")
        role, label = ("scribble", make_strokes()) if subject in training else ("manual", make_dense())
        sitk.WriteImage(make_volume(label, np.uint16), part / "labels" / f"subject{subject}_DE_{role}.nii.gz")
    return folder


def write_h5(root: Path, names=("patient019_frame01", "patient019_frame11", "patient032_frame01")) -> tuple[Path, Path]:
    """WSL4MIS's layout: (folder, table of spacing)."""
    folder, table = root / "ACDC_training_volumes", root / "spacing.csv"
    folder.mkdir()
    for seed, name in enumerate(names):
        image = sitk.GetArrayFromImage(make_scan(seed)).astype(np.float32)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["image"] = (image - image.min()) / np.ptp(image)
            file["label"], file["scribble"] = make_dense(), make_strokes().astype(np.uint16)
    rows = [f"{name},{','.join(map(str, SIZE))},{','.join(map(str, SPACING))}" for name in names]
    table.write_text("\n".join(["case,nx,ny,nz,sx,sy,sz", *rows]) + "\n")
    return folder, table


def write_scribblebench(root: Path, cases=("a", "b", "c")) -> Path:
    """ScribbleBench's layout, one test case."""
    folder = root / "ScribbleBench" / "Hearts"
    for part in ("imagesTr", "labelsTr", "labelsTr_dense", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    for seed, case in enumerate((*cases, "t")):
        part = "Ts" if case == "t" else "Tr"
        sitk.WriteImage(make_scan(seed), folder / f"images{part}" / f"{case}_0000.nii.gz")
        if case == "t":
            sitk.WriteImage(make_volume(make_dense()), folder / "labelsTs" / "t.nii.gz")
        else:
            sitk.WriteImage(make_volume(make_strokes()), folder / "labelsTr" / f"{case}.nii.gz")
            sitk.WriteImage(make_volume(make_dense()), folder / "labelsTr_dense" / f"{case}.nii.gz")
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def write_folders(root: Path, cases=("a", "b b", "ç"), *, values=None) -> tuple[Path, Path, Path]:
    """A user's own: (images, scribbles, dense labels); `values` maps the scribbles' values to others."""
    folders = tuple(root / name for name in ("my images", "my scribbles", "my labels"))
    for folder in folders:
        folder.mkdir()
    strokes = make_strokes()
    coded = strokes if values is None else np.vectorize(lambda value: values.get(value, value))(strokes)
    for seed, case in enumerate(cases):
        sitk.WriteImage(make_scan(seed), folders[0] / f"{case}.nii.gz")
        sitk.WriteImage(make_volume(coded, np.uint8), folders[1] / f"{case}_scribble.nii.gz")
        sitk.WriteImage(make_volume(make_dense(), np.uint8), folders[2] / f"{case}.nii.gz")
    return folders


def convert_folder(
    images: Path,
    scribbles: Path | None,
    raw_folder: Path,
    *,
    classes,
    dataset_id=601,
    name="Mine",
    workers=1,
    **options,
) -> WrittenDatasets:
    """Convert with these `FolderOptions`."""
    told = FolderOptions(images, dataset_id, name, classes, scribbles=scribbles, **options)
    return told.convert(Writing(raw_folder, workers=workers))


def with_writing(**options):
    """The same arguments, of which those that are fields of `Writing` are one."""
    own = {field.name: options.pop(field.name) for field in fields(Writing) if field.name in options}
    return {**options, "writing": Writing(**own)}
