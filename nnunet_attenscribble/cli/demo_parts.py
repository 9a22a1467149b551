"""What the demo consists of: its places, its datasets, its trainings, and their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import find_files, finish_interrupted, unpacked, write_json, write_text
from nnunet_attenscribble.common.nnunet import FOLDERS, trainers_folder
from nnunet_attenscribble.dataset_conversion.acdc import convert_acdc
from nnunet_attenscribble.dataset_conversion.phantom import make_phantom, phantom_index, write_phantoms
from nnunet_attenscribble.dataset_conversion.raw_dataset import Writing, WrittenDatasets
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.benchmark.workspace import (
    Model,
    Step,
    clear_before,
    command_step,
    nnunet_environment,
    predict_step,
    train_step,
)
from nnunet_attenscribble.evaluation.compare import compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import WRITERS
from nnunet_attenscribble.evaluation.evaluate import evaluate_folder
from nnunet_attenscribble.evaluation.report.pictures import Panel, draw_case, find_largest_slice
from nnunet_attenscribble.evaluation.summary import Summary, write_summary
from nnunet_attenscribble.plans import add_cpu_configuration, read_plans, resolve_configuration

_ID, _DENSE_ID = 901, 902
_CONFIGURATION = "2d_cpu"
_METHOD, _REFERENCE = "AttenScribble", "nnU-Net on dense labels"
_PICTURES = 6


@dataclass(frozen=True)
class Places:
    """Where the demo keeps what.

    Attributes:
        folder: of the demo.
        acdc: the unpacked download; None for the phantom.
        scribbles: of its patients.
    """

    folder: Path
    acdc: Path | None
    scribbles: Path | None

    @property
    def name(self) -> str:
        """Of the datasets."""
        return "ACDC" if self.acdc else "Phantom"

    @property
    def scribble(self) -> str:
        """`DatasetNNN_Name` of the dataset with scribbles."""
        return f"Dataset{_ID}_{self.name}"

    @property
    def dense(self) -> str:
        """That of its dense twin."""
        return f"Dataset{_DENSE_ID}_{self.name}Dense"

    @property
    def raw(self) -> Path:
        """nnUNet_raw."""
        return self.folder / FOLDERS[0]

    @property
    def preprocessed(self) -> Path:
        """nnUNet_preprocessed."""
        return self.folder / FOLDERS[1]

    @property
    def results(self) -> Path:
        """nnUNet_results."""
        return self.folder / FOLDERS[2]

    def plans(self, dataset: str) -> Path:
        """The plans file of a dataset."""
        return self.preprocessed / dataset / "nnUNetPlans.json"

    def predictions(self, model: str) -> Path:
        """The folder that a model predicts into, with its scores."""
        return self.folder / "predictions" / _file_name(model)

    def log(self, name: str) -> Path:
        """What a command printed."""
        return self.folder / "logs" / f"{_file_name(name)}.log"

    def make_environment(self) -> dict[str, str]:
        """For nnU-Net's commands; the user's own folders are left alone."""
        environment = nnunet_environment(
            raw=self.raw, preprocessed=self.preprocessed, results=self.results, trainers=trainers_folder()
        )
        environment["nnUNet_n_proc_DA"] = "1"
        # Threads that wait for each other by spinning are slow wherever something else runs too.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        return environment


@dataclass(frozen=True)
class Datasets:
    """A dataset with scribbles and its dense twin: written, planned, and given one small network."""

    places: Places
    epochs: int

    def write(self) -> WrittenDatasets | None:
        """Write the raw datasets; None if they are there."""
        places = self.places
        finish_interrupted(places.raw, f"{_ID:03d}")
        if (places.raw / places.scribble).is_dir() and (places.raw / places.dense).is_dir():
            return None
        ids: dict[str, Any] = {"dataset_id": _ID, "dense_id": _DENSE_ID, "name": places.name}
        if places.acdc is None or places.scribbles is None:
            return write_phantoms(raw_folder=places.raw, **ids)
        return convert_acdc(
            places.acdc, places.scribbles, **ids, test="maag-validation", writing=Writing(places.raw, progress=True)
        )

    def plan_steps(self) -> list[Step]:
        """nnU-Net's planning of each."""
        command = ["nnUNetv2_plan_and_preprocess", "-c", "2d", "--no_pp", "--verify_dataset_integrity", "-npfp", "1"]
        return [
            command_step(
                f"nnU-Net's planning of {dataset}",
                [*command, "-d", number],
                self.places.log(f"plan {dataset}"),
                [self.places.plans(dataset)],
            )
            for number, dataset in self._names.items()
        ]

    def configure(self) -> None:
        """Give both datasets one configuration for the CPU.

        Raises:
            AttenScribbleError: the two came out different.
        """
        resolved = []
        for dataset in self._names.values():
            file = self.places.plans(dataset)
            plans = read_plans(file)
            if _CONFIGURATION not in plans["configurations"]:
                plans = add_cpu_configuration(plans, "2d", _CONFIGURATION, **self._choose_network())
                write_json(file, plans)
            resolved.append(resolve_configuration(plans, _CONFIGURATION))
        if resolved[0] != resolved[1]:
            raise AttenScribbleError(
                f"the configurations {_CONFIGURATION} of {' and '.join(self._names.values())} differ, which would "
                f"compare networks instead of supervision: remove {self.places.preprocessed} and call this again"
            )

    def preprocess_steps(self) -> list[Step]:
        """nnU-Net's preprocessing of each."""
        return [
            command_step(
                f"nnU-Net's preprocessing of {dataset}",
                ["nnUNetv2_preprocess", "-d", number, "-c", _CONFIGURATION, "-np", "1"],
                self.places.log(f"preprocess {dataset}"),
                [self.places.preprocessed / dataset / f"nnUNetPlans_{_CONFIGURATION}"],
            )
            for number, dataset in self._names.items()
        ]

    @property
    def _names(self) -> dict[str, str]:
        """By number."""
        return {str(_ID): self.places.scribble, str(_DENSE_ID): self.places.dense}

    def _choose_network(self) -> dict[str, Any]:
        if self.places.acdc:
            return {"settings": {"num_epochs": self.epochs}}
        return choose_phantom_network(num_epochs=self.epochs, num_val_iterations_per_epoch=10)


def choose_phantom_network(**settings: Any) -> dict[str, Any]:
    """Arguments of `add_cpu_configuration` for phantoms, with further settings of the method."""
    # The phantom is drawn as coarse as `configure --cpu` makes a scan, so the window is that of there.
    window = {"similarity_radius": 2, "similarity_sigma_position": 3.0}
    # With 8 to 64 features one training in four had hardly begun to learn; 16 to 128 make the demo longer.
    # nnU-Net plans patches of 64, wider than phantoms are; with 48, partial CE has led.
    # Batches of 4 take a fifth longer.
    small = {"spacing_factor": 1.0, "batch_size": 3, "features": (12, 24, 48, 96), "patch_size": (56, 56)}
    return {"settings": settings | window, **small}


class Trainings:
    """The models that are compared.

    Attributes:
        models: by the name that the comparison has them under.
    """

    def __init__(self, places: Places, epochs: int, stock_trainer: str, device: str):
        self._places, self._epochs, self._device = places, epochs, device
        # All 35 training patients of ACDC are used, as in the literature; the phantom keeps some for validation.
        fold = "all" if places.acdc else "0"
        self.models = {
            _METHOD: Model(places.scribble, _CONFIGURATION, "nnUNetTrainerAttenScribble", fold),
            "partial CE": Model(places.scribble, _CONFIGURATION, "nnUNetTrainerPartialCE", fold),
            _REFERENCE: Model(places.dense, _CONFIGURATION, stock_trainer, fold),
        }

    def train_steps(self) -> list[Step]:
        """A training each."""
        results, log = self._places.results, self._places.log
        trainings = [
            train_step(name, model, results, log(f"train {name}"), epochs=self._epochs, device=self._device)
            for name, model in self.models.items()
        ]
        return list(map(clear_before, trainings, self.predict_steps()))

    def predict_steps(self) -> list[Step]:
        """Predictions of the cases to test with."""
        places = self._places
        return [
            predict_step(
                f"predictions of {name}",
                model,
                places.results,
                places.raw / places.scribble / "imagesTs",
                places.predictions(name),
                places.log(f"predict {name}"),
                device=self._device,
            )
            for name, model in self.models.items()
        ]


class Comparison:
    """Scores, tables and pictures of what was predicted.

    Attributes:
        summaries: scores by the model's name.
    """

    def __init__(self, places: Places, models: Sequence[str]):
        self._places = places
        self._raw = places.raw / places.scribble
        self.summaries: Mapping[str, Summary] = {
            name: evaluate_folder(places.predictions(name), self._raw / "labelsTs", workers=1, all_cases=True)
            for name in models
        }

    def write(self) -> str:
        """Write the scores and their comparison; returns it as Markdown."""
        for name, summary in self.summaries.items():
            write_summary(summary, self._places.predictions(name))
        subject = "patient[0-9]+" if self._places.acdc else None
        ordered = {_REFERENCE: self.summaries[_REFERENCE], **self.summaries}
        comparison = compare_summaries(ordered, _REFERENCE, subject=subject)
        for ending, convert in WRITERS.items():
            write_text(self._places.folder / f"comparison{ending}", convert(comparison))
        return WRITERS[".md"](comparison)

    def draw(self) -> None:
        """Pictures of cases from the best to the worst for the method."""
        cases = self.summaries[_METHOD].cases
        ranked = sorted(cases, key=lambda case: -np.nanmean([scores.dice for scores in cases[case].values()]))
        chosen = np.unique(np.linspace(0, len(ranked) - 1, _PICTURES).round().astype(int))
        scribbles = self._read_scribbles([ranked[rank] for rank in chosen])
        for rank in chosen:
            case = ranked[rank]
            file = self._places.folder / "pictures" / f"{rank + 1:02d}_{case}.png"
            self._draw_case(file, case, scribbles.get(case))

    def _draw_case(self, file: Path, case: str, scribble: np.ndarray | None) -> None:
        image = sitk.ReadImage(str(self._raw / "imagesTs" / f"{case}_0000.nii.gz"))
        truth = _read_labels(self._raw / "labelsTs", case)
        panels = [Panel("scan")]
        if scribble is not None:
            panels.append(Panel("scribble\n(unseen by the models)", scribble, unlabelled=4))
        for name, summary in self.summaries.items():
            dice = ", ".join(f"{structure} {scores.dice:.2f}" for structure, scores in summary.cases[case].items())
            panels.append(Panel(f"{name}\nDice {dice}", _read_labels(self._places.predictions(name), case)))
        panels.append(Panel("dense label", truth))
        structures = self.summaries[_METHOD].structures
        draw_case(
            file,
            sitk.GetArrayFromImage(image),
            panels,
            spacing=image.GetSpacing()[::-1],
            structures={structure.name: structure.values[0] for structure in structures},
            position=find_largest_slice(truth),
            title=f"{case}, not seen in training",
        )

    def _read_scribbles(self, cases: Sequence[str]) -> dict[str, np.ndarray]:
        """Scribbles of test cases, which the datasets leave out: models are not given them."""
        if self._places.scribbles is None:
            return {case: make_phantom(phantom_index(case)).scribble for case in cases}
        with unpacked(self._places.scribbles) as folder:
            files = {file.name.partition("_scribble")[0]: file for file in find_files(folder)}
            return {case: sitk.GetArrayFromImage(sitk.ReadImage(str(files[case]))) for case in cases if case in files}


def _read_labels(folder: Path, case: str) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{case}.nii.gz")))


def _file_name(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "")
