"""A folder to draw in: images, what a model predicts for them, and strokes; and what was drawn there since, brought
into the raw dataset: labels, new cases, dataset.json and folds together."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import encode_json, find_files, link_file, replaced_files, write_json
from nnunet_attenscribble.common.formats import find_sidecar
from nnunet_attenscribble.common.grids import Grid, place_on, turn_onto
from nnunet_attenscribble.common.nnunet import read_dataset_json, read_splits_json
from nnunet_attenscribble.common.readers import (
    DatasetFile,
    Reader,
    as_readable,
    find_reader,
    keeps_files,
    open_files,
    write_label,
)
from nnunet_attenscribble.common.shapes import ANYTHING, TEXT, TRUTH, list_of, mapping, read_json, read_shaped
from nnunet_attenscribble.common.volumes import (
    Source,
    describe,
    file_of,
    read_volume,
    sha256,
    unscale_label,
    write_volume,
)
from nnunet_attenscribble.dataset_conversion.cases import Coding
from nnunet_attenscribble.dataset_conversion.description import Description, find_cases, read_description
from nnunet_attenscribble.dataset_conversion.next_drawings import (
    TOOLS,
    as_volume,
    describe_labels,
    read_drawing,
    write_drawing,
    write_tiff,
)
from nnunet_attenscribble.dataset_conversion.pairing import is_companion, stem, unusable_files
from nnunet_attenscribble.dataset_conversion.plan_problems import folder_problems, identifier_problems
from nnunet_attenscribble.errors import AttenScribbleError, refuse

STATE_FILE = "next.json"
_LABELS_FILE = "labels.label"
_DRAWN = ("strokes", "prediction")
_SPLITS = "splits_final.json"
_ADVICE = "bring back the file that attenscribble next wrote, or remove the folder once its strokes are saved elsewhere"
_STATE = mapping(
    {
        "dataset": TEXT,
        "cases": mapping(
            each=mapping(
                {
                    "images": list_of(TEXT, expected="a list of files", at_least=1),
                    "is_training": TRUTH,
                    "strokes": TEXT,
                    "prediction": TEXT,
                },
                expected="a case with its files",
            ),
            expected="cases by their names",
        ),
        "files": list_of(TEXT, expected="a list of files"),
        "slices": list_of(ANYTHING),
    },
    {
        "read": list_of(TEXT),  # digests of drawings that were brought in since it was written
        "seen": mapping(each=TEXT),  # those of drawings that lay there when it was written, by their places
    },
)


@dataclass(frozen=True)
class CaseToDraw:
    """A case that may be drawn on.

    Attributes:
        identifier: its name.
        images: its files.
        sources: a channel each, as nnU-Net reads them.
        label: of a training case, as nnU-Net reads it; None of others.
    """

    identifier: str
    images: tuple[Path, ...]
    sources: tuple[Source, ...]
    label: Source | None

    @classmethod
    def of_files(
        cls, identifier: str, images: Sequence[Path], reader: Reader, channels: int, label: Source | None = None
    ) -> CaseToDraw:
        """From files; raises AttenScribbleError where one has to be opened and cannot be read."""
        return cls(identifier, tuple(images), open_files(list(images), reader, channels=channels), label)

    @classmethod
    def of_training(cls, identifier: str, sources: tuple[Source, ...], label: Source) -> CaseToDraw:
        """From what `description.find_cases` found."""
        files = dict.fromkeys(file for source in sources if (file := file_of(source)) is not None)
        return cls(identifier, tuple(files), sources, label)

    @property
    def shown(self) -> Source:
        """The first channel as tools read it."""
        return _as_stored(self.sources[0])

    def read_grid(self, *, as_nnunet: bool = False) -> Grid:
        """As tools show it, or in the order in which nnU-Net reads it."""
        source = self.sources[0] if as_nnunet else self.shown
        return Grid.of(read_volume(source, describe(source, f"case {self.identifier}"), thorough=False, whole=False))

    def turn(self, *volumes: np.ndarray, to_nnunet: bool) -> list[np.ndarray]:
        """(Z, Y, X) each in the order in which nnU-Net reads the image, from the one that tools show; or back."""
        shown = self.read_grid()
        if len(shown.size) == 2 or shown == (read := self.read_grid(as_nnunet=True)):
            return list(volumes)
        own, other = (shown, read) if to_nnunet else (read, shown)
        return [np.ascontiguousarray(turn_onto(voxels, own, other)) for voxels in volumes]

    def read_strokes(self, labels: Mapping[str, int]) -> np.ndarray:
        """(Z, Y, X) on the grid that tools show, `len(labels)` where nobody drew.

        Raises:
            AttenScribbleError: its label cannot be read.
        """
        grid = self.read_grid()
        if self.label is None:
            return as_volume(np.full(grid.size[::-1], len(labels), np.uint8))
        name = describe(self.label, f"label of case {self.identifier}")
        label = unscale_label(read_volume(self.label, name, label=True))[0]
        return as_volume(Coding(labels, None, None, False).scribble(place_on(label, grid), name)[0])


@dataclass(frozen=True)
class DatasetToDraw:
    """A raw dataset: its folder and description, its training cases, the reader of its files."""

    raw: Path
    description: Description
    training: Mapping[str, CaseToDraw]
    reader: Reader

    @classmethod
    def read(cls, raw: Path) -> DatasetToDraw:
        """As it is now; raises AttenScribbleError where it is not in order."""
        description = read_description(raw)
        cases = {name: CaseToDraw.of_training(name, *files) for name, files in find_cases(raw, description).items()}
        example = next(iter(cases.values())).images[0]
        return cls(raw, description, cases, find_reader(read_dataset_json(raw / "dataset.json"), example))

    def open_further(self, name: str, images: Sequence[Path]) -> CaseToDraw:
        """A case of these images, which is none of its training cases."""
        return CaseToDraw.of_files(name, images, self.reader, len(self.description.channels))


@dataclass(frozen=True, eq=False)
class DrawnCase:
    """A case whose files are to be written: its strokes so far and its prediction, (Z, Y, X) on the grid shown."""

    case: CaseToDraw
    strokes: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True, eq=False)
class Addition:
    """What was drawn on a case since.

    Attributes:
        case: the images; a training case, or one that becomes one.
        label: (Z, Y, X) all strokes of the case, in the order in which nnU-Net reads its image.
        added: voxels by label.
        changed: voxels that had another stroke before.
        kept: voxels whose stroke was taken out of the drawing; they keep it.
        files: the drawings.
    """

    case: CaseToDraw
    label: np.ndarray
    added: Mapping[str, int]
    changed: int
    kept: int
    files: tuple[Path, ...]


def read_state(folder: Path, dataset: str) -> dict[str, Any] | None:
    """What was written into the folder; None where nothing was.

    Raises:
        AttenScribbleError: it belongs to another dataset, or is something else.
    """
    file = folder / STATE_FILE
    if not file.exists():
        # A call that was killed left its hidden folder there.
        if folder.exists() and not (folder.is_dir() and all(entry.match(".*.part") for entry in folder.iterdir())):
            raise AttenScribbleError(f"{folder}: holds something else, and no {STATE_FILE}: give another --folder")
        return None
    state = read_shaped(file, _STATE, _ADVICE)
    if state["dataset"] != dataset:
        raise AttenScribbleError(f"{folder}: is of {state['dataset']}, not of {dataset}: give another --folder")
    wrong = [name for name in (*state["files"], *state["cases"]) if not _is_inside(name)]
    if wrong:
        raise AttenScribbleError(f"{file}: {wrong[0]!r} does not lie in the folder: {_ADVICE}")
    return state


def write_folder(
    folder: Path,
    cases: Iterable[DrawnCase],
    *,
    tool: str,
    labels: Mapping[str, int],
    state: Mapping[str, Any],
    further: Mapping[str, bytes],
    before: Mapping[str, Any] | None,
    seen: Mapping[str, str],
) -> None:
    """Write a folder for each case, the tool's files in it, and what is known of them.

    Files of an earlier call that were not changed since are removed; whatever else lies in the folder stays.

    Args:
        folder: to write; made where it is missing.
        cases: to draw on; each is written before the next is asked for.
        tool: of `next_drawings.TOOLS`.
        labels: name to value, background included.
        state: for the state file: `dataset`, `slices` and more.
        further: files by name.
        before: what `read_state` told.
        seen: what `list_seen` told, before it was read for the last time.

    Raises:
        AttenScribbleError: where it cannot be written; then everything is as it was.
    """
    ending = TOOLS[tool]
    entries: dict[str, Any] = {}
    files: list[str] = []
    with replaced_files(folder) as stage:

        def place(name: str) -> Path:
            files.append(name)
            return stage(folder / name)

        for drawn in cases:
            name, grid = drawn.case.identifier, drawn.case.read_grid()
            strokes = place(f"{name}/{name}_strokes{ending}")
            write_drawing(strokes, drawn.strokes, grid, labels, dense=False)
            # Before the prediction: killed in between, the new one would count as a correction of the old one.
            np.savez_compressed(place(f"{name}/.{name}.npz"), prediction=drawn.prediction)
            prediction = place(f"{name}/{name}_prediction{ending}")
            write_drawing(prediction, drawn.prediction, grid, labels, dense=True)
            _write_images(drawn.case, tool, folder / name, place)
            entries[name] = {
                "images": [os.path.abspath(file) for file in drawn.case.images],
                "is_training": drawn.case.label is not None,
                "strokes": sha256(strokes),
                "prediction": sha256(prediction),
            }
        place(_LABELS_FILE).write_text(describe_labels(labels), encoding="utf-8")
        for name, content in further.items():
            place(name).write_bytes(content)
        others = {name: digest for name, digest in seen.items() if name not in files}
        known = {**state, "cases": entries, "files": files, "seen": others}
        stage(folder / STATE_FILE).write_text(encode_json(known), encoding="utf-8")
    _remove(folder, set((before or {}).get("files", ())) - set(files))


def _write_images(case: CaseToDraw, tool: str, folder: Path, place) -> None:
    """Links to the images, copies where there can be none; for napari, which reads few formats, TIFF."""
    if tool == "napari" and not all(file.suffix.lower() in (".tif", ".tiff", ".png") for file in case.images):
        for number, source in enumerate(case.sources):
            voxels = sitk.GetArrayFromImage(read_volume(_as_stored(source), "", thorough=False))
            write_tiff(place(f"{folder.name}/{case.identifier}_{number:04d}.tif"), voxels)
        return
    for file in case.images:
        link_file(place(f"{folder.name}/{file.name}"), file, folder)


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for place in {(folder / name).parent for name in names} - {folder}:
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def read_additions(folder: Path, state: Mapping[str, Any], dataset: DatasetToDraw) -> tuple[list[Addition], list[str]]:
    """What was drawn since the folder was written, by case, and notes on files that were not read.

    A stroke that goes over an older one replaces it; one that was taken out is kept, as an empty drawing that is saved
    over the file would take out all of them. Voxels that were changed in a prediction are strokes too.

    Args:
        folder: as `write_folder` wrote it.
        state: what `read_state` told.
        dataset: as it is now.

    Raises:
        AttenScribbleError: every problem of every file.
    """
    problems: list[str] = []
    additions, notes = [], []
    written = set(state["files"])
    for name, entry in state["cases"].items():
        try:
            files = _find_drawn(folder / name, entry, state)
            if not any(files):
                continue
            case = dataset.training.get(name) or _find_case(name, entry, dataset)
            addition = _read_addition(folder, case, files, dataset.description.labels)
        except AttenScribbleError as error:
            problems += error.problems
            continue
        if addition is not None:
            additions.append(addition)
    for file in find_files(folder):
        inside, name = file.relative_to(folder).as_posix(), file.parent.name
        is_case = file.parent.parent == folder and name in state["cases"]
        is_read = is_case and file.name.startswith((f"{name}_strokes.", f"{name}_prediction."))
        if inside not in written and not is_read and not is_companion(file):
            saved = f"{name}_strokes" if is_case else "CASE/CASE_strokes"
            notes.append(f"{inside} is not read: strokes are saved as {saved}")
    refuse(problems)
    return additions, notes


def _find_case(name: str, entry: Mapping[str, Any], dataset: DatasetToDraw) -> CaseToDraw:
    if entry["is_training"]:
        raise AttenScribbleError(f"case {name}: is no training case of the dataset any more: remove its folder")
    images = [Path(file) for file in entry["images"]]
    gone = [str(file) for file in images if not file.is_file()]
    if gone:
        raise AttenScribbleError(f"{gone[0]}: the image that case {name} was drawn on is gone: put it back")
    case = dataset.open_further(name, images)
    for source in case.sources:  # the image becomes one to train with
        read_volume(source, describe(source, f"case {name}"), whole=False)
    return case


def list_seen(folder: Path, state: Mapping[str, Any] | None) -> dict[str, str]:
    """Digests of the drawings of a folder, by their places in it, in whatever format.

    The tool's own are written anew in each round; those in another format stay, and would count as drawn on top.

    Args:
        folder: as `write_folder` wrote it.
        state: what `read_state` told; of cases that are not in it, what was known before.
    """
    if state is None:
        return {}
    files = [
        file for name in state["cases"] for what in _DRAWN for file in _find_saved(folder / name, f"{name}_{what}")
    ]
    return {**state.get("seen", {}), **{file.relative_to(folder).as_posix(): sha256(file) for file in files}}


def note_read(folder: Path, state: Mapping[str, Any], additions: Sequence[Addition]) -> None:
    """Note down which drawings were brought in: a stroke that is then taken out of labelsTr does not come back."""
    read = [sha256(file) for addition in additions for file in addition.files]
    write_json(folder / STATE_FILE, {**state, "read": [*state.get("read", ()), *read]})


def _find_drawn(folder: Path, entry: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Path | None, Path | None]:
    """The strokes and the prediction of a case, each where it was changed since it was written or read."""
    strokes, prediction = (_find_changed(folder, f"{folder.name}_{what}", entry[what], state) for what in _DRAWN)
    return strokes, prediction


def _read_addition(
    folder: Path, case: CaseToDraw, files: tuple[Path | None, Path | None], labels: Mapping[str, int]
) -> Addition | None:
    name, unlabelled = case.identifier, len(labels)
    strokes_file, prediction_file = files
    before = case.read_strokes(labels)
    nothing = np.full_like(before, unlabelled)
    drawn = nothing if strokes_file is None else read_drawing(strokes_file, case.shown, labels, dense=False)
    corrected = nothing
    if prediction_file is not None:
        now = read_drawing(prediction_file, case.shown, labels, dense=True)
        corrected = np.where(now == _read_prediction(folder / name, name, now.shape), unlabelled, now)
    clash = (drawn != unlabelled) & (drawn != before) & (corrected != unlabelled) & (corrected != drawn)
    if clash.any():
        raise AttenScribbleError(
            f"{strokes_file}: {int(clash.sum())} voxels have another stroke than {prediction_file} was corrected to: "
            "take them out of one of the two"
        )
    new = np.where(corrected != unlabelled, corrected, drawn)
    merged = np.where(new != unlabelled, new, before).astype(np.uint8)
    if (merged == before).all():
        return None
    fresh = (before == unlabelled) & (merged != unlabelled)
    kept = 0 if strokes_file is None else int(((before != unlabelled) & (new == unlabelled)).sum())
    return Addition(
        case,
        case.turn(merged, to_nnunet=True)[0],
        {label: int((merged[fresh] == value).sum()) for label, value in labels.items()},
        int(((before != unlabelled) & (merged != before)).sum()),
        kept,
        tuple(file for file in files if file is not None),
    )


def _find_changed(folder: Path, name: str, written: str, state: Mapping[str, Any]) -> Path | None:
    """The one file of this name, in whatever format, whose digest is not known; None where there is none.

    Known is what was `written`, what was brought in since, and what lay there before.

    Raises:
        AttenScribbleError: several were, or one of a kind that is not read.
    """
    seen = state.get("seen", {})
    changed = [
        file
        for file in _find_saved(folder, name)
        if sha256(file) not in (written, *state.get("read", ()), seen.get(f"{folder.name}/{file.name}"))
    ]
    if problems := unusable_files(changed):
        raise AttenScribbleError(problems)
    changed = [file for file in changed if stem(file) is not None]  # without the voxels of a header
    if len(changed) > 1:
        raise AttenScribbleError(
            f"{changed[0]} and {changed[1].name} were both saved: keep the one that holds the strokes"
        )
    return changed[0] if changed else None


def _find_saved(folder: Path, name: str) -> list[Path]:
    return sorted(file for file in folder.glob(f"{escape(name)}.*") if file.is_file() and not is_companion(file))


def _read_prediction(folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As it was written."""
    file = folder / f".{name}.npz"
    try:
        with np.load(file) as content:
            prediction = content["prediction"]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise AttenScribbleError(f"{file}: cannot be read ({error}), and tells what was corrected: {_ADVICE}") from None
    if prediction.shape != shape:
        raise AttenScribbleError(f"{file}: is of another image than {name}: {_ADVICE}")
    return prediction


def _is_inside(name: str) -> bool:
    path = Path(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def _as_stored(source: Source) -> Source:
    """A channel in the order of its file: one of nnU-Net's readers turns NIfTI files round."""
    return as_readable(source.file) if isinstance(source, DatasetFile) and keeps_files(source.reader) else source


def add_strokes(raw: Path, preprocessed: Path, additions: Sequence[Addition], reader: Reader) -> None:
    """Write the labels of `additions` into a dataset; what is no training case yet becomes one.

    New cases are copied into imagesTr, or moved there from the dataset's own imagesTs, and belong to the training side
    of every fold. Everything is read and checked before the first file is changed, and all files change or none. The
    dataset's ID has to be `reserved` since its labels were read.

    Args:
        raw: DatasetNNN_Name in nnUNet_raw.
        preprocessed: its folder in nnUNet_preprocessed, if it is there: nnU-Net trains by its folds.
        additions: see `read_additions`.
        reader: of the dataset.

    Raises:
        AttenScribbleError: every problem.
    """
    raw, preprocessed = (Path(os.path.abspath(place)) for place in (raw, preprocessed))
    new = [addition for addition in additions if addition.case.label is None]
    images = [image for addition in new for image in addition.case.images]
    images += dict.fromkeys(sidecar for image in images if (sidecar := find_sidecar(image)) is not None)
    places = [place for place in (raw, preprocessed) if place.is_dir()]
    texts, problems = _grow_descriptions(places, new)
    provenance = _read_provenance(raw / "provenance.json", additions)
    problems += new_case_problems(raw, {addition.case.identifier: addition.case.images for addition in new})
    ending = texts.get(raw / "dataset.json", {}).get("file_ending")
    if ending is not None:  # or dataset.json is among the problems
        unwritten = [one.case.identifier for one in new if not _is_written(raw, one, ending, reader)]
        problems += stray_label_problems(raw, unwritten, ending)
    problems += folder_problems(*places)
    problems += [
        f"{file}: the label of case {addition.case.identifier} lies in another dataset: copy it into labelsTr, and "
        "correct dataset.json"
        for addition in additions
        if addition.case.label is not None and raw not in (file := _label_file(addition)).parents
    ]
    refuse(problems)
    texts = texts if new else {}
    texts |= {} if provenance is None else {raw / "provenance.json": provenance}
    with replaced_files(*places) as stage:
        for addition in additions:  # labels first: nnU-Net passes over a label without an image, and not the reverse
            is_new = addition.case.label is None
            name = f"{addition.case.identifier}{ending}"
            _write_label(addition, stage(raw / "labelsTr" / name if is_new else _label_file(addition)), reader)
        for image in images:
            shutil.copyfile(image, stage(raw / "imagesTr" / image.name))
        for file, content in texts.items():
            stage(file).write_text(encode_json(content), encoding="utf-8")
    for image in images:
        if image.parent.resolve() == (raw / "imagesTs").resolve():  # where it lies, wherever it may link to
            image.unlink()


def _grow_descriptions(places: Sequence[Path], new: Sequence[Addition]) -> tuple[dict[Path, Any], list[str]]:
    """The contents of the dataset.json and splits_final.json of `places` with the cases of `new`, and every problem."""
    texts: dict[Path, Any] = {}
    problems = []
    for place in places:
        try:
            if (place / "dataset.json").is_file():
                texts[place / "dataset.json"] = _add_cases(read_dataset_json(place / "dataset.json"), new)
            if (place / _SPLITS).is_file():
                texts[place / _SPLITS] = _add_to_folds(read_splits_json(place / _SPLITS), new)
        except AttenScribbleError as error:
            problems += error.problems
    return texts, problems


def new_case_problems(raw: Path, images: Mapping[str, Sequence[Path]]) -> list[str]:
    """What keeps cases from becoming training cases.

    Args:
        raw: the dataset.
        images: files of each case.
    """
    problems = identifier_problems(list(images))
    tested = [*(raw / "labelsTs").iterdir()] if (raw / "labelsTs").is_dir() else []
    for case, files in images.items():
        if any(file.name.startswith(f"{case}.") for file in tested):
            problems.append(
                f"case {case}: is a test case, with a dense label in {raw / 'labelsTs'}: a model that was trained with "
                "it cannot be scored with it; give other images"
            )
        for file in files:
            place = raw / "imagesTr" / file.name
            if place.is_file() and place.read_bytes() != file.read_bytes():
                problems.append(f"{file}: {place} is another image of this name: rename one of the two")
    return problems


def stray_label_problems(raw: Path, cases: Iterable[str], ending: str) -> list[str]:
    """Labels that lie where those of new cases would be written, and that nnU-Net passes over.

    Args:
        raw: the dataset.
        cases: that are no training cases.
        ending: of the dataset's files.
    """
    files = {case: raw / "labelsTr" / f"{case}{ending}" for case in cases}
    return [
        f"{file}: lies there already, and {case} is no training case: put its image into imagesTr, and list it in "
        "dataset.json where that lists cases, or move this label away"
        for case, file in files.items()
        if file.exists()
    ]


def _label_file(addition: Addition) -> Path:
    """Of a training case."""
    file = file_of(addition.case.label)
    assert file is not None  # nnU-Net's datasets have files
    return Path(os.path.abspath(file))


def _add_cases(content: dict[str, Any], new: Sequence[Addition]) -> dict[str, Any]:
    """A dataset.json with more cases."""
    if "numTraining" in content:
        content["numTraining"] += len(new)
    for addition in new if "dataset" in content else ():
        name = addition.case.identifier
        images = [f"imagesTr/{image.name}" for image in addition.case.images]
        content["dataset"][name] = {"images": images, "label": f"labelsTr/{name}{content['file_ending']}"}
    return content


def _add_to_folds(folds: list[dict[str, list[str]]], new: Sequence[Addition]) -> list[dict[str, list[str]]]:
    names = [addition.case.identifier for addition in new]
    return [
        {**fold, "train": [*fold["train"], *(name for name in names if name not in (*fold["train"], *fold["val"]))]}
        for fold in folds
    ]


def _is_written(raw: Path, addition: Addition, ending: str, reader: Reader) -> bool:
    """Whether a label is there that holds what is to be written, as a kill leaves it before its image is moved."""
    file = raw / "labelsTr" / f"{addition.case.identifier}{ending}"
    try:
        (source,) = open_files([file], reader, label=True)
        label = read_volume(source, str(file), label=True)
    except AttenScribbleError:
        return False
    return np.array_equal(as_volume(sitk.GetArrayFromImage(label)), addition.label)


def _read_provenance(file: Path, additions: Sequence[Addition]) -> dict[str, Any] | None:
    """With what is added; None where there is none that could be added to."""
    try:
        content = read_json(file, "") if file.is_file() else None
    except AttenScribbleError:
        return None
    if not isinstance(content, dict):
        return None
    rounds = content.get("strokes_added")
    added = {addition.case.identifier: dict(addition.added) for addition in additions}
    return {**content, "strokes_added": [*(rounds if isinstance(rounds, list) else []), added]}


def _write_label(addition: Addition, target: Path, reader: Reader) -> None:
    label, case = addition.label, addition.case
    grid = case.read_grid(as_nnunet=True)
    label = label if len(grid.size) == 3 else label[0]
    if reader is not None:
        like = file_of(case.label) if case.label is not None else case.images[0]
        assert like is not None
        write_label(label, like, target, reader)
        return
    write_volume(grid.put(sitk.GetImageFromArray(label)), target)
