"""What is believed of the folders of a user: which holds images, and which scribbles or dense labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.dataset_conversion.findings import Folders
from nnunet_attenscribble.dataset_conversion.start.doubts import Doubt, Given
from nnunet_attenscribble.dataset_conversion.start.layout import Drawings, Layout
from nnunet_attenscribble.errors import AttenScribbleError

__all__ = ["choose_folders", "folder_doubts", "kind_doubts", "list_drawings", "unused_folders"]


def list_drawings(layout: Layout, given: Given) -> list[Drawings]:
    """Folders with drawings and what they are, as said, or as their names say."""
    if given.scribbles is not None or given.dense is not None:
        return []
    return [
        replace(one, kind=given.kinds.get(one.files[0], one.kind))
        for one in layout.drawings
        if given.kinds.get(one.files[0]) != "neither"
    ]


def folder_doubts(layout: Layout, given: Given) -> tuple[list[Doubt], list[str]]:
    """What is not clear of the folders, and what no answer mends."""
    doubts: list[Doubt] = []
    images = layout.images if given.images is None else (given.images,)
    if not images:
        return doubts, [
            f"{layout.root}: holds drawings ({_tell(layout.drawings)}) and no image: put the images "
            "into a folder images in it, or give theirs with --images"
        ]
    if len(images) > 1:
        told = list_some([str(folder) for folder in images])
        doubts.append(
            Doubt(
                f"{told}: each may be the folder of the images: give it with --images",
                "Which folder holds the images?",
                lambda text: replace(given, images=Path(text)),
                tuple(map(str, images)),
            )
        )
    if given.scribbles is not None or given.dense is not None:
        return doubts, []
    drawings = list_drawings(layout, given)
    if not drawings:
        if len(layout.unknown) > 1:
            doubts.append(_ask_for_drawings(layout, given))
            return doubts, []
        files = ", ".join(f"{folder} ({_count(count)})" for folder, count in layout.unknown.items())
        return doubts, [
            f"{layout.root}: holds images and no drawing ({files or 'no name is that of one'}): call drawings "
            "CASE_scribble or CASE.seg.nrrd, put them into a folder scribbles, or give theirs with --scribbles"
        ]
    if len(drawings) > 1:
        doubts += [_ask_what(one, drawings, given) for one in drawings if one.kind is None]
        for kind in ("scribbles", "dense"):
            same = [one for one in drawings if one.kind == kind]
            if len(same) > 1:
                doubts.append(_ask_which(kind, same, given))
    return doubts, []


def choose_folders(layout: Layout, given: Given) -> Folders | None:
    """As far as they are clear; drawings of a kind that is not are taken for scribbles."""
    images = layout.images if given.images is None else (given.images,)
    if len(images) != 1:
        return None
    home, scribbles, dense = images[0], given.scribbles, given.dense
    if scribbles is None and dense is None:
        drawings = list_drawings(layout, given)
        by_kind = {one.kind or "scribbles": one.folder for one in drawings}
        if len(by_kind) < len(drawings) or not drawings:
            return None
        scribbles, dense = by_kind.get("scribbles"), by_kind.get("dense")
    return Folders(
        home,
        scribbles,
        dense,
        given.test_images or layout.test_images,
        given.test_labels or layout.test_labels,
    )


def unused_folders(layout: Layout, folders: Folders) -> dict[Path, int]:
    """Folders that hold images or drawings and are none of the chosen ones, with the number of these."""
    used = {folder.resolve() for folder in vars(folders).values() if folder is not None}
    held = {one.folder: len(one.files) for one in layout.drawings}
    return {
        folder: count
        for folder, count in {**layout.unknown, **held}.items()
        if folder.resolve() not in used and not used & set(folder.resolve().parents)
    }


def _ask_for_drawings(layout: Layout, given: Given) -> Doubt:
    told = ", ".join(f"{folder} ({_count(count)})" for folder, count in layout.unknown.items())

    def answer(text: str) -> Given:
        chosen = Path(text)
        others = [folder for folder in layout.unknown if folder != chosen]
        return replace(given, scribbles=chosen, images=others[0] if len(others) == 1 else layout.root)

    return Doubt(
        f"{layout.root}: no name says which of its folders, {told}, holds images, and which drawings: give "
        "--images DIR --scribbles DIR, or --dense DIR for dense labels",
        "Which folder holds the drawings?",
        answer,
        tuple(map(str, layout.unknown)),
    )


def _ask_what(one: Drawings, drawings: Sequence[Drawings], given: Given) -> Doubt:
    mixed = any(other.folder == one.folder for other in drawings if other is not one)

    def answer(text: str) -> Given:
        if mixed and text != "dense":
            raise AttenScribbleError(f"{one.files[0].name} and scribbles lie in one folder: take one of them out")
        return replace(given, kinds={**given.kinds, one.files[0]: text})

    return Doubt(
        f"{_tell(drawings)}: hold drawings of the same images: say which are scribbles and which are dense "
        "labels, with --scribbles DIR and --dense DIR; what is not given is not used",
        f"What is drawn in {one.folder} ({one.files[0].name}; {_count(len(one.files))})?",
        answer,
        ("scribbles", "dense", "neither"),
    )


def _tell(drawings: Iterable[Drawings]) -> str:
    return list_some([f"{one.folder} ({_count(len(one.files))})" for one in drawings])


def _count(files: int) -> str:
    return f"{files} file{'' if files == 1 else 's'}"


def kind_doubts(layout: Layout, folders: Folders, given: Given, *, says_scribbles: bool) -> list[Doubt]:
    """Whether a single folder of drawings holds scribbles or dense labels, where nothing says so.

    Args:
        layout: of all folders.
        folders: that were chosen.
        given: what was said.
        says_scribbles: whether what is in the drawings does.
    """
    drawings = list_drawings(layout, given)
    if says_scribbles or len(drawings) != 1 or drawings[0].kind is not None or folders.scribbles is None:
        return []
    one = drawings[0]
    return [
        Doubt(
            f"{_tell(drawings)}: nothing says whether these are scribbles, with voxels that nobody drew on, or dense "
            "labels: give --scribbles or --dense with this folder; a background stroke is known by the name "
            "background, or by --background-scribble",
            f"Are the drawings in {one.folder} scribbles (most voxels unlabelled), or dense labels?",
            lambda text: replace(given, kinds={**given.kinds, one.files[0]: text}),
            ("scribbles", "dense"),
        )
    ]


def _ask_which(kind: str, several: Sequence[Drawings], given: Given) -> Doubt:
    what = "scribbles" if kind == "scribbles" else "dense labels"
    told = list_some([str(one.folder) for one in several])

    def answer(text: str) -> Given:
        others = {one.files[0]: "neither" for one in several if str(one.folder) != text}
        return replace(given, kinds={**given.kinds, **others})

    return Doubt(
        f"{told}: hold {what} of the same images: give one of them with --{kind}",
        f"Which folder of {what} is to be used?",
        answer,
        tuple(str(one.folder) for one in several),
    )
