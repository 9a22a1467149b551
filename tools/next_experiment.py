"""Whether slices chosen by `attenscribble next` teach more than slices drawn at random, on phantoms.

    python -m tools.next_experiment FOLDER

A network starts from three drawn slices. In each of two rounds six more are chosen and drawn from the dense labels, and
it trains on from its weights; then it is scored on phantoms of their own. What is in FOLDER already is not done again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.common.nnunet import trainers_folder
from nnunet_attenscribble.common.text import format_markdown
from nnunet_attenscribble.dataset_conversion.description import find_cases, read_description
from nnunet_attenscribble.dataset_conversion.next_folder import Addition, CaseToDraw, add_strokes
from nnunet_attenscribble.dataset_conversion.phantom import LABELS, UNLABELLED, write_phantoms
from nnunet_attenscribble.dataset_conversion.scribbles import ScribbleRules, draw_scribbles
from nnunet_attenscribble.evaluation.benchmark.workspace import nnunet_environment
from nnunet_attenscribble.evaluation.metrics import compute_dice

SEEDS, ROUNDS, ARMS = (3, 4, 5), (1, 2), ("next", "random")
CASES, TEST_CASES, FIRST, MORE = 14, 8, 3, 6
TRAINER, CONFIGURATION, PLANS = "nnUNetTrainerAttenScribble", "2d_cpu", "nnUNetPlans"
EPOCHS, ITERATIONS = 20, 100
ID, NAME = 901, "Dataset901_Phantom"


def main(folder: Path) -> None:
    """Run what is missing, each arm in a process of its own, and print the table."""
    for seed in SEEDS:
        for arm in ("start", *ARMS):
            base = folder / f"seed{seed}_{arm}"
            if not (base / "dice.json").exists():
                subprocess.run(
                    [sys.executable, "-m", "tools.next_experiment", str(folder), str(seed), arm],
                    env=_environment(base),
                    check=True,
                )
    rows = []
    for arm in ARMS:
        scores = np.array([_read(folder / f"seed{seed}_start") + _read(folder / f"seed{seed}_{arm}") for seed in SEEDS])
        rows.append([arm, *(f"{mean(own):.3f} ({', '.join(f'{one:.3f}' for one in own)})" for own in scores.T)])
    slices = [FIRST + MORE * number for number in (0, *ROUNDS)]
    print(format_markdown(["slices chosen", *(f"{count} slices" for count in slices)], rows))


def run_arm(folder: Path, seed: int, arm: str) -> None:
    """One seed's start, or the rounds of one way to choose."""
    base, start, pool = folder / f"seed{seed}_{arm}", folder / f"seed{seed}_start", folder / f"seed{seed}_pool"
    shutil.rmtree(base, ignore_errors=True)
    if arm == "start":
        _write_start(base, pool, seed)
        _train(base)
        scores = [_score(base, pool)]
    else:
        shutil.copytree(start, base)
        (base / "dice.json").unlink()
        scores = []
        for number in ROUNDS:
            chosen = _choose(base, pool, arm, [seed, number])
            _draw(base, pool, chosen, seed)
            _train(base, go_on=True)
            scores.append(_score(base, pool))
            print(f"seed {seed}, {arm}, round {number}: Dice {scores[-1]:.3f}, {chosen}", flush=True)
    (base / "dice.json").write_text(json.dumps(scores))


def _environment(base: Path) -> dict[str, str]:
    own = nnunet_environment(
        raw=base / "nnUNet_raw",
        preprocessed=base / "nnUNet_preprocessed",
        results=base / "nnUNet_results",
        trainers=trainers_folder(),
    )
    return {**own, "nnUNet_compile": "f", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}


def _read(base: Path) -> list[float]:
    return json.loads((base / "dice.json").read_text())


def _write_start(base: Path, pool: Path, seed: int) -> None:
    """Phantoms, of which three have one drawn slice each that shows every class; planned once."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments

    from nnunet_attenscribble.cli.demo_parts import choose_phantom_network
    from nnunet_attenscribble.plans import add_cpu_configuration, read_plans

    shutil.rmtree(pool, ignore_errors=True)
    write_phantoms(
        raw_folder=pool, dataset_id=ID, dense_id=ID + 1, training=CASES - 1, validation=1, test=TEST_CASES, seed=seed
    )
    raw = base / "nnUNet_raw" / NAME
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        (base / name).mkdir()
    content = json.loads((pool / NAME / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(content | {"numTraining": 0}))
    rng = np.random.default_rng([seed, 0])
    names = sorted(_list_pool(pool))
    chosen = {}
    for name in rng.permutation(names)[:FIRST].tolist():
        dense = _read_dense(pool, name)
        chosen[name] = [int(rng.choice([z for z, section in enumerate(dense) if len(np.unique(section)) == 4]))]
    _draw(base, pool, chosen, seed)
    extract_fingerprints([ID], num_processes=1, show_progress_bar=False)
    plan_experiments([ID])
    file = base / "nnUNet_preprocessed" / NAME / f"{PLANS}.json"
    network = choose_phantom_network(
        num_epochs=EPOCHS, num_iterations_per_epoch=ITERATIONS, num_val_iterations_per_epoch=1
    )
    # The figures of docs/next.md were measured so.
    network |= {"batch_size": 4, "features": (16, 32, 64, 128), "patch_size": None}
    write_json(file, add_cpu_configuration(read_plans(file), "2d", CONFIGURATION, **network))


def _list_pool(pool: Path) -> dict[str, Path]:
    return {file.name[: -len("_0000.nii.gz")]: file for file in sorted((pool / NAME / "imagesTr").iterdir())}


def _read_dense(pool: Path, name: str) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(pool / f"Dataset902_PhantomDense/labelsTr/{name}.nii.gz")))


def _find_training(base: Path) -> dict[str, CaseToDraw]:
    raw = base / "nnUNet_raw" / NAME
    if not any((raw / "imagesTr").iterdir()):
        return {}
    found = find_cases(raw, read_description(raw))
    return {name: CaseToDraw.of_training(name, *files) for name, files in found.items()}


def _list_cases(base: Path, pool: Path) -> dict[str, CaseToDraw]:
    training = _find_training(base)
    return {
        name: training.get(name) or CaseToDraw.of_files(name, [image], None, 1)
        for name, image in _list_pool(pool).items()
    }


def _choose(base: Path, pool: Path, arm: str, seed: list[int]) -> dict[str, list[int]]:
    cases = _list_cases(base, pool)
    chosen: dict[str, list[int]] = {}
    if arm == "random":
        free = [
            (name, z)
            for name, case in cases.items()
            for z, section in enumerate(case.read_strokes(LABELS))
            if (section == UNLABELLED).all()
        ]
        picked = [free[index] for index in np.random.default_rng([*seed, 1]).permutation(len(free))[:MORE]]
    else:
        from nnunet_attenscribble.dataset_conversion.next_slices import search_slices

        predictions = base / "predictions"
        predictions.mkdir(exist_ok=True)
        found = search_slices(_load(base), cases, LABELS, count=MORE, predictions=predictions, axis=0)
        picked = [(choice.case, choice.position) for choice in found.chosen]
    for name, z in picked:
        chosen.setdefault(name, []).append(z)
    return chosen


def _draw(base: Path, pool: Path, chosen: dict[str, list[int]], seed: int) -> None:
    """Strokes from the dense labels on these slices, brought in as `attenscribble next` brings them in."""
    cases = _list_cases(base, pool)
    additions = []
    for name, positions in chosen.items():
        label = cases[name].read_strokes(LABELS)
        spacing = cases[name].read_grid().spacing[::-1]
        drawn = draw_scribbles(_read_dense(pool, name), spacing, ScribbleRules(seed=seed), UNLABELLED, name)
        label[positions] = drawn[positions]
        additions.append(Addition(cases[name], label, {}, 0, 0))
    add_strokes(base / "nnUNet_raw" / NAME, base / "nnUNet_preprocessed" / NAME, additions, None)


def _train(base: Path, *, go_on: bool = False) -> None:
    """nnU-Net's preprocessing and training on all cases, without its closing validation."""
    import torch
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, preprocessed = base / "nnUNet_raw" / NAME, base / "nnUNet_preprocessed" / NAME
    plans = PlansManager(str(preprocessed / f"{PLANS}.json"))
    configuration = plans.get_configuration(CONFIGURATION)
    folder = preprocessed / configuration.data_identifier
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    dataset_json = json.loads((raw / "dataset.json").read_text())
    for name, case in _find_training(base).items():
        configuration.preprocessor_class(verbose=False).run_case_save(
            str(folder / name), [str(case.images[0])], str(case.label), plans, configuration, dataset_json
        )
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - nnU-Net's planning does not take it
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what nnU-Net draws from
    trainer = get_trainer_from_args(NAME, CONFIGURATION, "all", TRAINER, PLANS, device=torch.device("cpu"))
    trainer.initialize()
    if go_on:
        load_pretrained_weights(trainer.network, str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    trainer.run_training()


def _load(base: Path):
    import torch

    from nnunet_attenscribble.trained_model import TrainedModel, find_model

    place = find_model(base / "nnUNet_results" / NAME)
    return TrainedModel(place.folder, place.fold, place.checkpoint, torch.device("cpu"))


def _score(base: Path, pool: Path) -> float:
    """Mean Dice over classes and phantoms that were never trained with."""
    from nnunet_attenscribble.trained_model import predict_case

    model, scores = _load(base), []
    for image in sorted((pool / NAME / "imagesTs").iterdir()):
        label = pool / NAME / "labelsTs" / image.name.replace("_0000", "")
        truth, found = sitk.GetArrayFromImage(sitk.ReadImage(str(label))), predict_case(model, [image]).labels
        for value in (1, 2, 3):
            scores.append(compute_dice(found == value, truth == value))
    return float(np.mean(scores))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        run_arm(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
