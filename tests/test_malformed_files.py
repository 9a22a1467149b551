"""Files that are not what they should be, thrown at every command that reads them: no traceback, and nothing written.

A case is a command and one of the files that it reads, which is changed in one to three places, cut off, or replaced by
something else. The command runs in this process. What it refuses must leave every file as it was.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import typer
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nnunet_attenscribble.cli import app, doctor, main
from nnunet_attenscribble.common.nnunet import FOLDERS, list_trainers, trainers_folder
from nnunet_attenscribble.evaluation.kept_scores import write_kept
from nnunet_attenscribble.evaluation.summary import read_summary
from tests.evaluation.benchmark.fake_nnunet import Toy
from tests.evaluation.collected_folder import write_collected
from tests.nnunet_attenscribble.cli.test_cli import COMMANDS
from tests.nnunet_attenscribble.test_plans import some_plans

NAME, DENSE = "Dataset501_Tiny", "Dataset502_Dense"
CASES = ("a", "b", "c", "d", "e")


@dataclass(frozen=True)
class Thrown:
    """A command and the file that is changed.

    Attributes:
        command: words; those that begin with `/` are below the folder of the test.
        file: below it too.
    """

    command: tuple[str, ...]
    file: str

    @property
    def name(self) -> str:
        """Of the command."""
        return " ".join(self.command[: 2 if self.command[0] in ("benchmark", "convert") else 1])

    def __str__(self) -> str:
        return f"{self.name} {Path(self.file).name}"


_RAW, _PREPROCESSED = f"/nnUNet_raw/{NAME}", f"/nnUNet_preprocessed/{NAME}"
_MODEL = f"/nnUNet_results/{NAME}/nnUNetTrainerAttenScribble__nnUNetPlans__2d"
_ATTENTION = ("attention", _MODEL, "-i", f"{_RAW}/imagesTr", "-o", "/attention", "--case", "a")
_BENCHMARK = ("benchmark", "run", "/toy/toy.yaml", "--work", "/toy/made", "--dry-run")
_COLLECT = ("benchmark", "collect", "/toy/toy.yaml", "--work", "/toy/made")
_KEPT = ("compare", "A=/kept/method_new", "-r", "B=/kept/dense_full", "-o", "/t.csv")
_FOLDER = ("convert", "folder", "/pictures", "-s", "/strokes", "-d", "504", "--name", "T", "--labels", "shell,core")
_NEXT = ("next", "501", "--folder", "/drawing", "-f", "all")
# What these read is neither JSON nor YAML, but for what `demo` wrote itself.
OTHERS = {"trainers", "demo", *(f"convert {name}" for name in ("acdc", "chaos", "mscmr", "h5"))}
THROWN = [
    Thrown(("doctor", "501"), f"{_RAW}/dataset.json"),
    Thrown(("doctor", "501"), f"{_PREPROCESSED}/nnUNetPlans.json"),
    Thrown(("doctor", "501"), f"{_PREPROCESSED}/dataset_fingerprint.json"),
    Thrown(("doctor", "501"), f"{_PREPROCESSED}/dataset.json"),
    Thrown(("configure", "501", "--cpu", "--thin-strokes"), f"{_PREPROCESSED}/nnUNetPlans.json"),
    Thrown(("configure", "501", "--name", "n", "--set", "crf_weight=1"), f"{_PREPROCESSED}/nnUNetPlans.json"),
    Thrown(("configure", "501", "--name", "n", "--set", 'class_weights={"core":2}'), f"{_PREPROCESSED}/dataset.json"),
    Thrown(("pretrained", "/plain.pth", "-d", "501", "-o", "/block.pth"), f"{_PREPROCESSED}/nnUNetPlans.json"),
    Thrown(("pretrained", "/plain.pth", "-d", "501", "-o", "/block.pth"), f"{_PREPROCESSED}/dataset.json"),
    Thrown(("fingerprint", "501"), f"{_RAW}/dataset.json"),
    Thrown(("inspect", "501", "--cases", "0", "--workers", "1", "--json", "/x.json"), f"{_RAW}/dataset.json"),
    Thrown(("inspect", "501", "--cases", "0", "--workers", "1"), f"{_RAW}/provenance.json"),
    Thrown(("scribble", "502", "-o", "503", "--workers", "1"), f"/nnUNet_raw/{DENSE}/dataset.json"),
    Thrown(("scribble", "502", "-o", "503", "--workers", "1"), f"/nnUNet_preprocessed/{DENSE}/splits_final.json"),
    Thrown(("evaluate", "/predictions", f"/nnUNet_raw/{DENSE}/labelsTr", "-o", "/scores"), "/predictions/dataset.json"),
    Thrown(("postprocess", "/predictions", f"{_RAW}/labelsTr", "-o", "/processed"), f"{_RAW}/dataset.json"),
    Thrown(
        ("compare", "A=/collected/rows/method_new/seed_0", "-r", "B=/collected/rows/dense_full/seed_0", "-o", "/t.csv"),
        "/collected/rows/method_new/seed_0/attenscribble_summary.json",
    ),
    Thrown(("report", "/collected", "-o", "/report"), "/collected/collected.json"),
    Thrown(("report", "/collected", "-o", "/report"), "/collected/comparison.json"),
    Thrown(
        ("report", "/collected", "-o", "/report"), "/collected/cells/seed_0/fold_0/method_new/attention/attention.json"
    ),
    Thrown(("start", "--plan", "/plans/mine/start.yaml", "--workers", "1"), "/plans/mine/start.yaml"),
    Thrown(_ATTENTION, f"{_MODEL}/dataset.json"),
    Thrown(_ATTENTION, f"{_MODEL}/plans.json"),
    Thrown(("prepare", _MODEL, "-i", f"{_RAW}/imagesTr", "-o", "/named", "--workers", "1"), f"{_MODEL}/dataset.json"),
    Thrown(("evaluate", f"{_MODEL}/fold_0/validation", f"/nnUNet_raw/{DENSE}/labelsTr"), f"{_MODEL}/dataset.json"),
    Thrown(("status",), f"{_MODEL}/fold_0/debug.json"),
    Thrown(_NEXT, "/drawing/next.json"),
    Thrown(_NEXT, f"{_RAW}/dataset.json"),
    Thrown(_NEXT, f"{_PREPROCESSED}/splits_final.json"),
    Thrown(("status",), f"{_PREPROCESSED}/nnUNetPlans.json"),
    Thrown(("status",), f"{_RAW}/dataset.json"),
    Thrown(_BENCHMARK, "/toy/toy.yaml"),
    Thrown(_BENCHMARK, "/toy/nnUNet_preprocessed/Dataset501_Toy/nnUNetPlans.json"),
    Thrown(_BENCHMARK, "/toy/nnUNet_preprocessed/Dataset501_Toy/splits_final.json"),
    Thrown(_BENCHMARK, "/toy/nnUNet_preprocessed/Dataset501_Toy/dataset.json"),
    Thrown(_BENCHMARK, "/toy/made/benchmark.json"),
    Thrown(_COLLECT, "/toy/toy.yaml"),
    Thrown(_COLLECT, "/toy/nnUNet_preprocessed/Dataset501_Toy/nnUNetPlans.json"),
    Thrown(_COLLECT, "/toy/nnUNet_preprocessed/Dataset501_Toy/splits_final.json"),
    Thrown(_KEPT, "/kept/trainings.json"),
    Thrown(("convert", "scribblebench", "/bench", "-d", "504", "--workers", "1"), "/bench/dataset.json"),
    Thrown((*_FOLDER, "--workers", "1"), "/pictures/a.json"),
]


# --- changes ---

_ODD = [
    *(
        "",
        " ",
        "ignore",
        "Ignore",
        "2d",
        "../..",
        "/",
        "a/b",
        "\n",
        "\x00",
        "ü",
        "$HOME",
        "$",
        "1",
        "-1",
        "NaN",
        "a" * 300,
    ),
    *(".nii.gz", ".tif", "CTNormalization", "inherits_from", "validation", "all"),
]
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([10**9, -(10**9), 2**63, 10**40]),
    st.sampled_from([0.0, 0.5, 1e300, -1.5, 1e-300, float("inf"), float("nan")]),
    st.sampled_from(_ODD),
    st.text(max_size=5),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_ODD) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def change(content: Any, draw: Callable) -> Any:
    """The content with one change somewhere in it."""
    place: Any = None
    key: Any = None
    here = content
    while isinstance(here, dict | list) and here and (place is None or draw(st.integers(0, 3))):
        place, key = here, draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here))))
        here = place[key]
    what = draw(st.sampled_from(["replace", "replace", "remove", "add", "move", "wrap"]))
    if place is None:
        return draw(_VALUES)
    if what == "replace":
        place[key] = draw(_VALUES)
    elif what == "remove":
        del place[key]
    elif what == "wrap":
        place[key] = [here] if draw(st.booleans()) else {"0": here}
    elif isinstance(place, dict):
        name = draw(st.sampled_from([*_ODD, *map(str, place)]))
        place[name] = draw(_VALUES) if what == "add" else place.pop(key)
    else:
        place.append(draw(_VALUES) if what == "add" else deepcopy(here))
    return content


@st.composite
def changed_text(draw: Callable, content: Any, dump: Callable[[Any], str]) -> bytes:
    """What the file holds instead."""
    kind = draw(st.sampled_from(["content"] * 8 + ["cut", "bytes", "deep", "twice"]))
    if kind == "bytes":
        return draw(st.sampled_from([b"", b"\xff\xfe", b"\x00", b"\xef\xbb\xbf{}", b"[", b"{}", b"[]", b"null", b"1"]))
    if kind == "deep":
        return b"[" * 50_000 + b"]" * 50_000
    content = deepcopy(content)
    if kind == "content":
        for _ in range(draw(st.integers(1, 3))):
            content = change(content, draw)
    text = dump(content)
    if kind == "cut":
        text = text[: draw(st.integers(0, len(text)))]
    if kind == "twice" and isinstance(content, dict) and content:
        text = text.rstrip()[:-1] + ", " + json.dumps(next(iter(content))) + ": 1}" if dump is json.dumps else text * 2
    return text.encode("utf-8", "surrogatepass")


# --- the folder that they are thrown at ---


_ARGUMENTS = {
    **{"n_stages": 2, "features_per_stage": [4, 4], "kernel_sizes": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]]},
    **{"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "conv_bias": True, "norm_op_kwargs": {}},
    **{"conv_op": "torch.nn.Conv2d", "norm_op": "torch.nn.InstanceNorm2d", "nonlin": "torch.nn.LeakyReLU"},
    **{"dropout_op": None, "dropout_op_kwargs": None, "nonlin_kwargs": {}},
}
_ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": _ARGUMENTS,
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}


def write_folder(folder: Path, monkeypatch) -> None:
    """Two tiny datasets, planned, with predictions, and a benchmark with results."""
    for variable in FOLDERS:
        (folder / variable).mkdir()
    rng = np.random.default_rng(0)
    dense = np.zeros((4, 12, 12), np.uint8)
    dense[1:3, 3:9, 3:9], dense[1:3, 5:7, 5:7] = 1, 2
    strokes = np.full_like(dense, 3)
    strokes[1:3, 4, 4:8], strokes[1:3, 5, 5:7], strokes[:, 1, 2:9] = 1, 2, 0

    def save(array: np.ndarray, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.5, 1.5, 6.0))
        sitk.WriteImage(image, str(file))

    names = {"background": 0, "shell": 1, "core": 2}
    for name, labels, drawn in ((NAME, names | {"ignore": 3}, strokes), (DENSE, names, dense)):
        raw, target = folder / "nnUNet_raw" / name, folder / "nnUNet_preprocessed" / name
        cases = {}
        for case in CASES:
            save((dense * 40 + rng.normal(0, 5, dense.shape)).astype(np.float32), raw / f"imagesTr/{case}_0000.nii.gz")
            save(drawn, raw / f"labelsTr/{case}.nii.gz")
            cases[case] = {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
        # With its cases listed, as nnU-Net starts a dozen processes to list a folder.
        described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
        splits = [{"train": list(CASES[:4]), "val": ["e"]}, {"train": list(CASES[1:]), "val": ["a"]}]
        target.mkdir()
        for place in (raw, target):
            (place / "dataset.json").write_text(json.dumps(described | {"dataset": cases}))
            (place / "splits_final.json").write_text(json.dumps(splits))
        (raw / "provenance.json").write_text(json.dumps({"dense_labels": DENSE, "options": {"seed": 0}}))
        intensities = {"mean": 40.0, "std": 20.0, "percentile_00_5": -10.0, "percentile_99_5": 90.0}
        plans = some_plans()
        plans["configurations"]["2d"]["architecture"] = _ARCHITECTURE
        plans["foreground_intensity_properties_per_channel"] = {"0": intensities}
        plans["configurations"]["2d"] |= {"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}
        plans["configurations"]["2d_w"] = {"inherits_from": "2d", "attenscribble": {"crf_weight": 0.5, "crf_radius": 3}}
        (target / "nnUNetPlans.json").write_text(json.dumps(plans))
        fingerprint = {"foreground_intensity_properties_per_channel": {"0": intensities}, "attenscribble": {}}
        fingerprint["median_relative_size_after_cropping"] = 1.0
        (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    write_drawing_folder(folder, save, strokes)
    save(dense, folder / "predictions" / "x.nii.gz")
    save(dense, folder / f"nnUNet_raw/{DENSE}/labelsTr/x.nii.gz")
    (folder / "predictions" / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nii.gz"}))
    write_collected(folder / "collected")
    drawn = f"../../nnUNet_raw/{NAME}"
    begun = {"images": f"{drawn}/imagesTr", "scribbles": f"{drawn}/labelsTr", "labels": {"shell": 1, "core": 2}}
    begun |= {"dataset_id": 504, "name": "Drawn", "channels": ["CT"], "undrawn_as_test": True, "spacing": [1.5, 1.5, 6]}
    (folder / "plans" / "mine").mkdir(parents=True)
    (folder / "plans" / "mine" / "start.yaml").write_text(yaml.safe_dump(begun))
    summaries = folder.glob("collected/cells/*/*/*/attenscribble_summary.json")
    write_kept(folder / "kept", {"/".join(file.parts[-4:-1]): read_summary(file) for file in sorted(summaries)})
    write_model(folder / _MODEL[1:], plans, described | {"labels": names | {"ignore": 3}})
    shutil.copytree(folder / "predictions", folder / _MODEL[1:] / "fold_0" / "validation", dirs_exist_ok=True)
    (folder / _MODEL[1:] / "fold_0" / "validation" / "dataset.json").unlink()
    shutil.copytree(folder / _RAW[1:], folder / "bench")
    for name, array in (("pictures", dense), ("strokes", strokes)):
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / "a.tif", array, photometric="minisblack")
        (folder / name / "a.json").write_text(json.dumps({"spacing": [6.0, 1.5, 1.5]}))
    (folder / "toy").mkdir()
    toy = Toy(folder / "toy", monkeypatch)
    toy.work = folder / "toy" / "made"
    toy.work.mkdir()
    own = {"nnUNet_raw": str(toy.raw), "nnUNet_preprocessed": str(toy.preprocessed)}
    (toy.work / "benchmark.json").write_text(json.dumps(own))
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plain = get_network_from_plans(*_ARCHITECTURE.values(), 1, 3)
    torch.save({"network_weights": plain.state_dict()}, folder / "plain.pth")
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(folder / variable))
    monkeypatch.setenv("ATTENSCRIBBLE_QUIET", "1")
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    monkeypatch.chdir(folder)


def write_model(folder: Path, plans: dict, description: dict) -> None:
    """A tiny network of random weights, as a training leaves it."""
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_attenscribble.trainers.nnUNetTrainerAttenScribble import nnUNetTrainerAttenScribble

    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = plans["configurations"]["2d"] | {
        **{"patch_size": [16, 16], "median_image_size_in_voxels": [12, 12], "architecture": _ARCHITECTURE},
        **{"preprocessor_name": "DefaultPreprocessor", "resampling_fn_data": "resample_data_or_seg_to_shape"},
        **{"resampling_fn_data_kwargs": resampling, "attenscribble": {"similarity_radius": 1}},
    }
    plans = plans | {
        **{"configurations": {"2d": configuration}, "dataset_name": NAME, "image_reader_writer": "SimpleITKIO"},
        **{"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager"},
    }
    manager = PlansManager(plans)
    network = nnUNetTrainerAttenScribble.build_network_architecture(
        manager, manager.get_configuration("2d"), 1, 3, enable_deep_supervision=False
    )
    (folder / "fold_0").mkdir(parents=True)
    checkpoint = {"trainer_name": "nnUNetTrainerAttenScribble", "init_args": {"configuration": "2d"}}
    torch.save(checkpoint | {"network_weights": network.state_dict()}, folder / "fold_0" / "checkpoint_final.pth")
    (folder / "fold_0" / "debug.json").write_text(json.dumps({"num_epochs": "5"}))
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(description))


def write_drawing_folder(folder: Path, save: Callable[[np.ndarray, Path], None], strokes: np.ndarray) -> None:
    """A trained model, and strokes that were drawn since on a training case and on a further one."""
    place = folder / "nnUNet_results" / NAME / "nnUNetTrainerAttenScribble__nnUNetPlans__2d" / "fold_all"
    place.mkdir(parents=True)
    (place / "checkpoint_final.pth").write_bytes(b"weights")
    shown = np.array([3, 1, 2, 0], np.uint8)[strokes]  # as tools have it
    shown[0, 0, 0] = 2
    entries = {}
    for case in ("a", "new"):
        images = folder / "nnUNet_raw" / NAME / "imagesTr" if case == "a" else folder / "further"
        if case == "new":
            save(np.arange(strokes.size, dtype=np.float32).reshape(strokes.shape), images / "new_0000.nii.gz")
        save(shown, folder / "drawing" / case / f"{case}_strokes.nii.gz")
        own = {"images": [str(images / f"{case}_0000.nii.gz")], "is_training": case == "a"}
        entries[case] = own | {"strokes": "another", "prediction": "none"}
    content = {"dataset": NAME, "tool": "itk-snap", "slices": [], "files": ["next.csv"], "cases": entries}
    (folder / "drawing" / "next.json").write_text(json.dumps(content))


def spare_what_takes_long(monkeypatch) -> None:
    """nnU-Net's processes, drawing, and the command line that typer builds anew for every call."""
    built = typer.main.get_command(app)
    monkeypatch.setattr(typer.main, "get_command", lambda _: built)
    from matplotlib.figure import Figure
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    found = {"trainers": {name: {"folder": str(trainers_folder())} for name in list_trainers()}}
    answer = {"gpus": [], "cuda": None, "mps": False, "broken": None, **found}
    monkeypatch.setattr(doctor, "ask_nnunet", lambda: lambda: answer)
    monkeypatch.setattr(doctor, "check_versions", lambda: [])
    intensities = {"0": dict.fromkeys(("mean", "std", "percentile_00_5", "percentile_99_5"), 1.0)}
    content = {"foreground_intensity_properties_per_channel": intensities, "median_relative_size_after_cropping": 1.0}

    def run(extractor, overwrite_existing=False):
        from nnunetv2.paths import nnUNet_preprocessed

        place = Path(nnUNet_preprocessed, extractor.dataset_name)
        place.mkdir()
        (place / "dataset_fingerprint.json").write_text(json.dumps(content))

    monkeypatch.setattr(DatasetFingerprintExtractor, "run", run)
    monkeypatch.setattr(Figure, "savefig", lambda figure, stream, **_: stream.write(b"picture"))


State = dict[str, tuple[int, int] | None]


def read_tree(folder: Path) -> State:
    """When each file was written and its bytes, by its name; None for a folder."""
    found: State = {}
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            told = os.lstat(os.path.join(here, name))
            found[os.path.join(here[len(str(folder)) + 1 :], name)] = (
                None if stat.S_ISDIR(told.st_mode) else (told.st_mtime_ns, told.st_size)
            )
    return found


def restore_tree(folder: Path, before: State, contents: dict[str, bytes]) -> None:
    now = read_tree(folder)
    for name in now.keys() - before.keys():
        shutil.rmtree(folder / name, ignore_errors=True) if now[name] is None else (folder / name).unlink(True)
    for name, told in before.items():
        if name in contents and now.get(name) != told:
            (folder / name).write_bytes(contents[name])
            os.utime(folder / name, ns=(told[0], told[0]))


def call(folder: Path, command: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and all that was printed; an exception that is no exit goes on."""
    words = [
        f"{word.partition('/')[0]}{folder}/{word.partition('/')[2]}" if "/" in word and word[0] in "/AB" else word
        for word in command
    ]
    printed = io.StringIO()
    before = sys.argv
    sys.argv = ["attenscribble", *words]
    try:
        with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    return int(ended.value.code or 0), printed.getvalue()


def throw(thrown: Thrown, folder: Path, examples: int) -> Counter:
    """Try so many changes.

    Returns:
        how many were `accepted` and `refused`.
    """
    file = folder / thrown.file[1:]
    untouched = read_tree(folder)
    contents = {name: (folder / name).read_bytes() for name in untouched if (folder / name).is_file()}
    is_json = file.suffix == ".json"
    text = file.read_text(encoding="utf-8")
    content, dump = (json.loads(text), json.dumps) if is_json else (yaml.safe_load(text), yaml.safe_dump)
    counts: Counter = Counter()
    code, printed = call(folder, thrown.command)
    assert code == 0 or thrown.command[0] == "doctor", printed
    restore_tree(folder, untouched, contents)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # a failing input is told as it is: shrinking it takes minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(changed_text(content, dump))
    def attempt(changed: bytes) -> None:
        file.write_bytes(changed)
        before = read_tree(folder)
        try:
            code, printed = call(folder, thrown.command)
            assert code in (0, 1, 2), printed
            assert "Traceback" not in printed
            if code:
                assert printed.strip(), "refused without a word"
                assert read_tree(folder) == before
            counts["refused" if code else "accepted"] += 1
        finally:
            restore_tree(folder, untouched, contents)

    attempt()
    return counts


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    write_folder(tmp_path, monkeypatch)
    spare_what_takes_long(monkeypatch)
    return tmp_path


def test_every_command_is_among_them():
    assert set(COMMANDS) == {thrown.name for thrown in THROWN} | OTHERS


@pytest.mark.parametrize("thrown", THROWN, ids=str)
def test_no_traceback_and_no_write(thrown, folder):
    throw(thrown, folder, 8)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("thrown", THROWN, ids=str)
def test_no_traceback_and_no_write_in_very_many(thrown, folder, record_property):
    counts = throw(thrown, folder, 2000)
    print(f"{thrown}: {counts.total()} tried, {counts['refused']} refused, {counts['accepted']} accepted")
    record_property("counts", dict(counts))
    # Inspection passes over what it can do without, and a state is told of whatever is there.
    assert counts["refused"] > 100 or thrown.command[0] in ("inspect", "status")
