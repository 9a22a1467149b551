"""A user's own images, named and stored as the images of a dataset are: what nnU-Net's prediction reads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from nnunet_attenscribble.common.files import find_files, replaced_folder
from nnunet_attenscribble.common.formats import find_sidecar
from nnunet_attenscribble.common.progress import show_progress
from nnunet_attenscribble.common.readers import find_reader, open_files
from nnunet_attenscribble.common.shapes import read_json
from nnunet_attenscribble.common.workers import default_workers, worker_map
from nnunet_attenscribble.dataset_conversion.cases import ENDING, Case, Coding, check_case, write_images
from nnunet_attenscribble.dataset_conversion.description import read_description
from nnunet_attenscribble.dataset_conversion.findings import find_images, tell_files_apart
from nnunet_attenscribble.dataset_conversion.pairing import pair_files, stem, unusable_files
from nnunet_attenscribble.dataset_conversion.plan_problems import dimension_problems, identifier_problems
from nnunet_attenscribble.errors import AttenScribbleError


def prepare_images(
    images: Path,
    output: Path,
    dataset: Path,
    *,
    spacing: Sequence[float] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> list[str]:
    """Write images as a dataset has them: `CASE_0000` and so on, in its format, checked as those to train with are.

    Args:
        images: folder, as for `convert_folder`.
        output: folder, which must not be there yet, or be empty.
        dataset: folder with its dataset.json.
        spacing: mm along x, y, z, of files that state none.
        workers: processes; None: one per processor.
        progress: shown on stderr.

    Returns:
        the cases.

    Raises:
        AttenScribbleError: every problem of the input, one sentence each; nothing is written then.
    """
    description = read_description(dataset)
    channels = [description.channels[number] for number in sorted(description.channels)]
    files = find_files(images)
    labels = {file for part in tell_files_apart(images, files)[1:] for file in part if stem(file) is not None}
    found = find_images(file for file in files if file not in labels)
    if not found.sources:  # names that all files share say nothing
        found, labels = find_images(files), set()
    pairing = pair_files(images, found.counts, [], channels)
    as_it_is = description.ending != ENDING
    problems = [*pairing.problems, *unusable_files(found.others), *_output_problems(images, output)]
    problems += [f"{label}: is called as a drawing or a label: take it out of the folder" for label in sorted(labels)]
    if not pairing.images:
        raise AttenScribbleError([*problems, f"{images}: holds no image"])
    sources = dict(found.sources)
    if as_it_is:  # nnU-Net will read them with the dataset's own reader
        files = [path for paths in pairing.images.values() for path in paths if path.name.endswith(description.ending)]
        reader = find_reader(read_json(dataset / "dataset.json", ""), files[0]) if files else None
        sources.update({file: open_files([file], reader, channels=len(found.sources[file])) for file in files})
    step = None if spacing is None else tuple(spacing)
    cases = [
        Case(case, tuple(source for path in paths for source in sources[path]), spacing=step)
        for case, paths in sorted(pairing.images.items())
    ]
    problems += identifier_problems([case.identifier for case in cases])
    problems += [
        f"case {case.identifier}: has {len(case.images)} image channels, the dataset {len(channels)} "
        f"({', '.join(channels)}): give as many"
        for case in cases
        if len(case.images) != len(channels)
    ]
    if as_it_is:
        problems += [
            f"{path}: the images of this dataset end in {description.ending}: save it as one of these"
            for paths in pairing.images.values()
            for path in paths
            if not path.name.endswith(description.ending)
        ]
    coding = Coding(description.labels, None, None, with_dense=False)
    with worker_map(min(default_workers() if workers is None else workers, len(cases))) as run:
        check = partial(check_case, coding=coding)
        checked = list(show_progress(run(check, cases), total=len(cases), description="Checking", enabled=progress))
        problems += [problem for result in checked for problem in result.problems]
        problems += dimension_problems(cases, checked)
        if problems:
            raise AttenScribbleError(dict.fromkeys(problems))
        with replaced_folder(output) as part:
            if as_it_is:
                _copy(pairing.images, part, description.ending)
            else:
                written = run(partial(write_images, folder=part), cases)
                list(show_progress(written, total=len(cases), description="Writing", enabled=progress))
    return [case.identifier for case in cases]


def _output_problems(images: Path, output: Path) -> list[str]:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        return [f"{output}: is there already: choose another folder"]
    if images.resolve() in output.resolve().parents:
        return [f"{output}: lies in the folder of the images: choose another folder"]
    return []


def _copy(cases: dict[str, tuple[Path, ...]], folder: Path, ending: str) -> None:
    for case, paths in cases.items():
        for channel, path in enumerate(paths):
            shutil.copyfile(path, folder / f"{case}_{channel:04d}{ending}")
            if (sidecar := find_sidecar(path)) is not None:
                shutil.copyfile(sidecar, folder / f"{case}.json")
