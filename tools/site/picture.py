"""The picture in the README: `python -m tools.site.picture [DEMO]`, with the predictions of a demo, if given."""

from __future__ import annotations

import sys
from pathlib import Path

import SimpleITK as sitk

from nnunet_attenscribble.dataset_conversion.phantom import LABELS, UNLABELLED, make_phantom, phantom_index
from nnunet_attenscribble.evaluation.report.pictures import Panel, draw_case, find_largest_slice

FILE = Path(__file__).resolve().parents[2] / "docs" / "images" / "phantom.png"
CASE = "phantom_043"  # one of those that the demo tests with
# Folders that the demo predicts into, and what is written above them.
_PREDICTIONS = {
    "partial_ce": "partial cross-entropy",
    "attenscribble": "AttenScribble",
    "nnunet_on_dense_labels": "nnU-Net on dense labels",
}


def draw(file: Path = FILE, demo: Path | None = None) -> None:
    """Draw scan, scribble, the predictions of a demo if there is one, and dense label of one phantom."""
    phantom = make_phantom(phantom_index(CASE))
    panels = [Panel("scan"), Panel("scribble", phantom.scribble, unlabelled=UNLABELLED)]
    for folder, name in _PREDICTIONS.items() if demo is not None else ():
        prediction = sitk.ReadImage(str(Path(demo or "") / "predictions" / folder / f"{CASE}.nii.gz"))
        panels.append(Panel(name, sitk.GetArrayFromImage(prediction)))
    draw_case(
        file,
        phantom.image,
        [*panels, Panel("dense label", phantom.labels)],
        spacing=phantom.spacing[::-1],
        structures={name: value for name, value in LABELS.items() if value},
        position=find_largest_slice(phantom.labels),
    )


if __name__ == "__main__":
    draw(demo=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
