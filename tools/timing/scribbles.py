"""Generated scribbles beside real ones: `python -m tools.timing.scribbles SCRIBBLES DENSE`.

Per class and slice, over the slices in which both have strokes of the class: strokes, their pixels, their length
(pixels of the skeleton), their width (pixels by length), the share of the class that they cover, and how far they are
from its border, in the median and where they are nearest (pixels); mean and, in brackets, standard deviation over
slices.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt, label
from skimage.morphology import skeletonize

from nnunet_attenscribble.common.text import format_markdown
from nnunet_attenscribble.dataset_conversion.scribbles import ScribbleRules, draw_scribbles

QUANTITIES = ("strokes", "pixels", "length", "width", "coverage in %", "to the border", "nearest")


def describe(strokes: np.ndarray, mask: np.ndarray) -> tuple[float, ...]:
    """`QUANTITIES` of the strokes of one class in one slice."""
    pixels, length = int(strokes.sum()), int(skeletonize(strokes).sum())
    depth = distance_transform_edt(mask)[strokes & mask]  # people's strokes stray into other classes here and there
    return (
        label(strokes, np.ones((3, 3)))[1],
        pixels,
        length,
        pixels / max(length, 1),
        100 * pixels / mask.sum(),
        float(np.median(depth)),
        float(depth.min()),
    )


def measure(scribbles: Path, dense: Path, cases: int, rules: ScribbleRules) -> dict[str, dict[str, np.ndarray]]:
    """`QUANTITIES` by class, of the real and of the generated strokes, each (slices, quantities)."""
    coding = json.loads((scribbles.parent / "dataset.json").read_text())["labels"]
    found: dict[str, dict[str, list]] = {name: {"real": [], "ours": []} for name in coding if name != "ignore"}
    for file in sorted(scribbles.glob("*.nii.gz"))[:cases]:
        truth = sitk.ReadImage(str(dense / file.name))
        labels = sitk.GetArrayFromImage(truth)
        real = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        ours = draw_scribbles(labels, truth.GetSpacing()[::-1], rules, coding["ignore"], file.name)
        for name, entry in found.items():
            value = coding[name]
            for section, one, other in zip(labels, real, ours, strict=True):
                if ((one == value) & (section == value)).any() and (other == value).any():
                    entry["real"].append(describe(one == value, section == value))
                    entry["ours"].append(describe(other == value, section == value))
    return {name: {who: np.array(rows) for who, rows in entry.items()} for name, entry in found.items()}


def main() -> None:
    """Print the comparison as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scribbles", type=Path, help="labelsTr of the scribble dataset")
    parser.add_argument("dense", type=Path, help="labelsTr of its dense twin")
    parser.add_argument("--cases", type=int, default=20)
    arguments = parser.parse_args()
    found = measure(arguments.scribbles, arguments.dense, arguments.cases, ScribbleRules())
    lines = []
    for name, entry in found.items():
        for who, rows in entry.items():
            cells = [f"{m:.1f} ({s:.1f})" for m, s in zip(rows.mean(0), rows.std(0), strict=True)]
            lines.append([name, f"{who}, {len(rows)} slices", *cells])
    print(format_markdown(["class", "", *QUANTITIES], lines))


if __name__ == "__main__":
    main()
