"""AttenScribble in the form in which nnU-Net calls a loss, loss(output, target); and its terms, a line per epoch, in a
CSV and a picture beside the checkpoint.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from torch import Tensor, nn

from nnunet_attenscribble.common.figures import choose_look, encode_png, escape_name
from nnunet_attenscribble.common.files import replaced_file
from nnunet_attenscribble.losses.attenscribble import AttenScribbleLoss
from nnunet_attenscribble.losses.rival import RivalLoss
from nnunet_attenscribble.network import SecondPrediction
from nnunet_attenscribble.similarity import WindowSimilarity
from nnunet_attenscribble.targets import treat_padding

_MOST_IN_LEGEND = 12


class ScribbleObjective(nn.Module):
    """The loss of a training: segmentation at every scale, regularisers at full resolution.

    nnU-Net hands its loss the network's output and the target only. What else the regularisers need is either in the
    output (the similarity) or given beforehand (the image); without an image, as in nnU-Net's validation, the
    regularisers rest.

    Args:
        segmentation: loss(logits, target, weight).
        scale_weights: of the deep supervision outputs, or None without deep supervision.
        regularised: the weighted sum.
        padding: see `treat_padding`.
        class_weights: of the annotated pixels by label from 0, in the segmentation loss; None: all 1.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        segmentation: nn.Module,
        scale_weights: Sequence[float] | None,
        regularised: AttenScribbleLoss | RivalLoss,
        padding: str,
        class_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        self.segmentation = segmentation
        self.scale_weights = scale_weights
        self.regularised = regularised
        self.padding = padding
        weights = None if class_weights is None else torch.tensor([*class_weights, 0.0])  # and of unlabelled pixels
        self.register_buffer("class_weights", weights, persistent=False)
        self.terms: list[dict[str, Tensor]] = []
        self._image: Tensor | None = None
        self._companion: Any = None

    @contextmanager
    def given(self, image: Tensor, companion: Any = None) -> Iterator[None]:
        """Within this context the loss is that of this batch's images, (N, M, *S), and its terms are recorded.

        Args:
            image: of the batch.
            companion: what a teacher predicted, for the trainings that have one.
        """
        self._image, self._companion = image, companion
        try:
            yield
        finally:
            self._image = self._companion = None

    def forward(self, output: Tensor | list[Tensor] | tuple, target: Tensor | list[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            output: logits (N, C, *S), or a list or tuple of them per scale, or the pair of either with the similarity
                or with a second decoder's prediction, and then the segmentation loss is the mean of both decoders'.
            target: (N, 1, *S), or a list of them per scale; labels, the ignore label, or `PADDING`. In validation also
                a channel per region and the unlabelled pixels in the last.
        """
        logits: Any = output
        companion: Any = self._companion
        if isinstance(output[-1], (WindowSimilarity, SecondPrediction)):
            logits, companion = output
        targets = [target] if isinstance(target, Tensor) else target
        logits = self._list_scales(logits)
        segmentation = self._segment(logits, targets)
        if isinstance(companion, SecondPrediction):
            second = self._list_scales(companion.logits)
            segmentation, companion = 0.5 * (segmentation + self._segment(second, targets)), second[0]
        if self._image is None:
            return segmentation
        image = self._image.to(logits[0].device, non_blocking=True)
        total, terms = self.regularised(segmentation, logits[0], targets[0], image, companion)
        counts = [(targets[0] == label).sum() for label in range(self.regularised.ignore_label)]
        shares = torch.stack(counts) / targets[0].numel()
        named = {f"annotated_{label}": share for label, share in enumerate(shares)}
        self.terms.append({"total": total.detach(), **terms, "annotated": shares.sum(), **named})
        return total

    def _list_scales(self, logits: Any) -> Any:
        return [logits] if self.scale_weights is None else logits

    def _segment(self, logits: Any, targets: list[Tensor]) -> Any:
        return sum(
            weight * self.segmentation(z, *self._treat(t))
            for weight, z, t in zip(self.scale_weights or [1.0], logits, targets, strict=True)
            if weight != 0
        )

    def _treat(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        if target.shape[1] > 1:  # nnU-Net's validation of regions, which knows no padding any more
            return target, None
        labels, weight = treat_padding(target, self.padding, self.regularised.ignore_label)
        if self.class_weights is None:
            return labels, weight
        own = self.class_weights[labels.long()]
        return labels, own if weight is None else own * weight

    def take_terms(self) -> dict[str, float]:
        """Means of the terms recorded since the last call; a term that was never defined is NaN."""
        terms, self.terms = self.terms, []
        names = dict.fromkeys(name for step in terms for name in step)
        return {name: torch.stack([step[name].float() for step in terms]).nanmean().item() for name in names}


def average_terms(terms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of what several processes took; NaN where a term was defined in none."""
    return {name: torch.tensor([process[name] for process in terms]).nanmean().item() for name in terms[0]}


def append_epoch(file: Path, epoch: int, values: Mapping[str, float]) -> None:
    """Write the values of one epoch; lines of this and later epochs, from a run that was cut off, are replaced.

    Args:
        file: CSV with a column `epoch`; made where it is missing.
        epoch: number of the epoch.
        values: by column name. Columns that earlier lines lack stay empty there.
    """
    rows: list[dict[str, str]] = []
    if file.exists():
        with file.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) < epoch]
    rows.append({"epoch": str(epoch), **{name: f"{value:.6g}" for name, value in values.items()}})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replaced_file(file) as part, part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


@style.context("default")  # nnU-Net's progress.png changes matplotlib's settings for good
def plot_epochs(file: Path, picture: Path, labels: Mapping[int, str] | None = None) -> None:
    """Draw every column of the CSV over the epochs, each in axes of its own, because their scales differ; the labels'
    shares share one, with a logarithmic scale.

    Args:
        file: written by `append_epoch`.
        picture: PNG to write.
        labels: names for the columns annotated_0, annotated_1 and so on.
    """
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    panels: dict[str, list[str]] = {}
    for name in rows[0]:
        if name != "epoch":
            panels.setdefault("annotated" if name.startswith("annotated_") else name, []).append(name)
    figure = Figure(figsize=(9, 1.6 * ((len(panels) + 1) // 2)), dpi=120, layout="constrained")
    for index, (panel, names) in enumerate(panels.items()):
        axes = figure.add_subplot((len(panels) + 1) // 2, 2, index + 1)
        for position, name in enumerate(names):
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
            label = name.removeprefix("annotated_")
            label = "all" if name == panel else escape_name((labels or {}).get(int(label), label))
            look = choose_look(position, reference=name == panel and len(names) > 1)
            every = max(1, len(points) // 15)
            axes.plot(
                *zip(*points, strict=True), color=look.colour, label=label, marker=look.marker, markevery=every, ms=4
            )
        if 1 < len(names) <= _MOST_IN_LEGEND:
            axes.legend(fontsize="x-small", ncols=2)
        if len(names) > 1:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(panel.replace("_", " "), fontsize="small", loc="left")
        axes.tick_params(labelsize="x-small")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.supxlabel("epoch", fontsize="small")
    with replaced_file(picture) as part:
        part.write_bytes(encode_png(figure))
