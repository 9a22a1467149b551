"""A trained nnU-Net model, cases as it sees them, what it predicts for one, and how sure it is of every voxel."""

from __future__ import annotations

import glob
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_attenscribble.common.nnunet import VARIABLE, name_values, read_dataset_json, trainers_folder
from nnunet_attenscribble.common.shapes import TEXT, check_shape, mapping
from nnunet_attenscribble.common.text import list_some, tell_error
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.plans import read_plans

if TYPE_CHECKING:
    import numpy as np
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from torch import Tensor

    from nnunet_attenscribble.common.grids import Grid

_PLANS = mapping({"dataset_name": TEXT, "image_reader_writer": TEXT})  # what is read of a model's, besides all plans'

_UNKNOWN_TRAINER = re.compile(r"Could not find requested nnunet trainer (\w+)")  # as nnU-Net says it

Window = tuple[slice, ...]  # over the axes of a prepared case; of a 2D model, one plane


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case.

    Attributes:
        images: of all channels, in one or in several files.
        labels: a label map of the same grid, or None.
    """

    images: list[Path]
    labels: Path | None


@dataclass(frozen=True)
class PreparedCase:
    """A case as nnU-Net's preprocessing leaves it, padded to the patch.

    Attributes:
        image: (M, *S) float32, S of three axes.
        labels: (*S) int64, -1 where the padding is; None where none were given.
        spacing: millimetres along the last two axes.
        axis: of the files' arrays, which is the first one here; the others follow in order.
        grid: of the files, as nnU-Net reads them; None where they do not tell.
    """

    image: Tensor
    labels: Tensor | None
    spacing: tuple[float, float]
    axis: int
    grid: Grid | None


@dataclass(frozen=True)
class ModelPlace:
    """A trained fold of a model, by nnU-Net's names.

    Attributes:
        folder: TRAINER__PLANS__CONFIGURATION in nnUNet_results.
    """

    folder: Path
    fold: str
    checkpoint: str

    @property
    def names(self) -> tuple[str, str, str]:
        """Of trainer, plans and configuration."""
        trainer, plans, configuration = self.folder.name.split("__", 2)
        return trainer, plans, configuration

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return self.folder / f"fold_{self.fold}" / self.checkpoint

    def __str__(self) -> str:
        return "-tr {} -p {} -c {} -f {}".format(*self.names, self.fold)


def find_model(
    folder: Path,
    *,
    trainer: str | None = None,
    plans: str | None = None,
    configuration: str | None = None,
    fold: str | None = None,
    checkpoint: str = "checkpoint_final.pth",
) -> ModelPlace:
    """The one fold that was trained on a dataset, or that is left by what is given.

    Args:
        folder: of the dataset in nnUNet_results.
        trainer, plans, configuration, fold: as nnU-Net's commands take them; None: any.
        checkpoint: file that must be there.

    Raises:
        AttenScribbleError: there is none, or several.
    """
    given = {"-tr": trainer, "-p": plans, "-c": configuration, "-f": fold}
    every = [
        ModelPlace(file.parents[1], file.parent.name.removeprefix("fold_"), checkpoint)
        for file in sorted(folder.glob(f"*__*__*/fold_*/{glob.escape(checkpoint)}"))
    ]
    found = [
        place
        for place in every
        if all(value in (None, own) for value, own in zip(given.values(), (*place.names, place.fold), strict=True))
    ]
    if len(found) == 1:
        return found[0]
    asked = " ".join(f"{option} {value}" for option, value in given.items() if value is not None)
    if found:
        raise AttenScribbleError(
            f"{folder} holds {len(found)} trained models{f' of {asked}' if asked else ''}: choose one: "
            + "; ".join(map(str, found))
        )
    there = f"; there are: {'; '.join(map(str, every))}" if every else ": train one, or name another with -chk"
    raise AttenScribbleError(f"{folder} holds no {checkpoint}{f' of {asked}' if asked else ''}{there}")


class TrainedModel:
    """A model folder of nnU-Net.

    Attributes:
        predictor: nnU-Net's own.
        network: with its weights, in inference.
        folder, fold, checkpoint: where it comes from.
    """

    def __init__(self, folder: Path, fold: str, checkpoint: str, device: torch.device):
        self.folder, self.fold, self.checkpoint, self.device = folder, fold, checkpoint, device
        self.predictor = _load(folder, fold, checkpoint, device)
        network = self.predictor.network
        self.network = getattr(network, "_orig_mod", network).to(device).eval()  # what nnUNet_compile wraps

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Of the network's input; two or three axes."""
        return tuple(self.predictor.configuration_manager.patch_size)

    @cached_property
    def reader(self) -> type:
        """nnU-Net's class that reads the model's images; raises AttenScribbleError where the plans name none."""
        with _calls_of_nnunet(f"{self.folder / 'plans.json'}: names no reader of images"):
            return self.predictor.plans_manager.image_reader_writer_class

    @property
    def label_names(self) -> list[str]:
        """By the value of a label; values that only regions hold are called after their number."""
        return name_values(self.predictor.dataset_json["labels"], 1 + max(self.predictor.label_manager.all_labels))

    def find_cases(
        self, images: Path, labels: Path | None = None, chosen: Sequence[str] | None = None
    ) -> dict[str, CaseFiles]:
        """The cases of a folder by their identifiers.

        Args:
            images: folder of images, named as nnU-Net wants them: CASE_0000.nii.gz and so on.
            labels: folder of a label map for each of them.
            chosen: identifiers of some of them; by default all.

        Raises:
            AttenScribbleError: no images, files of no channel, other channels than the model has, or none for a label;
                every problem.
        """
        refuse(
            f"{kind} {folder} is not a folder"
            for kind, folder in (("--images", images), ("--labels", labels))
            if folder is not None and not folder.is_dir()
        )
        problems = []
        ending = self.predictor.dataset_json["file_ending"]
        found, strays = _group_channels(images, ending)
        if not found:
            problems.append(f"{images} has no file that ends like CASE_0000{ending}: give the folder of images")
        elif strays and not chosen:
            problems.append(
                f"{images} has files of no channel ({list_some(strays)}): name them like CASE_0000{ending}, or move "
                "them"
            )
        for name in chosen or ():
            if name not in found and found:
                problems.append(f"--case {name} has no image in {images}; there are {list_some(list(found))}")
        found = {name: own for name, own in found.items() if not chosen or name in chosen}
        for name, own in found.items():
            problems += self._list_channel_problems(name, own)
            if labels is not None and not (labels / f"{name}{ending}").is_file():
                problems.append(f"{name} has no dense label in {labels}: add {name}{ending}, or leave out --labels")
        refuse(problems)
        return {
            name: CaseFiles(list(own.values()), labels and labels / f"{name}{ending}") for name, own in found.items()
        }

    def _list_channel_problems(self, name: str, files: Mapping[int, Path]) -> list[str]:
        channels, folder = len(self.predictor.dataset_json["channel_names"]), next(iter(files.values())).parent
        if list(files) != list(range(len(files))):
            told = ", ".join(f"{channel:04d}" for channel in files)
            return [f"{name} has the channels {told} in {folder}: they count from 0000 without a gap"]
        try:
            # A file may hold several channels, as a picture in colours does; only then need it be read to know.
            found = len(files) if len(files) == channels else self._count_channels(list(files.values()))
        except AttenScribbleError as error:
            return error.problems
        return [] if found == channels else [f"{name} has {found} channels in {folder}, the model has {channels}"]

    def _count_channels(self, images: list[Path]) -> int:
        """How many channels nnU-Net reads from the files of a case."""
        with _calls_of_nnunet(f"{images[0]} cannot be read"):
            pixels, _ = self.reader().read_images(list(map(str, images)))
        return len(pixels)

    def prepare(self, images: list[Path], labels: Path | None) -> PreparedCase:
        """Preprocess a case with nnU-Net's own preprocessor.

        Args:
            images: of all channels, in one or in several files.
            labels: a label map that lies on them, in whatever order of axes.

        Raises:
            AttenScribbleError: files that nnU-Net cannot read, or that do not lie on each other.
        """
        import torch
        from acvl_utils.cropping_and_padding.padding import pad_nd_image

        own = self.predictor
        configured = own.configuration_manager
        known, grid = self._read_labels(images, labels)
        with _calls_of_nnunet(f"{images[0]} cannot be preprocessed"):
            pixels, properties = self.reader().read_images(list(map(str, images)))
            image, found, *_ = configured.preprocessor_class(verbose=False).run_case_npy(
                pixels, known, properties, own.plans_manager, configured, own.dataset_json
            )
        padded = pad_nd_image(image, self.patch_size, "constant", {"constant_values": 0})
        padded_labels = None
        if known is not None:
            # Outside of the non-zero part of an image nnU-Net writes -1, which is background; so is no padding.
            inside = found[0].clip(min=0).astype("int64")
            padded_labels = torch.from_numpy(pad_nd_image(inside, self.patch_size, "constant", {"constant_values": -1}))
        down, across = configured.spacing[-2:]
        spacing, axis = (float(down), float(across)), own.plans_manager.transpose_forward[0]
        return PreparedCase(torch.from_numpy(padded).float(), padded_labels, spacing, axis, grid)

    def _read_labels(self, images: list[Path], labels: Path | None) -> tuple[np.ndarray | None, Grid | None]:
        """Labels (1, Z, Y, X) in the order of the images' voxels, as nnU-Net reads these; all of them are compared.

        Returns:
            with them the grid of the images, see `PreparedCase`.
        """
        from nnunet_attenscribble.common.formats import holds_place
        from nnunet_attenscribble.common.grids import Grid, geometry_problems, turn_onto
        from nnunet_attenscribble.common.readers import as_reader, open_files, read_label
        from nnunet_attenscribble.common.volumes import describe, label_values, read_volume, unscale_label

        reader = as_reader(self.reader)
        sources = open_files(images, reader, channels=len(self.predictor.dataset_json["channel_names"]))
        names = [describe(source, "") for source in sources]
        first, *others = (read_volume(source, name, whole=False) for source, name in zip(sources, names, strict=True))
        problems = [
            problem
            for image, name in zip(others, names[1:], strict=True)
            for problem in geometry_problems(first, image, name, names[0], as_stored=True)
        ]
        known = None
        if labels is not None:
            label = read_label(labels, reader)
            problems += geometry_problems(first, label, str(labels), names[0])
            if not problems:
                values = turn_onto(label_values(unscale_label(label)[0], str(labels)), label, first)
                known = values.astype("float32").reshape(1, -1, *values.shape[-2:])
        refuse(problems)
        return known, Grid.of(first) if holds_place(images[0]) else None

    def list_windows(self, shape: tuple[int, ...]) -> Iterator[Window]:
        """The windows over a prepared case (three axes), as few as cover it; of a 2D model, plane by plane."""
        from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

        planes = [slice(plane, plane + 1) for plane in range(shape[0])] if len(self.patch_size) == 2 else [None]
        steps = compute_steps_for_sliding_window(shape[-len(self.patch_size) :], self.patch_size, 1.0)
        for plane, *starts in product(planes, *steps):
            inside = [slice(start, start + size) for start, size in zip(starts, self.patch_size, strict=True)]
            yield tuple(inside) if plane is None else (plane, *inside)

    def describe(self) -> dict[str, str | None]:
        """What it is, for provenance."""
        from nnunet_attenscribble.common.provenance import find_commit
        from nnunet_attenscribble.common.volumes import sha256

        return {
            "model": str(self.folder),
            "dataset": self.predictor.plans_manager.dataset_name,
            "trainer": self.predictor.trainer_name,
            "configuration": self.folder.resolve().name.rpartition("__")[2],
            "fold": self.fold,
            "checkpoint": self.checkpoint,
            "plans_sha256": sha256(self.folder / "plans.json"),
            "commit": find_commit(),
        }


def read_device(name: str | None) -> torch.device:
    """The device of that name; of None cuda where there is one, and else the processor.

    Raises:
        AttenScribbleError: for one that nnU-Net does not know, or that is not there.
    """
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda", "mps"):
        raise AttenScribbleError(f"--device {name}: nnU-Net knows cpu, cuda and mps")
    if (name == "cuda" and not torch.cuda.is_available()) or (name == "mps" and not torch.backends.mps.is_available()):
        raise AttenScribbleError(f"--device {name}: torch finds none here; leave it out for the processor")
    return torch.device(name)


@dataclass(frozen=True, eq=False)
class CasePrediction:
    """A case on the grid of its image, (Z, Y, X), in the order in which nnU-Net reads its voxels.

    Attributes:
        labels: nnU-Net's prediction, the mean over mirrorings of the whole image.
        entropy: of that prediction, see `voxel_entropy`.
        disagreement: of the mirrorings, see `measure_doubt`.
    """

    labels: np.ndarray
    entropy: np.ndarray
    disagreement: np.ndarray


def predict_case(model: TrainedModel, images: list[Path]) -> CasePrediction:
    """Predict by nnU-Net's own predictor, one mirroring at a time.

    Raises:
        AttenScribbleError: files that nnU-Net cannot read.
    """
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    predictor = model.predictor
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    with _calls_of_nnunet(f"{images[0]} cannot be predicted"):
        data, _, properties = configuration.preprocessor_class(verbose=False).run_case(
            list(map(str, images)), None, plans, configuration, predictor.dataset_json
        )
        logits = _predict_mirrored(predictor, torch.as_tensor(data))
        nonlinearity, regions = predictor.label_manager.apply_inference_nonlin, predictor.label_manager.has_regions
        mean, entropy, disagreement = measure_doubt(logits, nonlinearity, regions=regions)
        labels = convert_predicted_logits_to_segmentation_with_correct_shape(
            mean, plans, configuration, predictor.label_manager, properties
        )
        maps = _to_image(torch.stack((entropy, disagreement)), predictor, properties)
    return CasePrediction(labels, maps[0], maps[1])


def measure_doubt(
    logits: Iterable[Tensor], nonlinearity: Callable[[Tensor], Tensor], *, regions: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean prediction, its entropy, and by how much the mirrorings disagree; one mirroring is held at a time.

    Disagreement is the mutual information of class and mirroring, H(mean p) - mean H(p) (Houlsby et al. 2011): 0 where
    all of them say the same, be it that nobody knows.

    Args:
        logits: (K, *S) of each mirroring, at least one.
        nonlinearity: from logits to probabilities.
        regions: K probabilities of their own, which need not sum up to 1.

    Returns:
        the mean logits (K, *S) and two maps (*S), from 0 to 1.
    """
    import torch

    means: tuple[Tensor, ...] | None = None
    count = 0
    for each in logits:
        count += 1  # noqa: SIM113 (`enumerate` would hold one while the next is made)
        if means is None:
            whole = torch.zeros_like(each, dtype=torch.float)
            means = torch.zeros_like(each), whole, whole[0].clone()
        mean, mixed, own = means
        # Plane by plane, as float32 probabilities take several times the memory of nnU-Net's logits; and means that run
        # along, as sums of halves overflow, and before that lose their last digits.
        for plane, *so_far in zip(each.unbind(1), mean.unbind(1), mixed.unbind(1), own, strict=True):
            exact = plane.float()
            probabilities = nonlinearity(exact)
            found = exact, probabilities, voxel_entropy(probabilities, regions=regions)
            for running, new in zip(so_far, found, strict=True):
                running += (new - running) / count
        del each, plane, exact, found  # the first is as large as the next prediction
    assert means is not None
    disagreement = (voxel_entropy(mixed, regions=regions) - own).clamp(min=0)
    del mixed, means
    planes = [voxel_entropy(nonlinearity(plane.float()), regions=regions) for plane in mean.unbind(1)]
    return mean, torch.stack(planes), disagreement


def voxel_entropy(probabilities: Tensor, *, regions: bool) -> Tensor:
    """Entropy (*S) of probabilities (K, *S): 0 where one class is sure, 1 where all are equally likely.

    Of regions it is the mean over the regions, each of which is there or not.
    """
    import torch

    total = torch.zeros_like(probabilities[0])
    for one in probabilities:  # which takes the memory of one class, not of all
        total += torch.special.entr(one)
        if regions:
            total += torch.special.entr(1 - one)
    return total / (len(probabilities) * math.log(2) if regions else math.log(len(probabilities)))


def _group_channels(folder: Path, ending: str) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """Files by case and channel, and the names of those with this ending that are of no channel."""
    channel = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(ending) and file.name[0] != ".")
    found: dict[str, dict[int, Path]] = {}
    strays = []
    for name in names:
        match = channel.fullmatch(name)
        if match is None:
            strays.append(name)
        else:
            found.setdefault(match[1], {})[int(match[2])] = folder / name
    return found, strays


def _load(folder: Path, fold: str, checkpoint: str, device: torch.device) -> nnUNetPredictor:
    refuse(
        f"{folder / name} is not there: give a folder TRAINER__PLANS__CONFIGURATION of nnUNet_results"
        for name in ("dataset.json", "plans.json")
        if not (folder / name).is_file()
    )
    file = ModelPlace(folder, fold, checkpoint).file
    if not file.is_file():
        raise AttenScribbleError(f"{file} is not there: train this fold, or name another with --fold")
    again = "copy it from the model again"
    description = read_dataset_json(folder / "dataset.json", again)
    check_shape(read_plans(folder / "plans.json", again), _PLANS, folder / "plans.json", again)
    try:
        with _trainers_known(), _calls_of_nnunet(f"{file.parent} cannot be loaded"):
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

            predictor = nnUNetPredictor(device=device, perform_everything_on_device=False, allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(folder), (fold,), checkpoint)
    except AttenScribbleError as error:
        if (unknown := _UNKNOWN_TRAINER.match(str(error.__cause__))) is None:
            raise
        raise AttenScribbleError(
            f"{file}: its trainer {unknown[1]} is none of nnU-Net's or of this package's, nor in a folder that "
            f"{VARIABLE} names ({os.environ.get(VARIABLE) or 'it is unset'}): add the folder with its class there"
        ) from None
    predictor.dataset_json = description  # with `channel_names`, whatever they were called
    if predictor.configuration_manager.previous_stage_name is not None:
        raise AttenScribbleError(
            f"{folder} is the second stage of a cascade, which also sees a prediction: give the model of another "
            "configuration"
        )
    return predictor


@contextmanager
def _calls_of_nnunet(problem: str) -> Iterator[None]:
    """For a while nnU-Net prints nothing, and what it cannot do with a file is told as an AttenScribbleError."""
    with redirect_stdout(io.StringIO()):
        try:
            yield
        except Exception as error:  # its readers and preprocessors, and torch at a damaged checkpoint, raise anything
            raise AttenScribbleError(f"{problem} ({tell_error(error)})") from error


@contextmanager
def _trainers_known() -> Iterator[None]:
    """For a while, nnU-Net finds the trainers of this package too."""
    before = os.environ.get(VARIABLE)
    own = [path for path in (before or "").split(os.pathsep) if path]
    if str(trainers_folder()) not in own:
        os.environ[VARIABLE] = os.pathsep.join([str(trainers_folder()), *own])
    try:
        yield
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})


def _predict_mirrored(predictor: Any, data: Tensor) -> Iterator[Tensor]:
    """Logits (K, *S) of each mirroring that the model was trained for, turned back; the image itself comes first."""
    mirrored_axes = (predictor.allowed_mirroring_axes or ()) if predictor.use_mirroring else ()
    axes = [axis + data.ndim - len(predictor.configuration_manager.patch_size) for axis in mirrored_axes]
    before, predictor.use_mirroring = predictor.use_mirroring, False
    try:
        for mirrored in chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)):
            # Without a name, which would hold it while the next one is predicted.
            yield predictor.predict_logits_from_preprocessed_data(data.flip(mirrored)).flip(mirrored)
    finally:
        predictor.use_mirroring = before


def _to_image(maps: Tensor, predictor: Any, properties: dict[str, Any]) -> np.ndarray:
    """Maps (N, *S) of the preprocessed case on the grid of its image, as nnU-Net brings its probabilities there."""
    import numpy as np
    from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image

    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    own = configuration.spacing if len(configuration.spacing) == len(shape) else [spacing[0], *configuration.spacing]
    resampled = configuration.resampling_fn_probabilities(maps, shape, own, spacing)
    placed = np.zeros((len(maps), *properties["shape_before_cropping"]), np.float32)
    for each, target in zip(np.asarray(resampled), placed, strict=True):
        insert_crop_into_image(target, each, properties["bbox_used_for_cropping"])
    return placed.transpose(0, *(axis + 1 for axis in plans.transpose_backward)).clip(0, 1)
