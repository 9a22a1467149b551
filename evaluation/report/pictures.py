"""One case as a row of pictures: the scan, and on it what was drawn, predicted and true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_attenscribble.common.figures import escape_dollars

__all__ = ["Panel", "draw_case", "find_largest_slice"]

# Okabe and Ito's palette, which colour-blind readers can tell apart; without black, which scans are full of.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
_BACKGROUND_STROKE = "#FFFFFF"
_WIDTH = 2.6  # inches of a panel
_DPI = 110


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of the row.

    Attributes:
        title: above it; may have several lines.
        labels: (Z, Y, X) integers to paint over the scan; None for the bare scan.
        unlabelled: for scribbles: the value of pixels without a stroke. Strokes are opaque, and those in the
            background, 0, are painted too.
    """

    title: str
    labels: np.ndarray | None = None
    unlabelled: int | None = None


def draw_case(
    file: Path,
    image: np.ndarray,
    panels: Sequence[Panel],
    *,
    spacing: Sequence[float],
    structures: Mapping[str, int],
    position: int,
    title: str = "",
) -> None:
    """Write one slice of a case as a PNG with a panel beside the other.

    Args:
        file: to write; an existing one is replaced.
        image: (Z, Y, X), one channel.
        panels: from left to right.
        spacing: of a voxel along z, y, x (mm): the slice is drawn in its true proportions.
        structures: name to label value, without the background, for colours and legend.
        position: index of the slice.
        title: above the row.

    Raises:
        ValueError: labels of another shape than the image.
    """
    for panel in panels:
        if panel.labels is not None and panel.labels.shape != image.shape:
            raise ValueError(f"'{panel.title}' has labels of shape {panel.labels.shape}, the image has {image.shape}")
    section = image[position].astype(float)
    height, width = section.shape[0] * spacing[1], section.shape[1] * spacing[2]
    lines = max((panel.title.count("\n") + 1 for panel in panels), default=1)
    margins = 0.30 + 0.19 * lines + 0.35  # title, panel titles, legend: inches
    figure = Figure(figsize=(_WIDTH * len(panels), _WIDTH * height / width + margins), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    black, white = np.percentile(section, (0.5, 99.5))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_title(escape_dollars(panel.title), fontsize=8)
        axes.set_axis_off()
        axes.imshow(section, cmap="gray", vmin=black, vmax=max(white, black + 1e-6), aspect=spacing[1] / spacing[2])
        if panel.labels is not None:
            _paint(axes, panel.labels[position], structures, panel.unlabelled)
            axes.set_aspect(spacing[1] / spacing[2])  # which painting resets
    if title:
        figure.suptitle(escape_dollars(title), fontsize=9)
    legend = [Patch(color=colour, label=escape_dollars(name)) for name, (_, colour) in _coloured(structures).items()]
    if any(panel.unlabelled is not None for panel in panels):
        legend.append(Patch(facecolor=_BACKGROUND_STROKE, edgecolor="black", linewidth=0.5, label="background stroke"))
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def find_largest_slice(labels: np.ndarray) -> int:
    """Index of the slice (Z, Y, X) with most foreground; the middle one if there is none at all."""
    area = np.count_nonzero(labels > 0, axis=(1, 2))
    return int(area.argmax()) if area.any() else len(labels) // 2


def _paint(axes, section: np.ndarray, structures: Mapping[str, int], unlabelled: int | None) -> None:
    overlay = np.zeros((*section.shape, 4))
    scribble = unlabelled is not None
    if scribble:
        overlay[section == 0] = (*to_rgb(_BACKGROUND_STROKE), 1.0)
    for value, colour in _coloured(structures).values():
        mask = section == value
        overlay[mask] = (*to_rgb(colour), 1.0 if scribble else 0.45)
        if not scribble and mask.any() and not mask.all():
            axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=0.9)
    axes.imshow(overlay, interpolation="nearest")


def _coloured(structures: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    return {name: (value, _COLOURS[i % len(_COLOURS)]) for i, (name, value) in enumerate(structures.items())}
