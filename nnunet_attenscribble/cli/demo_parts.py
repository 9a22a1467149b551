"""What the demo consists of: datasets, trainings, and their comparison, in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import find_files, finish_interrupted, unpacked, write_json, write_texts
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
class Parts:
    """A dataset with scribbles and its dense twin, the models that are trained with them, and how they compare.

    Attributes:
        folder: of the demo.
        acdc: the unpacked download; None for the phantom.
        scribbles: of its patients.
        epochs: of each training.
        stock_trainer: nnU-Net's own of so many epochs.
        device: to train and predict on.
    """

    folder: Path
    acdc: Path | None
    scribbles: Path | None
    epochs: int
    stock_trainer: str
    device: str

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

    @property
    def datasets(self) -> tuple[str, str]:
        """`DatasetNNN_Name` of the dataset with scribbles and of its dense twin."""
        return f"Dataset{_ID}_{self._name}", f"Dataset{_DENSE_ID}_{self._name}Dense"

    @property
    def models(self) -> dict[str, Model]:
        """What is compared, by the name that the comparison has it under."""
        scribble, dense = self.datasets
        # All 35 training patients of ACDC are used, as in the literature; the phantom keeps some for validation.
        fold = "all" if self.acdc else "0"
        return {
            _METHOD: Model(scribble, _CONFIGURATION, "nnUNetTrainerAttenScribble", fold),
            "partial CE": Model(scribble, _CONFIGURATION, "nnUNetTrainerPartialCE", fold),
            _REFERENCE: Model(dense, _CONFIGURATION, self.stock_trainer, fold),
        }

    @property
    def _name(self) -> str:
        return "ACDC" if self.acdc else "Phantom"

    def _predictions(self, model: str) -> Path:
        """The folder that a model predicts into, with its scores."""
        return self.folder / "predictions" / _file_name(model)

    def _log(self, name: str) -> Path:
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

    def write_datasets(self) -> WrittenDatasets | None:
        """Write the raw datasets; None if they are there."""
        finish_interrupted(self.raw, f"{_ID:03d}")
        if all((self.raw / dataset).is_dir() for dataset in self.datasets):
            return None
        ids: dict[str, Any] = {"dataset_id": _ID, "dense_id": _DENSE_ID, "name": self._name}
        if self.acdc is None or self.scribbles is None:
            return write_phantoms(raw_folder=self.raw, **ids)
        writing = Writing(self.raw, progress=True)
        return convert_acdc(self.acdc, self.scribbles, **ids, test="maag-validation", writing=writing)

    def plan_steps(self) -> list[Step]:
        """nnU-Net's planning of each dataset."""
        command = ["nnUNetv2_plan_and_preprocess", "-c", "2d", "--no_pp", "--verify_dataset_integrity", "-npfp", "1"]
        return [
            command_step(
                f"nnU-Net's planning of {dataset}",
                [*command, "-d", dataset[7:10]],
                self._log(f"plan {dataset}"),
                [self._plans(dataset)],
            )
            for dataset in self.datasets
        ]

    def configure(self) -> None:
        """Give both datasets one small configuration for the CPU.

        Raises:
            AttenScribbleError: the two came out different.
        """
        network: dict[str, Any] = {"settings": {"num_epochs": self.epochs}}
        if self.acdc is None:
            network = choose_phantom_network(num_epochs=self.epochs, num_val_iterations_per_epoch=10)
        resolved = []
        for dataset in self.datasets:
            file = self._plans(dataset)
            plans = read_plans(file)
            if _CONFIGURATION not in plans["configurations"]:
                plans = add_cpu_configuration(plans, "2d", _CONFIGURATION, **network)
                write_json(file, plans)
            resolved.append(resolve_configuration(plans, _CONFIGURATION))
        if resolved[0] != resolved[1]:
            raise AttenScribbleError(
                f"the configurations {_CONFIGURATION} of {' and '.join(self.datasets)} differ, which would compare "
                f"networks instead of supervision: remove {self.preprocessed} and call this again"
            )

    def preprocess_steps(self) -> list[Step]:
        """nnU-Net's preprocessing of each dataset."""
        return [
            command_step(
                f"nnU-Net's preprocessing of {dataset}",
                ["nnUNetv2_preprocess", "-d", dataset[7:10], "-c", _CONFIGURATION, "-np", "1"],
                self._log(f"preprocess {dataset}"),
                [self.preprocessed / dataset / f"nnUNetPlans_{_CONFIGURATION}"],
            )
            for dataset in self.datasets
        ]

    def _plans(self, dataset: str) -> Path:
        return self.preprocessed / dataset / "nnUNetPlans.json"

    def train_steps(self) -> list[Step]:
        """A training of each model."""
        trainings = [
            train_step(name, model, self.results, self._log(f"train {name}"), epochs=self.epochs, device=self.device)
            for name, model in self.models.items()
        ]
        return list(map(clear_before, trainings, self.predict_steps()))

    def predict_steps(self) -> list[Step]:
        """Predictions of each model for the cases to test with."""
        return [
            predict_step(
                f"predictions of {name}",
                model,
                self.results,
                self._test_files("imagesTs"),
                self._predictions(name),
                self._log(f"predict {name}"),
                device=self.device,
            )
            for name, model in self.models.items()
        ]

    def _test_files(self, kind: str) -> Path:
        return self.raw / self.datasets[0] / kind

    def compare(self) -> str:
        """Score what was predicted, compare it, and draw it; returns the comparison as Markdown."""
        summaries = {
            name: evaluate_folder(self._predictions(name), self._test_files("labelsTs"), workers=1, all_cases=True)
            for name in self.models
        }
        for name, summary in summaries.items():
            write_summary(summary, self._predictions(name))
        subject = "patient[0-9]+" if self.acdc else None
        ordered = {_REFERENCE: summaries[_REFERENCE], **summaries}
        comparison = compare_summaries(ordered, _REFERENCE, subject=subject)
        written = {ending: convert(comparison) for ending, convert in WRITERS.items()}
        write_texts({self.folder / f"comparison{ending}": text for ending, text in written.items()})
        self._draw(summaries)
        return written[".md"]

    def _draw(self, summaries: Mapping[str, Summary]) -> None:
        """Pictures of cases from the best to the worst for the method."""
        cases = summaries[_METHOD].cases
        ranked = sorted(cases, key=lambda case: -np.nanmean([scores.dice for scores in cases[case].values()]))
        chosen = np.unique(np.linspace(0, len(ranked) - 1, _PICTURES).round().astype(int))
        scribbles = self._read_scribbles([ranked[rank] for rank in chosen])
        for rank in chosen:
            case = ranked[rank]
            file = self.folder / "pictures" / f"{rank + 1:02d}_{case}.png"
            self._draw_case(file, case, summaries, scribbles.get(case))

    def _draw_case(self, file: Path, case: str, summaries: Mapping[str, Summary], scribble: np.ndarray | None) -> None:
        image = sitk.ReadImage(str(self._test_files("imagesTs") / f"{case}_0000.nii.gz"))
        truth = _read_labels(self._test_files("labelsTs"), case)
        panels = [Panel("scan")]
        if scribble is not None:
            panels.append(Panel("scribble\n(unseen by the models)", scribble, unlabelled=4))
        for name, summary in summaries.items():
            dice = ", ".join(f"{structure} {scores.dice:.2f}" for structure, scores in summary.cases[case].items())
            panels.append(Panel(f"{name}\nDice {dice}", _read_labels(self._predictions(name), case)))
        panels.append(Panel("dense label", truth))
        draw_case(
            file,
            sitk.GetArrayFromImage(image),
            panels,
            spacing=image.GetSpacing()[::-1],
            structures={structure.name: structure.values[0] for structure in summaries[_METHOD].structures},
            position=find_largest_slice(truth),
            title=f"{case}, not seen in training",
        )

    def _read_scribbles(self, cases: Sequence[str]) -> dict[str, np.ndarray]:
        """Scribbles of test cases, which the datasets leave out: models are not given them."""
        if self.scribbles is None:
            return {case: make_phantom(phantom_index(case)).scribble for case in cases}
        with unpacked(self.scribbles) as folder:
            files = {file.name.partition("_scribble")[0]: file for file in find_files(folder)}
            return {case: sitk.GetArrayFromImage(sitk.ReadImage(str(files[case]))) for case in cases if case in files}


def choose_phantom_network(**settings: Any) -> dict[str, Any]:
    """Arguments of `add_cpu_configuration` for phantoms, with further settings of the method."""
    # The phantom is drawn as coarse as `configure --cpu` makes a scan, so the window is that of there.
    window = {"similarity_radius": 2, "similarity_sigma_position": 3.0}
    # With 8 to 64 features one training in four had hardly begun to learn; 16 to 128 make the demo longer.
    # nnU-Net plans patches of 64, wider than phantoms are; with 48, partial CE has led.
    # Batches of 4 take a fifth longer.
    small = {"spacing_factor": 1.0, "batch_size": 3, "features": (12, 24, 48, 96), "patch_size": (56, 56)}
    return {"settings": settings | window, **small}


def _read_labels(folder: Path, case: str) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{case}.nii.gz")))


def _file_name(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "")
