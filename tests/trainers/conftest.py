"""A dataset of a few voxels, planned and preprocessed by nnU-Net itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.common.nnunet import trainers_folder
from nnunet_attenscribble.plans import add_configuration, add_cpu_configuration, read_plans
from nnunet_attenscribble.settings import PAPER
from tests.quick_nnunet import quick_nnunet

NAME = "Dataset701_Tiny"
IGNORE = 3
ITERATIONS = 3


def run(*command: str, folder: Path = Path(sys.executable).parent, expected: int = 0, **environment: str) -> str:
    """A command of this environment, or of the one in another folder; returns what it printed."""
    done = subprocess.run(
        [folder / command[0], *command[1:]], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == expected, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@contextmanager
def environment(folder: Path):
    """nnU-Net's variables for this folder, loaders and workers in the same process."""
    values = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    values |= {
        "nnUNet_extTrainer": str(trainers_folder()),
        "nnUNet_n_proc_DA": "0",
        "nnUNet_def_n_proc": "1",
        "nnUNet_compile": "f",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        with quick_nnunet():
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def write_raw(folder: Path, cases: int = 4) -> None:
    """Bright squares with a darker core; strokes in each class."""
    rng = np.random.default_rng(0)
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for case in range(cases):
        image = rng.normal(0, 0.2, (3, 28, 24)).astype(np.float32)
        label = np.full(image.shape, IGNORE, dtype=np.uint8)
        top, left = rng.integers(4, 12), rng.integers(3, 9)
        image[:, top : top + 11, left : left + 11] += 2
        image[:, top + 4 : top + 8, left + 4 : left + 8] -= 1
        label[:, top + 1, left : left + 10] = 1
        label[:, top + 5, left + 4 : left + 7] = 2
        label[:, 1, 2:20] = 0
        for array, file in ((image, f"imagesTr/case{case}_0000"), (label, f"labelsTr/case{case}")):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((1.5, 1.5, 8.0))
            sitk.WriteImage(volume, str(folder / f"{file}.nii.gz"))
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "ring": 1, "core": 2, "ignore": IGNORE},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def preprocess(name: str, configuration: str) -> None:
    """nnU-Net's preprocessing of all cases, in this process."""
    raw, target = Path(os.environ["nnUNet_raw"]) / name, Path(os.environ["nnUNet_preprocessed"]) / name
    plans = PlansManager(str(target / "nnUNetPlans.json"))
    configured = plans.get_configuration(configuration)
    dataset_json = json.loads((target / "dataset.json").read_text())
    out = target / configured.data_identifier
    out.mkdir(exist_ok=True)
    shutil.copytree(raw / "labelsTr", target / "gt_segmentations", dirs_exist_ok=True)  # for nnU-Net's validation
    for case, files in get_filenames_of_train_images_and_targets(str(raw), dataset_json).items():
        configured.preprocessor_class(verbose=False).run_case_save(
            str(out / case), files["images"], files["label"], plans, configured, dataset_json
        )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """Folder with the raw and preprocessed dataset; configuration `tiny` takes seconds."""
    folder = tmp_path_factory.mktemp("nnunet")
    with environment(folder):
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (folder / variable).mkdir()
        write_raw(folder / "nnUNet_raw" / NAME)
        extract_fingerprints([701], num_processes=1, show_progress_bar=False)
        os.environ["nnUNet_n_proc_DA"] = "1"  # nnU-Net plans with as many threads
        plan_experiments([701])
        os.environ["nnUNet_n_proc_DA"] = "0"
        preprocessed = folder / "nnUNet_preprocessed" / NAME
        splits = [{"train": ["case0", "case1", "case2"], "val": ["case3"]}]
        (preprocessed / "splits_final.json").write_text(json.dumps(splits))
        settings = {
            "num_epochs": 2,
            "num_iterations_per_epoch": ITERATIONS,
            "num_val_iterations_per_epoch": 1,
            "crf_radius": 2,
            "similarity_radius": 1,
        }
        file = preprocessed / "nnUNetPlans.json"
        plans = add_cpu_configuration(
            read_plans(file), "2d", "tiny", spacing_factor=1.0, batch_size=3, features=(4, 8, 8), settings=settings
        )
        plans["configurations"]["tiny"]["patch_size"] = [32, 32]  # larger than the slices, so that there is padding
        for padding in ("background", "ignore"):
            plans = add_configuration(plans, "tiny", f"tiny_{padding}", {"padding": padding})
        plans = add_configuration(plans, "tiny", "tiny_paper", {"similarity_mode": "paper"})
        distance = {"similarity_disagreement": "distance", "similarity_weight": 1}
        plans = add_configuration(plans, "tiny", "tiny_distance", distance)
        plans = add_configuration(plans, "tiny_distance", "tiny_distance_paper", {"similarity_mode": "paper"})
        plans = add_configuration(plans, "tiny", "tiny_range", {"crf_intensities": "range"})
        plans = add_configuration(plans, "tiny", "tiny_no_pairs", {"pair_weight": 0})
        plans = add_configuration(plans, "tiny", "tiny_published", PAPER)
        write_json(file, plans)
        preprocess(NAME, "tiny")
    return folder


VOLUMES = "Dataset702_Volumes"


def write_raw_volumes(folder: Path, cases: int = 4) -> None:
    """Two channels; a bright ball with a core, strokes through both and one beside them."""
    rng = np.random.default_rng(1)
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    shape = (12, 36, 32)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    for case in range(cases):
        centre = np.array([rng.integers(5, 8), rng.integers(14, 22), rng.integers(12, 20)])
        distance = np.sqrt(
            (((grid - centre[:, None, None, None]) * np.array([2, 1, 1])[:, None, None, None]) ** 2).sum(0)
        )
        label = np.full(shape, IGNORE, dtype=np.uint8)
        label[:, 1, 2:28] = 0
        row = label[centre[0], centre[1]]
        row[distance[centre[0], centre[1]] < 10] = 1
        row[distance[centre[0], centre[1]] < 4] = 2
        for channel in range(2):
            image = rng.normal(0, 0.2, shape) + 2 * (distance < 10) - (channel + 1) * (distance < 4)
            volume = sitk.GetImageFromArray(image.astype(np.float32))
            volume.SetSpacing((1.0, 1.0, 2.0))
            sitk.WriteImage(volume, str(folder / f"imagesTr/case{case}_000{channel}.nii.gz"))
        volume = sitk.GetImageFromArray(label)
        volume.SetSpacing((1.0, 1.0, 2.0))
        sitk.WriteImage(volume, str(folder / f"labelsTr/case{case}.nii.gz"))
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "shell": 1, "core": 2, "ignore": IGNORE},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def prepared_volumes(tmp_path_factory) -> Path:
    """Folder with a dataset of volumes, planned by two of nnU-Net's planners, and configurations of few iterations.

    `short` is the planned 3d_fullres; `small` has a small network, `small_low` half its resolution in the plane, and
    `small_cascade` continues from that.
    """
    folder = tmp_path_factory.mktemp("nnunet_volumes")
    with environment(folder):
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (folder / variable).mkdir()
        write_raw_volumes(folder / "nnUNet_raw" / VOLUMES)
        extract_fingerprints([702], num_processes=1, show_progress_bar=False)
        os.environ["nnUNet_n_proc_DA"] = "1"  # nnU-Net plans with as many threads
        plan_experiments([702])
        plan_experiments([702], experiment_planner_class_name="nnUNetPlannerResEncM")
        os.environ["nnUNet_n_proc_DA"] = "0"
        preprocessed = folder / "nnUNet_preprocessed" / VOLUMES
        splits = [
            {"train": ["case0", "case1", "case2"], "val": ["case3"]},
            {"train": ["case1", "case2", "case3"], "val": ["case0"]},
        ]
        (preprocessed / "splits_final.json").write_text(json.dumps(splits))
        settings = {
            "num_epochs": 1,
            "num_iterations_per_epoch": 2,
            "num_val_iterations_per_epoch": 1,
            "crf_radius": 2,
            "similarity_radius": 2,
        }
        for name in ("nnUNetPlans", "nnUNetResEncUNetMPlans"):
            file = preprocessed / f"{name}.json"
            plans = add_configuration(read_plans(file), "3d_fullres", "short", settings)
            plans = add_cpu_configuration(
                plans, "3d_fullres", "small", spacing_factor=1.0, batch_size=2, features=(4, 8, 8), settings=settings
            )
            plans = add_cpu_configuration(
                plans,
                "3d_fullres",
                "small_low",
                spacing_factor=2.0,
                batch_size=2,
                features=(4, 8, 8),
                settings=settings,
            )
            plans["configurations"]["small_low"]["next_stage"] = "small_cascade"
            plans = add_configuration(plans, "small", "small_cascade", {"warmup_epochs": 0.5})
            plans["configurations"]["small_cascade"]["previous_stage"] = "small_low"
            write_json(file, plans)
        for configuration in ("short", "small", "small_low"):
            preprocess(VOLUMES, configuration)
    return folder


@pytest.fixture
def nnunet(prepared, tmp_path):
    """nnU-Net's environment, with results of the test's own, and a way to make trainers."""
    yield from _prepared_environment(prepared, NAME, tmp_path)


@pytest.fixture
def volumes(prepared_volumes, tmp_path):
    """The same for the dataset of volumes."""
    yield from _prepared_environment(prepared_volumes, VOLUMES, tmp_path)


def _prepared_environment(folder: Path, dataset: str, tmp_path: Path):
    base = folder / "nnUNet_preprocessed" / dataset

    def make(
        trainer: str | type,
        configuration: str = "tiny",
        plans: dict | str = "nnUNetPlans",
        dataset_json: dict | None = None,
        device: str = "cpu",
    ):
        plans = json.loads((base / f"{plans}.json").read_text()) if isinstance(plans, str) else plans
        dataset_json = dataset_json or json.loads((base / "dataset.json").read_text())
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - what nnU-Net draws from
        found = recursive_find_trainer_class_by_name(trainer) if isinstance(trainer, str) else trainer
        return found(plans | {"continue_training": False}, configuration, 0, dataset_json, torch.device(device))

    def start(*arguments, epoch: int = 0, **named):
        """A trainer at the beginning of an epoch."""
        trainer = make(*arguments, **named)
        trainer.on_train_start()
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        return trainer

    with environment(folder):
        os.environ["nnUNet_results"] = str(tmp_path / "results")
        yield SimpleNamespace(make=make, start=start, folder=folder, preprocessed=base, results=tmp_path / "results")
