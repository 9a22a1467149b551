"""nnU-Net's own commands on the scribble trainers' models, from training to a model in another environment."""

from __future__ import annotations

import pickle
import shutil
import site
import venv
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_attenscribble.common.files import write_json
from nnunet_attenscribble.plans import add_configuration, read_plans
from tests.evaluation.collected_folder import read_csv
from tests.trainers.conftest import NAME, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("trainers")]

TRAINER = "nnUNetTrainerAttenScribble"
ON_CPU = ("-device", "cpu")
PREDICT = (*ON_CPU, "-npp", "1", "-nps", "1")


def labels(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.fixture
def images(nnunet, tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(nnunet.folder / "nnUNet_raw" / NAME / "imagesTr" / "case3_0000.nii.gz", folder)
    return folder


@pytest.fixture
def two_folds(nnunet):
    """As many splits as folds are trained; put back afterwards, since the prepared folder is shared."""
    file = nnunet.preprocessed / "splits_final.json"
    before = file.read_text()
    file.write_text('[{"train": ["case0", "case1"], "val": ["case2", "case3"]},'
                    ' {"train": ["case2", "case3"], "val": ["case0", "case1"]}]')  # fmt: skip
    yield
    file.write_text(before)


def test_folds_ensembles_and_a_model_that_moves_house(nnunet, two_folds, images, distributions, tmp_path):
    for fold in ("0", "1"):
        run("nnUNetv2_train", NAME, "tiny", fold, "-tr", TRAINER, *ON_CPU, "--npz")
    model = nnunet.results / NAME / f"{TRAINER}__nnUNetPlans__tiny"
    assert (model / "fold_0" / "validation" / "case3.npz").exists()
    shutil.rmtree(model / "fold_0" / "validation")
    run("nnUNetv2_train", NAME, "tiny", "0", "-tr", TRAINER, *ON_CPU, "--val", "--npz")
    assert (model / "fold_0" / "validation" / "case3.npz").exists()

    predict = ("nnUNetv2_predict", "-i", str(images), "-d", NAME, "-c", "tiny", "-tr", TRAINER, *PREDICT)
    for name, options in {
        "fold": ("-f", "0"),
        "folds": ("-f", "0", "1", "--save_probabilities"),
        "unmirrored": ("-f", "0", "1", "--disable_tta"),
    }.items():
        run(*predict, "-o", str(tmp_path / name), *options)
        assert labels(tmp_path / name / "case3.nii.gz").shape == (3, 28, 24)
    assert np.array_equal(labels(tmp_path / "fold" / "case3.nii.gz"), labels(model / "fold_0/validation/case3.nii.gz"))
    assert np.load(tmp_path / "folds" / "case3.npz")["probabilities"].shape == (3, 3, 28, 24)

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1))
    image = sitk.ReadImage(str(images / "case3_0000.nii.gz"))
    array = sitk.GetArrayFromImage(image)[None].astype(np.float32)
    in_process = predictor.predict_single_npy_array(array, {"spacing": list(image.GetSpacing()[::-1])})
    assert np.array_equal(in_process, labels(tmp_path / "folds" / "case3.nii.gz"))

    told = run("nnUNetv2_find_best_configuration", NAME, "-c", "tiny", "-tr", TRAINER, "-f", "0", "1", "-np", "1")
    assert f"-tr {TRAINER}" in told
    run("nnUNetv2_apply_postprocessing", "-i", str(tmp_path / "folds"), "-o", str(tmp_path / "postprocessed"),
        "-pp_pkl_file", str(model / "crossval_results_folds_0_1" / "postprocessing.pkl"), "-np", "1",
        "-plans_json", str(model / "plans.json"), "-dataset_json", str(model / "dataset.json"))  # fmt: skip
    assert (tmp_path / "postprocessed" / "case3.nii.gz").exists()

    archive = tmp_path / "model.zip"
    run("nnUNetv2_export_model_to_zip", "-d", NAME, "-o", str(archive), "-c", "tiny", "-f", "0", "1", "-tr", TRAINER)
    commands, folders = elsewhere(tmp_path / "elsewhere", distributions[1])
    trainers = run("attenscribble", "trainers", folder=commands, **folders).strip()
    assert str(tmp_path) in trainers
    folders["nnUNet_extTrainer"] = trainers
    run("nnUNetv2_install_pretrained_model_from_zip", str(archive), folder=commands, **folders)
    run(*predict, "-o", str(tmp_path / "moved"), "-f", "0", "1", folder=commands, **folders)
    assert np.array_equal(labels(tmp_path / "moved" / "case3.nii.gz"), labels(tmp_path / "folds" / "case3.nii.gz"))


def elsewhere(folder: Path, wheel: Path) -> tuple[Path, dict[str, str]]:
    """An environment in which the package is installed from its wheel and nothing of the checkout is found.

    Its dependencies are those of the running environment, without what that has installed as editable.

    Returns:
        folder of its commands, and nnU-Net's variables for it.
    """
    venv.create(folder / "venv", with_pip=False)
    commands = folder / "venv" / "bin"
    packages = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # A .pth line extends the path; the .pth files that it leads to, such as an editable install's, are not read.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    names = ("attenscribble", "nnUNetv2_predict", "nnUNetv2_install_pretrained_model_from_zip")
    for script in (entry for entry in entry_points(group="console_scripts") if entry.name in names):
        module, _, function = script.value.partition(":")
        lines = [f"#!{commands / 'python'}", f"from {module} import {function}", "if __name__ == '__main__':"]
        (commands / script.name).write_text("\n".join([*lines, f"    {function}()", ""]))
        (commands / script.name).chmod(0o755)
    variables = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for path in variables.values():
        Path(path).mkdir()
    return commands, variables | {"PYTHONPATH": ""}


def test_pretrained_weights_of_a_plain_network(nnunet, tmp_path):
    file = nnunet.preprocessed / "nnUNetPlans.json"
    plans = read_plans(file)
    if "tiny_plain" not in plans["configurations"]:
        write_json(file, add_configuration(plans, "tiny", "tiny_plain", {"similarity_weight": 0.05}))
    run("nnUNetv2_train", NAME, "tiny_plain", "0", "-tr", "nnUNetTrainerMaskedCRF", *ON_CPU)
    checkpoint = nnunet.results / NAME / "nnUNetTrainerMaskedCRF__nnUNetPlans__tiny_plain/fold_0/checkpoint_final.pth"
    train = ("nnUNetv2_train", NAME, "tiny", "0", "-tr", TRAINER, *ON_CPU, "-pretrained_weights")
    assert "missing in the pretrained" in run(*train, str(checkpoint), expected=1)
    out = tmp_path / "with_block.pth"
    run("attenscribble", "pretrained", str(checkpoint), "-d", NAME, "-c", "tiny", "-o", str(out))
    assert f"Loading pretrained weights from file  {out}" in run(*train, str(out))
    assert (nnunet.results / NAME / f"{TRAINER}__nnUNetPlans__tiny/fold_0/checkpoint_final.pth").exists()


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(nnunet, tmp_path):
    worker = str(Path(__file__).with_name("resume_worker.py"))

    def train(name: str, kill_epoch: str, expected: int = 0) -> Path:
        results = tmp_path / name
        run("python", worker, NAME, "tiny", TRAINER, kill_epoch, expected=expected, nnUNet_results=str(results))
        return results / NAME / f"{TRAINER}__nnUNetPlans__tiny" / "fold_0"

    undisturbed = train("undisturbed", "never")
    killed = train("killed", "1", expected=-9)
    assert not (killed / "checkpoint_final.pth").exists()
    resumed = train("killed", "never")
    one, other = (torch.load(f / "checkpoint_final.pth", weights_only=False) for f in (undisturbed, resumed))
    assert one["current_epoch"] == other["current_epoch"] == 2
    for name, value in one["network_weights"].items():
        assert torch.equal(value, other["network_weights"][name]), name
    rows = [read_csv(folder / "loss_terms.csv") for folder in (undisturbed, resumed)]
    assert rows[0] == rows[1]
    assert pickle.dumps(one["optimizer_state"]["param_groups"]) == pickle.dumps(
        other["optimizer_state"]["param_groups"]
    )
