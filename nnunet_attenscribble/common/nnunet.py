"""What nnU-Net's environment names: its folders, the datasets in them, and the folders of trainers."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from nnunet_attenscribble.errors import AttenScribbleError

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
VARIABLE = "nnUNet_extTrainer"
PLANS = "nnUNetPlans"  # nnU-Net's own, which its commands take unless told otherwise
#: What several trainers share; these do not train themselves.
BASES = ("nnUNetTrainerScribble", "nnUNetTrainerRival", "nnUNetTrainerTeacher", "nnUNetTrainerTwoDecoders")


def nnunet_folder(variable: str) -> Path:
    """The folder that one of nnU-Net's environment variables names.

    Raises:
        AttenScribbleError: if it is unset.
    """
    value = os.environ.get(variable)
    if not value:
        raise AttenScribbleError(f"{variable} is not set: export {variable}=FOLDER, as nnU-Net itself needs it")
    return Path(value)


def dataset_folder(variable: str, dataset: str) -> Path:
    """Folder of a dataset given as ID (501) or name (Dataset501_ACDC).

    Raises:
        AttenScribbleError: if there is none, or several with this ID.
    """
    parent = nnunet_folder(variable)
    if dataset.startswith("Dataset"):
        found = [parent / dataset] if (parent / dataset).is_dir() else []
    elif dataset.isdecimal():
        found = sorted(folder for folder in parent.glob(f"Dataset{int(dataset):03d}_*") if folder.is_dir())
    else:
        raise AttenScribbleError(f"dataset '{dataset}' is neither an ID such as 501 nor a name such as Dataset501_ACDC")
    if not found:
        raise AttenScribbleError(f"no dataset {dataset} in {parent} (from {variable})")
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise AttenScribbleError(f"dataset ID {dataset} is taken twice in {parent}: {names}; rename all but one")
    return found[0]


def trainers_folder() -> Path:
    """The installed folder that `nnUNet_extTrainer` must name."""
    spec = find_spec("nnunet_attenscribble.trainers")
    assert spec is not None  # it is part of this very package
    assert spec.origin is not None
    return Path(spec.origin).parent


def list_trainers(*, rivals: bool = False) -> list[str]:
    """Names for `nnUNetv2_train -tr`: those of the method, or those of its published rivals."""
    folder = trainers_folder() / "rivals" if rivals else trainers_folder()
    names = (file.stem for file in sorted(folder.glob("nnUNetTrainer*.py")))
    return [name for name in names if name not in BASES]


def exported_folders() -> list[Path]:
    """The folders that `nnUNet_extTrainer` names."""
    return [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
