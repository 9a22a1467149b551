"""What a raw nnU-Net dataset says of itself: labels, channels and training cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_attenscribble.common.nnunet import entry_values, read_dataset_json
from nnunet_attenscribble.common.readers import find_reader, open_files
from nnunet_attenscribble.common.volumes import Source
from nnunet_attenscribble.errors import AttenScribbleError, refuse


@dataclass(frozen=True)
class Description:
    """The part of a dataset.json that matters here.

    Attributes:
        labels: name to value, background included, `ignore` not.
        ignore: value of unlabelled voxels; None in a dense dataset.
        channels: number to name.
        ending: of image and label files.
        reference: of the source, if told.
        license: of the source.
        regions: names of labels that are regions, made of several values. Then `labels` has each value under the name
            of the smallest region that holds it.
    """

    labels: Mapping[str, int]
    ignore: int | None
    channels: Mapping[int, str]
    ending: str
    reference: str | None
    license: str
    regions: tuple[str, ...]


def read_description(source: Path) -> Description:
    """Read `dataset.json` of a raw dataset.

    Raises:
        AttenScribbleError: where it cannot be read, or lacks what nnU-Net needs.
    """
    file = source / "dataset.json"
    content = read_dataset_json(file)
    values = {name: entry_values(entry) for name, entry in content["labels"].items()}
    problems = []
    if values.get("background") != (0,):
        problems.append(f"{file}: has no label background that is 0, which nnU-Net needs: add it")
    if not any(held != (0,) for name, held in values.items() if name != "ignore"):
        problems.append(f"{file}: names no class but the background: add those that the labels hold")
    refuse(problems)
    channels = {int(number): channel for number, channel in content["channel_names"].items()}
    ignore = values.pop("ignore", (None,))[0]
    names: dict[int, str] = {}
    for name, held in sorted(values.items(), key=lambda entry: -len(entry[1])):  # smaller regions come later and win
        names.update(dict.fromkeys(held, name))
    twice = len(set(names.values())) < len(names)
    return Description(
        labels={f"{names[value]} ({value})" if twice else names[value]: value for value in sorted(names)},
        ignore=ignore,
        channels=channels,
        ending=content["file_ending"],
        reference=content.get("reference"),
        license=content.get("licence") or content.get("license") or "see the source",
        regions=tuple(name for name, held in values.items() if len(held) > 1),
    )


def find_cases(source: Path, description: Description) -> dict[str, tuple[tuple[Source, ...], Source]]:
    """Images, one per channel, and label of every training case, as nnU-Net finds and reads them.

    A picture in colour is one file of several channels.

    Raises:
        AttenScribbleError: for cases that are not complete, and where there is none.
    """
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        found = get_filenames_of_train_images_and_targets(str(source))
    except (AssertionError, OSError) as error:
        raise AttenScribbleError(f"{source}: nnU-Net finds no training cases in it ({error})") from None
    except (AttributeError, KeyError, TypeError):
        raise AttenScribbleError(
            f"{source / 'dataset.json'}: its key 'dataset' does not list cases as nnU-Net reads them: "
            'write {"CASE": {"images": ["FILE", ...], "label": "FILE"}, ...}, or take the key out'
        ) from None
    if not found:
        raise AttenScribbleError(f"{source}: has no training case whose files end in {description.ending}")
    problems = []
    cases: dict[str, tuple[tuple[Source, ...], Source]] = {}
    channels = len(description.channels)
    examples = (Path(file) for files in found.values() for file in files["images"])
    reader = find_reader(read_dataset_json(source / "dataset.json"), next(examples, source))
    for case, files in sorted(found.items()):
        label = Path(files["label"])
        if not label.is_file():
            problems.append(f"{label}: does not exist: case {case} has no label")
        try:
            images = open_files([Path(file) for file in files["images"]], reader, channels=channels)
            (own,) = open_files([label], reader, label=True)
        except AttenScribbleError as error:
            problems += error.problems
            continue
        if len(images) != channels:
            problems.append(
                f"case {case} of {source.name} has {len(images)} images, counting colours, dataset.json has "
                f"{channels} channels: add the missing files, or correct channel_names"
            )
        cases[case] = images, own
    refuse(problems)
    return cases
