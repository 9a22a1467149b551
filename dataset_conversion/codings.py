"""What the values of a scribble file mean: which one is 'unlabelled', and which a stroke in the background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["PRESETS", "ScribbleCoding", "choose_coding", "dense_values", "scribble_values"]


@dataclass(frozen=True)
class ScribbleCoding:
    """The two values of a scribble file that are no class; classes have their own.

    Attributes:
        unlabelled: of voxels that nobody drew on; None: one more than the highest class.
        background: of strokes in the background; None: one more than the highest class, where `unlabelled` is another
            value.
    """

    unlabelled: int | None = None
    background: int | None = 0


PRESETS: Mapping[str, ScribbleCoding] = {
    "acdc": ScribbleCoding(unlabelled=None, background=0),  # Valvano et al. 2021, WSL4MIS, MSCMR, nnU-Net's `ignore`
    "chaos": ScribbleCoding(unlabelled=0, background=None),  # PacingPseudo (Yang et al. 2022): the two swapped
    "prostatex": ScribbleCoding(unlabelled=255, background=0),
}


def choose_coding(
    preset: str | None, unlabelled: int | None, background: int | None, *, default: str = "acdc"
) -> ScribbleCoding:
    """The coding that a user asked for: a preset, and single values that replace the preset's.

    Raises:
        AttenScribbleError: for an unknown preset.
    """
    name = preset or default
    if name not in PRESETS:
        raise AttenScribbleError(f"coding {name!r}: choose one of {', '.join(PRESETS)}")
    coding = PRESETS[name]
    if unlabelled == coding.background and background is None:
        coding = ScribbleCoding(coding.unlabelled, None)  # 0 given for unlabelled: then 0 is no background stroke
    if unlabelled is not None:
        coding = ScribbleCoding(unlabelled, coding.background)
    if background is not None:
        coding = ScribbleCoding(coding.unlabelled, background)
    return coding


def scribble_values(
    labels: Mapping[str, int], coding: ScribbleCoding, classes: Mapping[str, int] | None = None
) -> dict[int, int] | None:
    """Value in the file to value in the dataset, for `write_raw_datasets`; None where they are the same.

    Args:
        labels: name to value in the dataset, background included, without `ignore`.
        coding: of the file.
        classes: name to value in the file, where it is another.

    Raises:
        AttenScribbleError: if one value would mean two things.
    """
    classes = {name: (classes or labels).get(name, value) for name, value in labels.items() if value > 0}
    top = max(classes.values()) + 1
    unlabelled = top if coding.unlabelled is None else coding.unlabelled
    background = top if coding.background is None else coding.background
    if background == unlabelled:
        raise AttenScribbleError(
            f"value {unlabelled} cannot mean both unlabelled and a background stroke: "
            "give --unlabelled and --background-scribble, or a --coding"
        )
    meanings = {unlabelled: max(labels.values()) + 1, background: 0}
    for name, value in classes.items():
        if value in meanings:
            what = "unlabelled" if value == unlabelled else "a background stroke" if value == background else "a class"
            raise AttenScribbleError(f"value {value} cannot mean both {name} and {what}: every value means one thing")
        meanings[value] = labels[name]
    return None if all(value == meaning for value, meaning in meanings.items()) else meanings


def dense_values(labels: Mapping[str, int], classes: Mapping[str, int]) -> dict[int, int] | None:
    """The same for dense labels, in which 0 is the background."""
    values = {0: 0, **{value: labels[name] for name, value in classes.items()}}
    return None if all(value == meaning for value, meaning in values.items()) else values
