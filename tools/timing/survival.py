"""How much of the scribbles reaches the loss: `python -m tools.timing.survival DATASET CONFIGURATION`.

Per class, the share of the scribbled volume that is left behind nnU-Net's preprocessing, behind its spatial
augmentation (against nearest-neighbour sampling with the same parameters, which keeps volume in the mean), and in its
targets of deep supervision; how often a class that a patch shows is missing in such a target altogether; and the same
for the targets of the scribble trainers.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_attenscribble.common.nnunet import name_values
from nnunet_attenscribble.common.text import format_markdown
from nnunet_attenscribble.targets import DownsampleScribblesTransform


def volumes(labels: np.ndarray, classes: int, voxel: float = 1.0) -> np.ndarray:
    """Volume of every class."""
    return np.array([(labels == label).sum() * voxel for label in range(classes)], dtype=float)


def format_shares(part: np.ndarray, whole: np.ndarray) -> list[str]:
    """Per cent of every class; n/a for one that was never seen."""
    return [f"{100 * p / w:.1f} %" if w else "n/a" for p, w in zip(part, whole, strict=True)]


def measure(dataset: str, configuration: str, cases: int, draws: int) -> dict[str, list[str]]:
    """The names of the classes, and all shares, each a list per class."""
    name = maybe_convert_to_dataset_name(dataset)
    raw, target = Path(os.environ["nnUNet_raw"]) / name, Path(os.environ["nnUNet_preprocessed"]) / name  # noqa: SIM112
    dataset_json = json.loads((raw / "dataset.json").read_text())
    plans = PlansManager(json.loads((target / "nnUNetPlans.json").read_text()))
    configured = plans.get_configuration(configuration)
    classes = dataset_json["labels"]["ignore"]
    reader = plans.image_reader_writer_class()
    patch, ndim = configured.patch_size, len(configured.patch_size)
    trainer = nnUNetTrainer.__new__(nnUNetTrainer)
    trainer.configuration_manager, trainer.print_to_log_file = configured, lambda *_: None
    trainer.enable_deep_supervision = True
    rotation, dummy_2d, _, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    scales = trainer._get_deep_supervision_scales()
    steps = nnUNetTrainer.get_training_transforms(
        patch, rotation, scales, mirror, dummy_2d, use_mask_for_norm=configured.use_mask_for_norm
    ).transforms
    spatial = next(step for step in steps if isinstance(step, SpatialTransform))
    deep = next(step for step in steps if isinstance(step, DownsampleSegForDSTransform))

    sums = {key: np.zeros(classes) for key in ("raw", "preprocessed", "nearest", "augmented")}
    ours = DownsampleScribblesTransform(scales, classes)
    at_scale, missing, shown, still_missing = ([np.zeros(classes) for _ in scales] for _ in range(4))
    rng = np.random.default_rng(0)
    files = get_filenames_of_train_images_and_targets(str(raw), dataset_json)
    for case in sorted(files)[:: max(1, len(files) // cases)][:cases]:
        labels, properties = reader.read_seg(files[case]["label"])
        sums["raw"] += volumes(labels, classes, float(np.prod(properties["spacing"])))
        _, labels, _ = configured.preprocessor_class(verbose=False).run_case(
            files[case]["images"], files[case]["label"], plans, configured, dataset_json
        )
        spacing = [*([properties["spacing"][0]] if ndim == 2 else []), *configured.spacing]
        sums["preprocessed"] += volumes(labels, classes, float(np.prod(spacing[-3:])))
        for _ in range(draws):
            volume = torch.from_numpy(labels.astype(np.int16))
            if ndim == 2:
                drawn = np.flatnonzero(((labels[0] >= 0) & (labels[0] < classes)).any(axis=(1, 2)))
                volume = volume[:, rng.choice(drawn)]
            torch.manual_seed(int(rng.integers(1 << 31)))
            np.random.seed(int(rng.integers(1 << 31)))  # noqa: NPY002 - what nnU-Net draws from
            parameters = spatial.get_parameters(image=volume.float())
            augmented = spatial._apply_to_segmentation(volume, **parameters)
            spatial.mode_seg = "nearest"
            sums["nearest"] += volumes(spatial._apply_to_segmentation(volume, **parameters).numpy(), classes)
            spatial.mode_seg = "bilinear"
            full = volumes(augmented.numpy(), classes)
            sums["augmented"] += full
            for index, small in enumerate(deep._apply_to_segmentation(augmented)):
                here = volumes(small.numpy(), classes)
                at_scale[index] += here * augmented.numel() / small.numel()
                missing[index] += (full > 0) & (here == 0)
                shown[index] += full > 0
            for index, small in enumerate(ours._apply_to_segmentation(augmented)):
                still_missing[index] += (full > 0) & (volumes(small.numpy(), classes) == 0)
    return {
        "classes": name_values(dataset_json["labels"], classes),
        "preprocessing": format_shares(sums["preprocessed"], sums["raw"]),
        "spatial augmentation": format_shares(sums["augmented"], sums["nearest"]),
        **{f"target at {s[-1]:g}": format_shares(v, sums["augmented"]) for s, v in zip(scales, at_scale, strict=True)},
        **{f"missing at {s[-1]:g}": format_shares(m, n) for s, m, n in zip(scales, missing, shown, strict=True)},
        **{
            f"missing at {s[-1]:g}, ours": format_shares(m, n)
            for s, m, n in zip(scales, still_missing, shown, strict=True)
        },
    }


def main() -> None:
    """Print the shares as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--draws", type=int, default=20, help="augmented patches per case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(arguments.dataset, arguments.configuration, arguments.cases, arguments.draws)
    header = ["", *result.pop("classes")]
    print(format_markdown(header, [[stage, *own] for stage, own in result.items()]))


if __name__ == "__main__":
    main()
