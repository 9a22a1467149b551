"""nnU-Net's fingerprint of a scribble dataset, from what was drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nnunet_attenscribble.common.files import naming, write_json
from nnunet_attenscribble.common.nnunet import label_problems, read_dataset_json
from nnunet_attenscribble.common.progress import QUIET
from nnunet_attenscribble.common.readers import Reader, find_reader, open_files
from nnunet_attenscribble.common.volumes import label_values, read_volume
from nnunet_attenscribble.common.workers import default_workers, run_all
from nnunet_attenscribble.dataset_conversion.description import read_description
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.normalisation import FINGERPRINT, MARK, SMALLEST_WITHOUT_MASK, read_fingerprint

_PREPROCESSED = "nnUNet_preprocessed"
_SIZE = "median_relative_size_after_cropping"


def write_fingerprint(raw: Path, preprocessed: Path, *, workers: int | None = None) -> dict[str, Any]:
    """Have nnU-Net make its fingerprint, with unlabelled voxels as background: the foreground is what was drawn.

    nnU-Net keeps a fingerprint that is there already when it plans. Where its images are mostly zero around the
    object, the size that cropping leaves is told as 1, so that nnU-Net does not plan to normalise within a mask that
    training and prediction find in different places (`nnunet_attenscribble.normalisation`). What was measured is kept
    under the key `attenscribble`.

    Args:
        raw: folder of the dataset in the `nnUNet_raw` that nnU-Net was imported with.
        preprocessed: its folder in `nnUNet_preprocessed`; made where it is not there.
        workers: processes; None for one per processor, 8 at most.

    Returns:
        the fingerprint, as it was written.

    Raises:
        AttenScribbleError: the labels are dense or cannot be read, or nothing of any class is drawn in them.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    ignore = read_description(raw).ignore
    if ignore is None:
        raise AttenScribbleError(f"{raw.name} has no `ignore` label, so its labels are dense: plan it as it is")
    labels = read_dataset_json(raw / "dataset.json")["labels"]
    if wrong := [f"{raw / 'dataset.json'}: {told}: {advice}" for told, advice in label_problems(labels)]:
        raise AttenScribbleError(wrong)
    extractor = DatasetFingerprintExtractor(raw.name, default_workers() if workers is None else workers)
    extractor.show_progress_bar = not os.environ.get(QUIET)
    cases = extractor.dataset
    if not cases:
        raise AttenScribbleError(f"{raw}: nnU-Net finds no training cases in it: see docs/datasets.md")
    images = next(iter(cases.values()))["images"]
    reader = find_reader(extractor.dataset_json, Path(images[0]))
    with TemporaryDirectory(prefix="attenscribble-") as folder, naming(Path(folder)):
        tasks = []
        for case, files in cases.items():
            label = Path(files["label"])
            files["label"] = str(Path(folder, case + extractor.dataset_json["file_ending"]))
            tasks.append((label, Path(files["label"])))
        if not any(run_all(partial(_write_drawn, reader=reader, ignore=ignore), tasks, workers, "Reading scribbles")):
            raise AttenScribbleError(f"{raw.name}: no case has a stroke of any class but background: draw some first")
        with _preprocessed_in(folder):
            extractor.run(overwrite_existing=True)
        fingerprint = read_fingerprint(Path(folder, raw.name))  # as it was written, without numpy's types
    assert fingerprint is not None
    fingerprint[MARK] = {"foreground": "drawn", _SIZE: fingerprint[_SIZE]}
    if fingerprint[_SIZE] < SMALLEST_WITHOUT_MASK:
        fingerprint[_SIZE] = 1.0
    write_json(preprocessed / FINGERPRINT, fingerprint)
    return fingerprint


def _write_drawn(files: tuple[Path, Path], *, reader: Reader, ignore: int) -> bool:
    """Write a label with unlabelled voxels as background; whether it has a stroke of a class. Runs in a worker."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    label, target = files
    # First as every command reads it: the file is whole, and its values are integers.
    (source,) = open_files([label], reader, label=True)
    label_values(read_volume(source, str(label), label=True), str(label))
    own = (SimpleITKIO if reader is None else reader)()
    with redirect_stdout(StringIO()):
        labels, properties = own.read_seg(str(label))
    labels[labels == ignore] = 0
    _write_labels(own, labels, target, properties)
    return bool((labels > 0).any())


def _write_labels(reader: Any, labels: np.ndarray, file: Path, properties: dict) -> None:
    """Write with nnU-Net's reader, whose libraries pass over a full disk in silence.

    Raises:
        OSError: the file did not arrive whole.
    """
    try:
        reader.write_seg(labels[0], str(file), properties)
        whole = np.array_equal(reader.read_seg(str(file))[0], labels)
    except Exception:  # each of nnU-Net's readers has its own
        whole = False
    if not whole:
        raise OSError(f"{file.name} was not written completely: is the disk full? TMPDIR names another place")


@contextmanager
def _preprocessed_in(folder: str) -> Iterator[None]:
    """For a while, nnU-Net writes there: what it cannot write whole, it removes."""
    before = os.environ[_PREPROCESSED]
    os.environ[_PREPROCESSED] = folder
    try:
        yield
    finally:
        os.environ[_PREPROCESSED] = before
