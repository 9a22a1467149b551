"""Every number of the method, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any

from nnunet_attenscribble.common.nnunet import entry_values
from nnunet_attenscribble.common.shapes import NUMBER, TRUTH, Shape, is_whole
from nnunet_attenscribble.errors import AttenScribbleError, refuse

#: Key of a plans file's configuration under which the settings stand.
KEY = "attenscribble"

#: What goes beyond the paper, undone: `attenscribble configure --paper`.
PAPER: Mapping[str, Any] = {
    "dice_weight": 0.0,
    "crf_intensities": "range",
    "similarity_mode": "paper",
    "attention_gated": False,
    "warmup_epochs": 0.0,
}


_USUAL_RADIUS = 5
_LEAST, _MOST = 1e-3, 1e6  # of numbers that are squared, or multiply the loss: beyond, single precision ends
_NOT_NEGATIVE = Shape(f"a number from 0 to {_MOST:.0f}", lambda value: NUMBER.accept(value) and 0 <= value <= _MOST)
_POSITIVE = Shape(
    f"a number from {_LEAST:g} to {_MOST:.0f}",
    lambda value: NUMBER.accept(value) and _LEAST <= value <= _MOST,
)
_SHARE = Shape("a number of at least 0 and below 1", lambda value: NUMBER.accept(value) and 0 <= value < 1)
_COUNT = Shape("a whole number of at least 1", lambda value: is_whole(value) and value >= 1)
_OWN_COUNT = Shape(f"{_COUNT.expected}, or null for nnU-Net's own", lambda value: value is None or _COUNT.accept(value))
_WEIGHTS = Shape(
    f'null, or by label {_POSITIVE.expected}, such as {{"MYO": 0.25}}',
    lambda value: value is None or (isinstance(value, Mapping) and all(map(_POSITIVE.accept, value.values()))),
)


def _is_radius(value: Any) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return bool(values) and all(is_whole(one) and one >= 0 for one in values)


_RADIUS = Shape("a whole number of at least 0, or one per axis", _is_radius)


def _field(default: Any, allowed: Shape) -> Any:
    """A field, whose metadata tell what it may hold."""
    return field(default=default, metadata={"allowed": allowed})


def _choice(*names: str) -> Any:
    """The first is the default."""
    return _field(names[0], Shape(f"one of {', '.join(names)}", lambda value: value in names))


@dataclass(frozen=True)
class AttenScribbleSettings:
    """Settings of a training, read from the key `attenscribble` of a configuration in the plans file.

    Attributes:
        padding: what pixels outside the image count as in the segmentation loss: `background` (as in nnU-Net),
            `ignore`, or `balanced`, background with at most the total weight of the scribbled background; which did
            better where: docs/results.md.
        dice_weight: of nnU-Net's soft Dice on the scribbles, in which all structures weigh the same. Without it, as
            published (0), a CRF lets those with few scribbled pixels disappear.
        class_weights: of annotated pixels, and of padding that of background, in the segmentation loss (of regions only
            in training's); 1 for labels not named. Below 1 walls come out thinner (docs/experiments.md).
        crf_weight: of the masked CRF. Its energy is a sum over the window; in 3D it counts as much as its in-plane
            part would, so that the weight means the same in 2D and 3D.
        crf_radius: of its window in pixels, one number or one per axis. One number stands for the in-plane axes;
            along an axis of coarser spacing the window reaches as far in mm, along one of finer spacing as many pixels.
        crf_sigma_position: in in-plane pixels.
        crf_intensities: `ranks`: each intensity becomes the share of annotated pixels that are darker; `range`: each
            channel's 1st and 99th percentile become 0 and 1; `auto`: ranks in 2D, range in volumes.
        crf_sigma_intensity: of these.
        similarity_mode: `paper`, as published, or `anchored`, in which the prediction follows a fixed similarity and
            the similarity learns from the scribbles.
        similarity_weight: of the attentive similarity, in 3D as `crf_weight`. 1 does harm where structures are hardly
            one or two positions of the block's grid wide (docs/results.md).
        similarity_disagreement: `anchored` only: how the predictions p, q of two neighbours disagree: `potts`,
            1 - p . q, as published, or `distance`, half of |p - q|^2. The former also asks every position of the
            block's coarse grid to be wholly of one class, and so wears away what is thinner than its cells.
        pair_weight: of the pair loss, which teaches the similarity and needs no warm-up; `anchored` only.
        similarity_floor: `anchored` only: neighbours of this similarity or less do not pull at each other.
        similarity_radius: of its window in positions of a grid of stride `attention_stride`: where the block had to go
            deeper, the window shrinks to what it would have covered. One number as `crf_radius`, or one per axis in
            positions of the block's own grid.
        similarity_sigma_position: in positions of a grid of stride `attention_stride`.
        attention_stride: in-plane stride of the encoder stage that gets the attention block. 2, with as many
            `attention_max_tokens` as that takes, is for structures that are hardly one or two positions wide; what it
            brought: docs/experiments.md.
        attention_max_tokens: a stage with more positions than this is skipped for a deeper one.
        attention_gated: whether the block's output is added to the features, times factors that start at 0, or
            replaces them, as published.
        warmup_epochs: epochs in which the regularisers' weights rise linearly from 0 to their values; a rival with a
            teacher has its own. Without a warm-up nnU-Net finds that predicting one class everywhere satisfies them.
        num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch: None leaves nnU-Net's own.
    """

    padding: str = _choice("balanced", "background", "ignore")
    dice_weight: float = _field(1.0, _NOT_NEGATIVE)
    class_weights: Mapping[str, float] | None = _field(None, _WEIGHTS)
    crf_weight: float = _field(0.1, _NOT_NEGATIVE)
    crf_radius: int | tuple[int, ...] = _field(_USUAL_RADIUS, _RADIUS)
    crf_sigma_position: float = _field(6.0, _POSITIVE)
    crf_intensities: str = _choice("auto", "ranks", "range")
    crf_sigma_intensity: float = _field(0.1, _POSITIVE)
    similarity_mode: str = _choice("anchored", "paper")
    similarity_weight: float = _field(0.1, _NOT_NEGATIVE)
    similarity_disagreement: str = _choice("potts", "distance")
    pair_weight: float = _field(1.0, _NOT_NEGATIVE)
    similarity_floor: float = _field(0.5, _SHARE)
    similarity_radius: int | tuple[int, ...] = _field(_USUAL_RADIUS, _RADIUS)
    similarity_sigma_position: float = _field(6.0, _POSITIVE)
    attention_stride: int = _field(4, _COUNT)
    attention_max_tokens: int = _field(2048, _COUNT)
    attention_gated: bool = _field(True, TRUTH)
    warmup_epochs: float = _field(2.0, _NOT_NEGATIVE)
    num_epochs: int | None = _field(None, _OWN_COUNT)
    num_iterations_per_epoch: int | None = _field(None, _OWN_COUNT)
    num_val_iterations_per_epoch: int | None = _field(None, _OWN_COUNT)

    def __post_init__(self) -> None:
        """Refuse values out of range, all of them at once."""
        problems = []
        if self.class_weights == {}:
            object.__setattr__(self, "class_weights", None)  # two settings that are one must be equal
        for own in fields(self):
            value, allowed = getattr(self, own.name), own.metadata["allowed"]
            if allowed is _RADIUS and isinstance(value, list):  # JSON knows lists only
                value = tuple(value)
                object.__setattr__(self, own.name, value)
            if not allowed.accept(value):
                problems.append(f"settings: {own.name} is {value!r}, must be {allowed.expected}")
        refuse(problems)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> AttenScribbleSettings:
        """Settings with some fields given; unknown names are refused.

        Raises:
            AttenScribbleError: for every unknown field and every value out of range.
        """
        known = [own.name for own in fields(cls)]
        problems = [
            f"settings: unknown field '{name}' (value {value!r}); fields are {', '.join(known)}"
            for name, value in values.items()
            if name not in known
        ]
        try:
            settings = cls(**{name: value for name, value in values.items() if name in known})
        except AttenScribbleError as error:
            problems += error.problems
        refuse(problems)
        return settings

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> AttenScribbleSettings:
        """Settings from one configuration of a plans file, inheritance already resolved.

        Raises:
            AttenScribbleError: as `from_mapping`, and for what does not fit the patch: radii of another number of axes,
                windows and strides that are larger.
        """
        values = configuration.get(KEY, {})
        if not isinstance(values, Mapping):
            raise AttenScribbleError(f"settings: the key '{KEY}' must hold an object of fields, not {values!r}")
        settings, axes = cls.from_mapping(values), len(configuration.get("patch_size", ()))
        problems = [
            f"settings: {own.name} {list(value)} has {len(value)} entries, the configuration has {axes} axes"
            for own in fields(cls)
            if axes and isinstance(value := getattr(settings, own.name), tuple) and len(value) != axes
        ]
        problems = problems or settings._list_misfits(configuration.get("patch_size", ()))
        refuse(problems)
        return settings

    def weigh_labels(self, labels: Mapping[str, Any]) -> list[float] | None:
        """`class_weights` by value, from 0.

        Args:
            labels: of dataset.json, with `ignore`.

        Raises:
            AttenScribbleError: for every name that is no label, or one of several values (a region), for two weights of
                one value, and where the labels are dense or not numbered as nnU-Net needs them.
        """
        if not self.class_weights:
            return None
        if "ignore" not in labels:
            raise AttenScribbleError(
                "settings: class_weights are for scribbles, and there is no label `ignore`: leave them out"
            )
        values = {name: entry_values(entry) for name, entry in labels.items() if name != "ignore"}
        held, ignore, problems = {0}.union(*values.values()), labels["ignore"], []
        if not is_whole(ignore) or not ignore == len(held) == max(held) + 1:
            problems.append(
                f"dataset.json: `ignore` is {ignore!r}: number the labels 0, 1, 2, ... without a gap, `ignore` the last"
            )
        known = {name: own[0] for name, own in values.items() if len(own) == 1}
        by_value: dict[int, float] = {}
        for name, weight in sorted(self.class_weights.items()):
            if name not in known:
                problems.append(f"settings: class_weights names '{name}'; labels of one value are {', '.join(known)}")
            elif by_value.setdefault(known[name], weight) != weight:
                problems.append(f"settings: class_weights has two weights of label {known[name]}: leave out '{name}'")
        refuse(problems)
        return [by_value.get(value, 1.0) for value in range(ignore)]

    def ranks_intensities(self, axes: int) -> bool:
        """Whether the CRF sees ranks rather than the range of intensities, in images of so many axes."""
        # Each where the masked CRF did better: docs/results.md.
        return self.crf_intensities == "ranks" or (self.crf_intensities == "auto" and axes == 2)

    def _list_misfits(self, patch: Sequence[int]) -> list[str]:
        """What no patch of this size can hold; the usual values fit any."""
        if not patch:
            return []
        problems = []
        in_plane = [ceil(size / self.attention_stride) for size in patch[-2:]]
        grids = {"crf_radius": patch, "similarity_radius": [*patch[:-2], *in_plane]}
        for name, grid in grids.items():
            radius = getattr(self, name)
            most = [max(_USUAL_RADIUS, (size - 1) // 2) for size in grid]
            if isinstance(radius, int) and radius > min(most[-2:]):
                told = str(min(most[-2:]))
            elif isinstance(radius, tuple) and any(one > limit for one, limit in zip(radius, most, strict=True)):
                told = str(most)
            else:
                continue
            problems.append(
                f"settings: {name} is {radius!r}, whose window does not fit into the patch {list(patch)}: give {told} "
                "at most"
            )
        if self.attention_stride > min(patch[-2:]):
            problems.append(
                f"settings: attention_stride is {self.attention_stride}, the patch {list(patch)}: give "
                f"{min(patch[-2:])} at most"
            )
        return problems


def window_radius(radius: float | Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """Radius per axis. One number counts positions in the plane, of the last two axes. Along an axis of coarser spacing
    it reaches as far in mm, and not at all where a voxel is longer than that (in the plane always to the next
    neighbour); along one of finer spacing, as many positions.

    Args:
        radius: in positions along the finer in-plane axis, or one number per axis, which is taken as it is.
        spacing: per axis, in-plane axes last.
    """
    if isinstance(radius, (int, float)):
        in_plane = min(spacing[-2:])
        reach = [min(int(radius), int(radius * in_plane / s + 1e-6)) for s in spacing]
        return *reach[:-2], *(max(r, min(1, int(radius))) for r in reach[-2:])
    return tuple(radius)


def similarity_window(
    settings: AttenScribbleSettings, spacing: Sequence[float], stride: Sequence[int]
) -> tuple[tuple[int, ...], float, list[float]]:
    """The attentive similarity's window on the grid that the block sits on.

    Args:
        settings: of the method.
        spacing: of the network's input per axis, in-plane axes last.
        stride: of the block's grid per axis.

    Returns:
        radius per axis and sigma, both in positions of that grid, and the grid's spacing per axis.
    """
    grid_spacing = [s * t for s, t in zip(spacing, stride, strict=True)]
    shrink = min(1.0, settings.attention_stride / min(stride[-2:]))
    radius: float | Sequence[int] = settings.similarity_radius
    if isinstance(radius, int) and radius > 0:
        radius = max(1.0, radius * shrink)
    return window_radius(radius, grid_spacing), settings.similarity_sigma_position * shrink, grid_spacing
