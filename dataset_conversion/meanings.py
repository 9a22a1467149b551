"""What the marks in label files mean, values, names and colours: by what their owner says, and what the files say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from nnunet_attenscribble.common.nnunet import means_ignore
from nnunet_attenscribble.common.text import has_control_character, list_some, normalise
from nnunet_attenscribble.dataset_conversion.label_files import MASKS, Colour, Legend, Segment, is_colour, parse_colour
from nnunet_attenscribble.errors import AttenScribbleError

BACKGROUND, UNLABELLED = "background", "unlabelled"
_HIGHEST = 2**31 - 1  # of values
Mark = int | str  # in a label file: a value, the name of a segment, or a colour


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
    if background is None and unlabelled != coding.background:  # 0 given for unlabelled is no background stroke
        background = coding.background
    return ScribbleCoding(coding.unlabelled if unlabelled is None else unlabelled, background)


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


@dataclass(frozen=True)
class Reading:
    """How a label file is read.

    Attributes:
        how: `by value`, `by segment name (3D Slicer)`, ...
        meanings: what stands in the file, and what it means, in words.
    """

    how: str
    meanings: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.how}: " + ", ".join(f"{mark} {meaning}" for mark, meaning in self.meanings)


@dataclass(frozen=True)
class Marks:
    """What the owner of label files says of them.

    Attributes:
        classes: name to what marks it in the files: a value, a name, a colour (`#ff0000`); None: its position, from 1.
        coding: of the values that are no class; None: nothing was said.
        background: name or colour of strokes in the background, besides `background`.
        unlabelled: name or colour of what nobody drew on, besides those of `means_ignore`.
        dense: the files are dense labels, in which what is in no class is background.
    """

    classes: Mapping[str, Mark | None]
    coding: ScribbleCoding | None = None
    background: str | None = None
    unlabelled: str | None = None
    dense: bool = False

    @cached_property
    def labels(self) -> dict[str, int]:
        """Name to value in the dataset."""
        return {BACKGROUND: 0, **{name: value for value, name in enumerate(self.classes, start=1)}}

    @cached_property
    def values(self) -> dict[str, int]:
        """Name of each class to its value in files that have values alone."""
        return {
            name: mark if isinstance(mark, int) else position
            for position, (name, mark) in enumerate(self.classes.items(), start=1)
        }

    @cached_property
    def coded(self) -> dict[int, int] | None:
        """Value in the file to value in the dataset; None where they are the same.

        Raises:
            AttenScribbleError: if one value would mean two things.
        """
        if self.dense:
            return dense_values(self.labels, self.values)
        return scribble_values(self.labels, self.coding or PRESETS["acdc"], self.values)

    @property
    def _own_names(self) -> dict[str, str]:
        return {**{name: name for name in self.classes}, BACKGROUND: BACKGROUND, UNLABELLED: UNLABELLED}

    @cached_property
    def names(self) -> dict[str, str]:
        """What each name in a file means, but for those of `means_ignore`; without regard to case."""
        said = {**self._own_names, **{mark: name for name, mark in self._said() if not is_colour(mark)}}
        return {fold(name): meaning for name, meaning in said.items()}

    @cached_property
    def colours(self) -> dict[Colour, str]:
        """What each colour means."""
        return {parse_colour(mark): name for name, mark in self._said() if is_colour(mark)}

    def _meaning(self, name: str) -> str | None:
        return self.names.get(fold(name), UNLABELLED if means_ignore(name) else None)

    @property
    def known(self) -> str:
        """The classes, for messages."""
        return ", ".join(self.classes)

    def _said(self) -> list[tuple[str, str]]:
        marks = [*self.classes.items(), (BACKGROUND, self.background), (UNLABELLED, self.unlabelled)]
        return [(name, mark) for name, mark in marks if isinstance(mark, str)]

    def _rest(self) -> dict[int, str]:
        """What the coding says of values that are no class."""
        if self.dense or self.coding is None:
            return {}
        said = ((self.coding.background, BACKGROUND), (self.coding.unlabelled, UNLABELLED))
        return {value: meaning for value, meaning in said if value is not None}

    def problems(self) -> list[str]:
        """Of one name or colour that would mean two things."""
        seen = {fold(name): meaning for name, meaning in self._own_names.items()}
        found = []
        for name, mark in self._said():
            other = seen.setdefault(fold(mark), UNLABELLED if means_ignore(mark) else name)
            if other != name:
                found.append(f"{mark!r} cannot mean both {other} and {name}")
        return found

    @property
    def zero(self) -> str:
        """What the voxels are that no name speaks of: nobody drew on them, unless a coding was given that says so."""
        is_stroke = self.coding is not None and self.coding.background == 0
        return BACKGROUND if self.dense or is_stroke else UNLABELLED

    @cached_property
    def targets(self) -> dict[str, int]:
        """The value of each meaning in files that have values alone; dense labels have none for unlabelled voxels."""
        meanings = [*self.labels, *([] if self.dense else [UNLABELLED])]
        if self.coded is None:
            return {meaning: value for value, meaning in enumerate(meanings)}
        return {meanings[value]: told for told, value in self.coded.items()}

    def by_value(self) -> Reading:
        """How a file is read that has values alone."""
        meanings = sorted((value, meaning) for meaning, value in self.targets.items())
        return Reading("by value", tuple((str(value), meaning) for value, meaning in meanings))

    def match(self, legend: Legend) -> tuple[str | None, ...] | None:
        """What each segment means, None where no class is called so; None for names that say nothing.

        Raises:
            AttenScribbleError: where names and values that were given contradict each other.
        """
        found = tuple(self._meaning(segment.name) for segment in legend.segments)
        if legend.tool == MASKS:
            return found
        if legend.says_nothing and not any(found):
            return None
        given = {mark: name for name, mark in self.classes.items() if isinstance(mark, int)}
        given |= self._rest()
        wrong = [
            f"{segment.value} {segment.name}"
            for segment, meaning in zip(legend.segments, found, strict=True)
            if meaning is not None and given.get(segment.value, meaning) != meaning
        ]
        if wrong:
            told = ", ".join(f"{value} {name}" for value, name in sorted(given.items()))
            raise AttenScribbleError(
                f"{legend.source}: says {list_some(wrong)}, where the options say {told}: leave the values out of the "
                "options, and names are gone by, or correct one of the two"
            )
        return found

    def by_name(self, legend: Legend, meanings: tuple[str | None, ...]) -> Reading:
        """How a file with a legend is read."""
        hows = {MASKS: "by file name", "ITK-SNAP": f"by the names in {legend.source.name}"}
        how = hows.get(legend.tool, "by segment name")
        told = [
            (_tell(segment, legend), meaning)
            for segment, meaning in zip(legend.segments, meanings, strict=True)
            if meaning is not None
        ]
        if not any(segment.value == 0 for segment in legend.segments):
            told.append(("0", self.zero))
        return Reading(f"{how} ({legend.tool})", tuple(sorted(told)))

    def colours_and_greys(self) -> dict[Colour, str]:
        """What each colour of a picture means; a grey value is the colour of three times this value.

        A colour of scribbles for what is unlabelled is none of dense labels.
        """
        greys = {0: BACKGROUND} if self.dense else self._rest()
        said: dict[Colour, str] = {
            (value,) * 3: meaning
            for value, meaning in greys.items()
            if value < 256 and (self.dense or meaning not in self.colours.values())
        }
        return {**said, **{colour: meaning for colour, meaning in self.colours.items() if meaning in self.targets}}


def parse_marks(text: str) -> dict[str, Mark | None]:
    """Classes and what marks them in the files, from `RV,MYO,LV`, `liver=63` or `lesion=#ff0000,scar=Segment_2`.

    >>> parse_marks("liver=63,lesion=#ff0000,scar=Segment_2,spleen")
    {'liver': 63, 'lesion': '#ff0000', 'scar': 'Segment_2', 'spleen': None}
    """
    pairs: list[tuple[str, Mark | None]] = []
    for part in text.split(","):
        name, is_marked, told = (piece.strip() for piece in part.partition("="))
        pairs.append((name, parse_mark(told) if is_marked else None))
    return check_classes(pairs, f"labels {text!r}")


def check_classes(pairs: Iterable[tuple[str, Mark | None]], where: str) -> dict[str, Mark | None]:
    """Classes and what marks them, where every name and every value is one class's alone.

    Args:
        pairs: name and mark, see `Marks`.
        where: how an error calls them.

    Raises:
        AttenScribbleError: for the first that is not.
    """
    marks: dict[str, Mark | None] = {}
    values: list[int] = []
    for position, (name, mark) in enumerate(pairs, start=1):
        value = mark if isinstance(mark, int) else position
        reserved = name.casefold() == BACKGROUND or means_ignore(name) or has_control_character(name)
        twice = fold(name) in map(fold, marks) or value in values
        odd = isinstance(mark, str) and (not mark or (mark.startswith("#") and not is_colour(mark)))
        if not name or reserved or twice or odd or not 0 < value <= _HIGHEST:
            part = name if mark is None else f"{name}={mark}"
            raise AttenScribbleError(
                f"{where}: {part!r} is no class of its own: give names such as RV,MYO,LV, "
                "or with their values in the files, liver=63,spleen=252, without background and unlabelled"
            )
        marks[name] = mark
        values.append(value)
    return marks


def parse_mark(text: str) -> Mark:
    """A value, or a name or colour."""
    return int(text) if text.removeprefix("-").isdecimal() else text


def fold(name: str) -> str:
    """A name as it is compared: without regard to case, blanks and how accents are written."""
    return " ".join(normalise(name).split()).casefold()


def fold_mark(mark: Mark) -> Mark:
    """A mark as it is compared: names and colours without regard to case."""
    return fold(mark) if isinstance(mark, str) else mark


def _tell(segment: Segment, legend: Legend) -> str:
    if legend.tool == MASKS:
        return segment.name
    return f"{segment.value}" + (f" of layer {segment.layer}" if segment.layer else "")
