"""A user's own images, named and stored as the images of a dataset are: what nnU-Net's prediction reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from nnunet_attenscribble.common.files import find_files, replaced_folder
from nnunet_attenscribble.common.formats import is_tiff
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.readers import find_reader, keeps_files, open_files
from nnunet_attenscribble.common.shapes import read_json
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.common.volumes import Source
from nnunet_attenscribble.common.workers import worker_map
from nnunet_attenscribble.dataset_conversion.cases import (
    ENDING,
    Case,
    Coding,
    check_cases,
    collect_remarks,
    copy_images,
    write_images,
)
from nnunet_attenscribble.dataset_conversion.description import Description, read_description
from nnunet_attenscribble.dataset_conversion.findings import find_images, tell_files_apart
from nnunet_attenscribble.dataset_conversion.label_files import is_picture
from nnunet_attenscribble.dataset_conversion.pairing import (
    FOUR_DIGITS,
    pair_files,
    split_named_channel,
    stem,
    unusable_files,
)
from nnunet_attenscribble.dataset_conversion.plan_problems import (
    dimension_problems,
    folder_problems,
    identifier_problems,
    spacing_problems,
)
from nnunet_attenscribble.errors import AttenScribbleError, refuse


def prepare_images(
    images: Path,
    output: Path,
    dataset: Path,
    *,
    spacing: Sequence[float] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> tuple[list[str], list[str]]:
    """Write images as a dataset has them: `CASE_0000` and so on, in its format, checked as those to train with are.

    Args:
        images: folder, as in `FolderOptions`.
        output: folder, which must not be there yet, or be empty.
        dataset: folder with its dataset.json.
        spacing: mm along x, y, z, of files that state none.
        workers: processes; None: one per processor, 8 at most.
        progress: shown on stderr.

    Returns:
        the cases, and what the owner of the images may want to know, one sentence each.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each; nothing is written then.
    """
    description = read_description(dataset)
    cases, problems = _find_cases(images, dataset, description, spacing)
    problems += _output_problems(images, output)
    if not cases:
        raise AttenScribbleError([*problems, f"{images}: holds no image"])
    coding = Coding(description.labels, None, None, with_dense=False)
    with worker_map(workers, len(cases)) as run:
        checked = check_cases(run, cases, coding, progress=progress)
        problems += [problem for _, result in checked for problem in result.problems]
        problems += dimension_problems(checked)
        refuse(dict.fromkeys(problems))
        with replaced_folder(output) as part:
            as_it_is = description.ending != ENDING
            write = partial(copy_images, ending=description.ending) if as_it_is else write_images
            written = run(partial(write, folder=part), cases)
            list(show_progress(written, total=len(cases), description="Writing", enabled=progress))
            refuse(_output_problems(images, output))  # another run was quicker
    return [case.identifier for case in cases], collect_remarks(checked)


def _find_cases(
    images: Path, dataset: Path, description: Description, spacing: Sequence[float] | None
) -> tuple[list[Case], list[str]]:
    """The cases of a folder as the dataset has them, and every problem of their names."""
    channels = [description.channels[number] for number in sorted(description.channels)]
    files = find_files(images)
    labels = {file for part in tell_files_apart(images, files)[1:] for file in part if stem(file) is not None}
    found = find_images(file for file in files if file not in labels)
    if not found.sources:  # names that all files share say nothing
        found, labels = find_images(files), set()
    pairing = pair_files(images, found.counts, [], channels)
    wrong = spacing_problems(spacing)
    problems = [*wrong, *pairing.problems, *unusable_files(found.others)]
    problems += [f"{label}: is called as a drawing or a label: take it out of the folder" for label in sorted(labels)]
    used = [path for paths in pairing.images.values() for path in paths]
    sources = _as_nnunet_reads({path: found.sources[path] for path in used}, dataset, description.ending)
    step = None if spacing is None or wrong else tuple(spacing)
    cases = [
        Case(case, tuple(source for path in paths for source in sources[path]), spacing=step)
        for case, paths in sorted(pairing.images.items())
    ]
    problems += identifier_problems([case.identifier for case in cases])
    if unlike := [case for case in cases if len(case.images) != len(channels)]:
        problems += _tell_channels(images, list(found.sources), channels) or [
            f"case {case.identifier}: has {len(case.images)} image channels, the dataset {len(channels)} "
            f"({', '.join(channels)}): give as many"
            + (f"; {FOUR_DIGITS}" if len(pairing.images[case.identifier]) > 1 else "")  # and no colours of one picture
            for case in unlike
        ]
    if description.ending != ENDING:  # files are copied as they are
        problems += [
            f"{path}: the images of this dataset end in {description.ending}: save it as one of these"
            for path in used
            if not path.name.endswith(description.ending)
        ]
    return cases, problems


def _as_nnunet_reads(
    sources: Mapping[Path, tuple[Source, ...]], dataset: Path, ending: str
) -> dict[Path, tuple[Source, ...]]:
    """Channels by image, with those files opened by the dataset's reader that it will see in another way."""
    content = read_json(dataset / "dataset.json", "")
    as_it_is = ending != ENDING
    files = [file for file in sources if file.name.endswith(ending if as_it_is else (ENDING, ".nii"))]
    if not files or not (as_it_is or content.get("overwrite_image_reader_writer")):
        return dict(sources)
    reader = find_reader(content, files[0])
    # The spacing of a TIFF nnU-Net finds by the name alone that is given here.
    if not keeps_files(reader) and (not as_it_is or is_tiff(files[0])):
        return dict(sources)
    return {**sources, **{file: open_files([file], reader, channels=len(sources[file])) for file in files}}


def _tell_channels(folder: Path, images: Sequence[Path], channels: Sequence[str]) -> list[str]:
    """Where files may be called after channels: those that a case lacks, or that no name is that of one."""
    if len(channels) < 2:
        return []
    found = [(image.parent, named) for image in images if (named := split_named_channel(image, channels)) is not None]
    by_name: dict[str, set[int]] = {}
    for parent, (case, number) in found:
        by_name.setdefault(case or parent.name, set()).add(number)  # files of a case may lie in a folder per channel
    known = f"the dataset has the channels {', '.join(channels)}"
    numbered = any(re.search(r"_\d{4}$", stem(image) or "") for image in images)
    if not by_name and not numbered and len(images) >= len(channels) and not any(map(is_picture, images)):
        names = list_some([stem(image) or image.name for image in images])
        return [
            f"{folder}: its images are called {names}, and {known}: end their names in these, or in _0000 and so on"
        ]
    problems = []
    for case, numbers in by_name.items():
        if lacking := [name for number, name in enumerate(channels) if number not in numbers]:
            verb = "is" if len(lacking) == 1 else "are"
            problems.append(f"case {case}: {', '.join(lacking)} {verb} missing: {known}")
    return problems


def _output_problems(images: Path, output: Path) -> list[str]:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        return [f"{output}: is there already: choose another folder"]
    if images.resolve() in output.resolve().parents:
        return [f"{output}: lies in the folder of the images: choose another folder"]
    return folder_problems(output)
