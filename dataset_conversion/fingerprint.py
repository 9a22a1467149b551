"""nnU-Net's fingerprint of a scribble dataset, from what was drawn."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.writing import write_json
from nnunet_attenscribble.dataset_conversion.description import read_description
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.normalisation import FINGERPRINT, MARK, SMALLEST_WITHOUT_MASK, read_fingerprint

_SIZE = "median_relative_size_after_cropping"


def write_fingerprint(raw: Path, preprocessed: Path, *, workers: int) -> dict[str, Any]:
    """Have nnU-Net make its fingerprint, with unlabelled voxels as background: the foreground is what was drawn.

    nnU-Net keeps a fingerprint that is there already when it plans. Where its images are mostly zero around the
    object, the size that cropping leaves is told as 1, so that nnU-Net does not plan to normalise within a mask that
    training and prediction find in different places (`nnunet_attenscribble.normalisation`). What was measured is kept
    under the key `attenscribble`.

    Args:
        raw: folder of the dataset in the `nnUNet_raw` that nnU-Net was imported with.
        preprocessed: its folder in `nnUNet_preprocessed`; made where it is not there.
        workers: processes.

    Returns:
        the fingerprint, as it was written.

    Raises:
        AttenScribbleError: the labels are dense or cannot be read, or nothing of any class is drawn in them.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    ignore = read_description(raw).ignore
    if ignore is None:
        raise AttenScribbleError(f"{raw.name} has no `ignore` label, so its labels are dense: plan it as it is")
    extractor = DatasetFingerprintExtractor(raw.name, workers)
    cases = extractor.dataset
    if not cases:
        raise AttenScribbleError(f"{raw}: nnU-Net finds no training cases in it: see docs/datasets.md")
    images = next(iter(cases.values()))["images"]
    reader = determine_reader_writer_from_dataset_json(extractor.dataset_json, images[0], verbose=False)()
    drawn = False
    with TemporaryDirectory(prefix="attenscribble-") as folder:
        for case, files in show_progress(cases.items(), total=len(cases), description="Reading scribbles"):
            try:
                labels, properties = reader.read_seg(files["label"])
            except Exception as error:  # each of nnU-Net's readers has its own
                raise AttenScribbleError(
                    f"{files['label']}: nnU-Net cannot read it ({error}): export it again"
                ) from None
            labels[labels == ignore] = 0
            drawn = drawn or bool((labels > 0).any())
            files["label"] = str(Path(folder, case + extractor.dataset_json["file_ending"]))
            reader.write_seg(labels[0], files["label"], properties)
        if not drawn:
            raise AttenScribbleError(f"{raw.name}: no case has a stroke of any class but background: draw some first")
        extractor.run(overwrite_existing=True)
    fingerprint = read_fingerprint(preprocessed)  # as it was written, without numpy's types
    assert fingerprint is not None
    fingerprint[MARK] = {"foreground": "drawn", _SIZE: fingerprint[_SIZE]}
    if fingerprint[_SIZE] < SMALLEST_WITHOUT_MASK:
        fingerprint[_SIZE] = 1.0
    write_json(preprocessed / FINGERPRINT, fingerprint)
    return fingerprint
