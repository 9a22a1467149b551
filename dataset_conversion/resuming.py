"""Going on where a killed run of the same conversion stopped: cases that it had written whole are not written again."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.common.volumes import file_of
from nnunet_attenscribble.dataset_conversion.cases import Case, CheckedCase, Coding, write_case

__all__ = ["fingerprint", "write_or_resume"]

_DONE = "done"  # in a hidden folder: a JSON file per case that lies in it whole


@cache
def _version() -> str:
    return version("nnunet-attenscribble")


def fingerprint(case: Case, checked: CheckedCase, coding: Coding, link: bool) -> str | None:
    """What the written files of a case depend on, as a hash; None where that cannot be told."""
    sources = (*case.images, case.scribble, case.dense)
    calls = [source for source in sources if callable(source)]
    if any(source is not None and not isinstance(source, Path) and not callable(source) for source in sources):
        return None
    if not case.inputs and any(file_of(source) is None for source in calls):
        return None
    try:
        called = pickle.dumps(calls)
    except (pickle.PicklingError, AttributeError, TypeError):  # a call that only this process can make
        return None
    files = [file for source in sources if (file := file_of(source)) is not None]
    linked = [str(file.resolve()) for file in files] if link else []
    own = [case.identifier, case.test, case.spacing, case.dense_slices, case.annotated]
    told = [_version(), *own, checked.inputs, linked, repr(coding)]
    return hashlib.sha256(json.dumps(told).encode() + called).hexdigest()


def write_or_resume(
    task: tuple[Case, str | None],
    *,
    coding: Coding,
    datasets: Sequence[Path],
    with_dense: bool,
    links_from: Path | None,
    leftovers: Iterable[Path],
) -> list[str]:
    """Put one case into the dataset folders: taken over from a killed run, or written; runs in a worker process.

    Args:
        task: the case and its fingerprint.
        coding: of its labels.
        datasets: folders of the dataset with the images and, if any, of its twin, in the hidden folder of this run.
        with_dense: dense labels of training cases are written, into the last of them.
        links_from: see `write_case`.
        leftovers: hidden folders of killed runs.

    Returns:
        Its files, relative to the hidden folder of this run.

    Raises:
        OSError: where it cannot be written.
    """
    case, key = task
    hidden = datasets[0].parent
    note = f"{_DONE}/{case.identifier}.json"
    for leftover in leftovers if key is not None else ():
        try:
            told = json.loads((leftover / note).read_text(encoding="utf-8"))
            if told["fingerprint"] == key:
                for file in told["files"]:
                    os.rename(leftover / file, hidden / file)
                write_json(hidden / note, told, indent=None)
                return told["files"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it had not come so far, or is gone: write the case
    written = write_case(
        case, coding=coding, home=datasets[0], dense=datasets[-1] if with_dense else None, links_from=links_from
    )
    files = [str(file.relative_to(hidden)) for file in written]
    if key is not None:
        write_json(hidden / note, {"fingerprint": key, "files": files}, indent=None)
    return files
