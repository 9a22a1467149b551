"""What is believed of the images of a folder: their channels, and whether they are images at all."""

from __future__ import annotations

import re
from dataclasses import replace

from nnunet_attenscribble.common.files import find_files
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.common.volumes import file_of
from nnunet_attenscribble.dataset_conversion.findings import Findings, Folders, tell_files_apart
from nnunet_attenscribble.dataset_conversion.pairing import stem
from nnunet_attenscribble.dataset_conversion.start.doubts import Doubt, Given
from nnunet_attenscribble.dataset_conversion.start.survey import Survey
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["MRI", "channel_doubts", "channel_names", "image_doubts", "number_channels"]

MRI = ("MRI",)


def number_channels(cases: Findings) -> tuple[str, ...]:
    """One is called MRI, colours R, G and B; others are asked for."""
    counts = {len(case.images) for case in cases.cases}
    if counts == {3} and all(len(set(map(file_of, case.images))) == 1 for case in cases.cases):
        return ("R", "G", "B")
    return MRI if counts == {1} else tuple(f"channel {number}" for number in range(max(counts, default=1)))


def channel_names(folders: Folders) -> tuple[str, ...]:
    """Last words of the names of images that are the same for every case; none where they are not."""
    taken = [folder for folder in (folders.scribbles, folders.dense) if folder not in (None, folders.images)]
    files = [
        file
        for file in find_files(folders.images)
        if stem(file) is not None and not any(folder in file.parents for folder in taken)
    ]
    images = tell_files_apart(folders.images, files)[0]
    cases: dict[tuple[str, str], list[str]] = {}
    for file in images:
        name = stem(file) or ""
        last = re.split("[_. -]", name)[-1]
        cases.setdefault((str(file.parent), name.removesuffix(last)), []).append(last)
    sets = {tuple(sorted(words)) for words in cases.values()}
    names = next(iter(sets), ())
    alike = len(sets) == 1 and len(cases) > 1 and len(names) > 1
    return names if alike and not any(name.isdecimal() for name in names) else ()


def channel_doubts(cases: Findings, given: Given, channels: tuple[str, ...], survey: Survey) -> list[Doubt]:
    """What the channels are called, where that is neither in names nor beside the point."""

    def answer(text: str) -> Given:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        if len(names) != len(channels):
            raise AttenScribbleError(f"{len(names)} names were given: give {len(channels)}, with commas between them")
        return replace(given, channels=names)

    if given.channels is not None:
        return []
    if channels[0] == "channel 0":
        return [
            Doubt(
                f"images have {len(channels)} channels, _0000, _0001 and so on: name them in this order, as "
                "--channels T1,FLAIR; CT is normalised as such, others by z-score",
                f"What are the {len(channels)} channels called, in the order of their numbers (as T1,FLAIR)?",
                answer,
            )
        ]
    if survey.like_ct and len(channels) == 1:
        told = list_some(survey.like_ct)
        return [
            Doubt(
                f"images go down to -900 and below, as CT does ({told}): say --channels CT, or --channels MRI; nnU-Net "
                "normalises CT by its own rule",
                f"Values go down to -900 and below ({told}). Is this CT, or something else (MRI)?",
                answer,
                ("CT", "MRI"),
            )
        ]
    return []


def image_doubts(folders: Folders, given: Given, survey: Survey) -> list[Doubt]:
    """Whether images are images, and how far apart the voxels of those are that do not say it."""
    doubts = []
    if survey.like_labels and given.images is None:
        first, values = next(iter(survey.like_labels.items()))
        told = (
            f"{list_some(list(survey.like_labels))}: {'hold' if len(survey.like_labels) > 1 else 'holds'} the values "
            f"{list_some([str(value) for value in values])} alone, as a label does"
        )

        def answer(text: str) -> Given:
            if text == "no":
                raise AttenScribbleError(f"{first}: put it into the folder of the drawings, or remove it")
            return replace(given, images=folders.images)

        doubts.append(
            Doubt(
                f"{told}: move what is none out of the images; --images {folders.images} takes them for images",
                f"{told}. Is it an image?",
                answer,
                ("yes", "no"),
            )
        )
    if survey.without_spacing and given.spacing is None:

        def steps(text: str) -> Given:
            try:
                found = tuple(float(part) for part in re.split("[ ,;]+", text.strip()))
            except ValueError:
                found = ()
            if len(found) != 3 or not all(0 < step < float("inf") for step in found):
                raise AttenScribbleError("give three numbers above 0, as 0.8 0.8 3")
            return replace(given, spacing=found)

        told = list_some(survey.without_spacing)
        doubts.append(
            Doubt(
                f"{told}: state no spacing, by which nnU-Net plans: give it with --spacing X Y Z, in mm",
                f"How far are voxels apart along x, y and z, in mm (as 0.8 0.8 3)? {told} do not say it.",
                steps,
            )
        )
    return doubts
