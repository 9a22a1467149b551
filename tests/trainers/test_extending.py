"""The examples of docs/extending.md, executed as they stand there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attenscribble.errors import AttenScribbleError
from tests.conftest import ROOT
from tests.evaluation.collected_folder import read_csv

pytestmark = pytest.mark.xdist_group("trainers")

TRAINER, CONVERTER = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), flags=re.DOTALL)


def test_the_new_loss_term_is_trained_and_logged(nnunet, tmp_path, monkeypatch):
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    (folder / "nnUNetTrainerSure.py").write_text(TRAINER)
    monkeypatch.setenv("nnUNet_extTrainer", f"{os.environ['nnUNet_extTrainer']}{os.pathsep}{folder}")
    trainer = nnunet.make("nnUNetTrainerSure")
    trainer.initialize()
    trainer.run_training()
    rows = read_csv(Path(trainer.output_folder) / "loss_terms.csv")
    assert len(rows) == 2
    for row in rows:
        assert 0 < float(row["doubt"]) <= 2 / 3 + 1e-6  # three classes
    # In the second epoch the warm-up of two has come to a half and more: strength * 0.05 * doubt is in the total.
    strength = float(rows[1]["total"]) - float(rows[1]["segmentation"])
    assert 0.5 * 0.05 * float(rows[1]["doubt"]) <= strength <= 0.05 * float(rows[1]["doubt"])


def write(file: Path, voxels: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(file))


@pytest.fixture
def livers(tmp_path) -> Path:
    folder = tmp_path / "livers"
    folder.mkdir()
    for case in ("a", "b"):
        dense = np.zeros((3, 8, 8), np.uint8)
        dense[:, 2:6, 2:6] = 1
        scribble = np.zeros_like(dense)
        scribble[:, 4, 3:5], scribble[:, 0, 1:7] = 1, 2
        write(folder / f"{case}_ct.nii.gz", dense.astype(np.float32))
        write(folder / f"{case}_liver.nii.gz", dense)
        write(folder / f"{case}_scribble.nii.gz", scribble)
    return folder


def converter():
    namespace: dict = {}
    exec(compile(CONVERTER, "docs/extending.md", "exec"), namespace)
    return namespace["convert_livers"]


def test_the_new_converter_writes_both_twins(livers, tmp_path):
    written = converter()(livers, tmp_path / "raw", 601)
    assert [written.scribble.name, written.dense.name] == ["Dataset601_Liver", "Dataset602_LiverDense"]
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(written.scribble / "labelsTr" / "a.nii.gz")))
    assert (label[:, 4, 3:5] == 1).all()
    assert (label[:, 0, 1:7] == 0).all()
    assert (label == 2).sum() == label.size - 3 * 8
    assert written.scribble_voxels == {"background": 36, "liver": 12, "ignore": 336}


def test_the_new_converter_tells_what_is_wrong(livers, tmp_path):
    scribble = np.full((3, 8, 8), 7, np.uint8)
    write(livers / "b_scribble.nii.gz", scribble)
    with pytest.raises(AttenScribbleError, match="label values 7 are outside the coding, which knows 0, 1, 2"):
        converter()(livers, tmp_path / "raw", 601)
    assert not (tmp_path / "raw").exists()
    with pytest.raises(AttenScribbleError, match="holds no CASE_ct"):
        converter()(tmp_path / "empty", tmp_path / "raw", 601)
