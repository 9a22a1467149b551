from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import get_type_hints

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from typer.testing import CliRunner

from nnunet_attenscribble.cli import app
from nnunet_attenscribble.cli.training import configure, read_assignments
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.plans import (
    add_configuration,
    add_cpu_configuration,
    describe_difference,
    list_plans,
    nearest_labels,
    read_plans,
    resolve_configuration,
)
from nnunet_attenscribble.settings import PAPER


def some_plans():
    arguments = {
        "n_stages": 6,
        "features_per_stage": [32, 64, 128, 256, 512, 512],
        "kernel_sizes": [[3, 3]] * 6,
        "strides": [[1, 1]] + [[2, 2]] * 5,
        "n_conv_per_stage": [2] * 6,
        "n_conv_per_stage_decoder": [2] * 5,
    }
    base = {
        "data_identifier": "nnUNetPlans_2d",
        "spacing": [1.5, 1.5],
        "patch_size": [256, 224],
        "median_image_size_in_voxels": [239.5, 216.0],
        "batch_size": 56,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": {"network_class_name": "x.PlainConvUNet", "arch_kwargs": arguments},
    }
    return {"plans_name": "nnUNetPlans", "configurations": {"2d": base}}


def test_cpu_configuration_covers_the_same_field_of_view():
    plans = add_cpu_configuration(some_plans())
    small = resolve_configuration(plans, "2d_cpu")
    assert small["patch_size"] == [128, 112]
    assert small["spacing"] == [3.0, 3.0]
    assert small["batch_size"] == 12
    assert small["data_identifier"] == "nnUNetPlans_2d_cpu"
    assert small["attenscribble"] == {"similarity_radius": 2, "similarity_sigma_position": 3.0}  # the same field
    arguments = small["architecture"]["arch_kwargs"]
    assert arguments["features_per_stage"] == [16, 32, 64, 128, 128]
    assert arguments["n_stages"] == len(arguments["strides"]) == len(arguments["n_conv_per_stage"]) == 5
    assert len(arguments["n_conv_per_stage_decoder"]) == 4


def test_cpu_configuration_takes_the_settings_that_are_given():
    plans = add_cpu_configuration(some_plans(), settings={"similarity_radius": 4, "num_epochs": 5})
    expected = {"similarity_radius": 4, "similarity_sigma_position": 3.0, "num_epochs": 5}
    assert resolve_configuration(plans, "2d_cpu")["attenscribble"] == expected
    same_spacing = add_cpu_configuration(some_plans(), spacing_factor=1)
    assert "attenscribble" not in resolve_configuration(same_spacing, "2d_cpu")


def test_cpu_patch_is_a_multiple_of_the_strides_and_never_smaller_than_the_planned_field_of_view():
    plans = some_plans()
    plans["configurations"]["2d"]["patch_size"] = [160, 96]
    small = resolve_configuration(add_cpu_configuration(plans), "2d_cpu")
    assert small["patch_size"] == [80, 48]
    plans["configurations"]["2d"]["patch_size"] = [224, 192]
    assert resolve_configuration(add_cpu_configuration(plans, spacing_factor=1.9), "2d_cpu")["patch_size"] == [128, 112]
    given = resolve_configuration(add_cpu_configuration(plans, patch_size=(96, 80)), "2d_cpu")
    assert given["patch_size"] == [96, 80]


def test_cpu_configuration_of_a_volume_keeps_the_slice_axis():
    plans = some_plans()
    base = plans["configurations"]["2d"]
    base |= {"spacing": [5.0, 1.5, 1.5], "patch_size": [16, 256, 224], "median_image_size_in_voxels": [16, 240, 216]}
    arguments = base["architecture"]["arch_kwargs"]
    arguments |= {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]}
    small = resolve_configuration(add_cpu_configuration(plans), "2d_cpu")
    assert small["spacing"] == [5.0, 3.0, 3.0]
    assert small["patch_size"] == [16, 128, 112]


def test_residual_encoders_keep_their_blocks():
    plans = some_plans()
    arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    arguments["n_blocks_per_stage"] = [1, 3, 4, 6, 6, 6]
    del arguments["n_conv_per_stage"]
    small = resolve_configuration(add_cpu_configuration(plans), "2d_cpu")["architecture"]["arch_kwargs"]
    assert small["n_blocks_per_stage"] == [1, 3, 4, 6, 6]
    assert small["n_conv_per_stage_decoder"] == [1, 1, 1, 1]


@pytest.mark.parametrize("thin_strokes", [False, True])
def test_strokes_one_pixel_wide_survive_preprocessing(thin_strokes):
    """A slanting line on a slice that becomes coarser by a third; nnU-Net's own function, as it reads the plans."""
    plans = some_plans()
    name = "2d_thin"
    changes = nearest_labels(plans, "2d", name) if thin_strokes else {}
    plans = add_configuration(plans, "2d", name, {"crf_weight": 0.05}, changes)
    configured = PlansManager({**plans, "transpose_forward": [0, 1, 2]}).get_configuration(name)
    labels = np.full((1, 1, 90, 90), 4, dtype=np.int8)
    rows = np.arange(5, 85)
    labels[0, 0, rows, (10 + rows * 0.7).astype(int)] = 1
    out = configured.resampling_fn_seg(labels, (1, 68, 68), [10, 1.5, 1.5], [10, 1.5 * 90 / 68, 1.5 * 90 / 68])
    kept = (out == 1).sum() / (labels == 1).sum() * (90 / 68) ** 2
    assert (kept > 0.95) == thin_strokes, kept


def test_settings_add_up_along_the_inheritance():
    plans = add_configuration(some_plans(), "2d", "a", {"crf_weight": 0.5})
    plans = add_configuration(plans, "a", "b", {"num_epochs": 3})
    assert resolve_configuration(plans, "b")["attenscribble"] == {"crf_weight": 0.5, "num_epochs": 3}
    assert describe_difference(plans, "a", "b") == ["attenscribble.num_epochs: unset -> 3"]


def test_resolves_as_nnunet_does():
    plans = add_cpu_configuration(some_plans(), settings={"num_epochs": 3})
    plans = add_configuration(plans, "2d_cpu", "b", {"crf_weight": 0.5})
    for name in ("2d", "2d_cpu", "b"):
        theirs = PlansManager(plans).get_configuration(name).configuration
        assert resolve_configuration(plans, name) == theirs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("2d", "2d", {"crf_weight": 1}), "a configuration '2d' already"),
        (("3d", "x", {"crf_weight": 1}), "no configuration '3d'; there are 2d"),
        (("2d", "a/b", {"crf_weight": 1}), "configuration name 'a/b': use letters"),
        (("2d", "2d__crf", {"crf_weight": 1}), "configuration name '2d__crf'.* and no __, by which"),
        (("2d", "", {"crf_weight": 1}), "configuration name ''"),
        (("2d", "x", {"crf_wight": 1}), "unknown field 'crf_wight'"),
        (("2d", "x", {"crf_weight": -1}), "crf_weight is -1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(AttenScribbleError, match=message):
        add_configuration(some_plans(), *arguments)


def test_circular_inheritance():
    plans = some_plans()
    plans["configurations"]["2d"]["inherits_from"] = "2d"
    with pytest.raises(AttenScribbleError, match="inherits from itself"):
        resolve_configuration(plans, "2d")


def test_reading_what_is_no_plans_file(tmp_path):
    with pytest.raises(AttenScribbleError, match="nnUNetv2_plan_and_preprocess"):
        read_plans(tmp_path / "nnUNetPlans.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(AttenScribbleError, match="is no JSON"):
        read_plans(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(AttenScribbleError) as error:
        read_plans(tmp_path / "b.json")
    assert [problem.split(": ")[1] for problem in error.value.problems] == [
        "has no 'plans_name'",
        "has no 'configurations'",
    ]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("configurations",), [1], "'configurations' is [1]: it must be configurations by their names"),
        (("configurations", "2d"), None, "'configurations.2d' is None: it must be an object of keys and values"),
        (
            ("configurations", "2d", "inherits_from"),
            ["2d"],
            "'configurations.2d.inherits_from' is ['2d']: it must be text",
        ),
        (
            ("configurations", "2d", "patch_size"),
            [0, 8],
            "'configurations.2d.patch_size' is [0, 8]: it must be a list of 2",
        ),
        (("configurations", "2d", "attenscribble"), 5, "'configurations.2d.attenscribble' is 5: it must be settings"),
        (("plans_name",), None, "'plans_name' is None: it must be text"),
    ],
)
def test_plans_are_checked_where_they_are_read(tmp_path, place, value, problem):
    plans = some_plans()
    here = plans
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    (tmp_path / "a.json").write_text(json.dumps(plans))
    with pytest.raises(AttenScribbleError) as error:
        read_plans(tmp_path / "a.json")
    (told,) = error.value.problems
    assert told.startswith(f"{tmp_path / 'a.json'}: {problem}")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("n_stages", 9, "its network has 9 stages, and not every one has features, strides and a kernel"),
        ("strides", [[1, 1, 1]] * 6, "its patch has 2 axes, and not all of spacing, size and strides have"),
        ("strides", "all", "'architecture.arch_kwargs.strides' is 'all': it must be a list of strides"),
        ("features_per_stage", None, "'architecture.arch_kwargs.features_per_stage' is None: it must be a list"),
    ],
)
def test_a_network_that_cannot_be_made_smaller(key, value, problem):
    plans = some_plans()
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"][key] = value
    with pytest.raises(AttenScribbleError) as error:
        add_cpu_configuration(plans)
    assert error.value.problems[0].startswith(f"plans: configuration '2d': {problem}")


@pytest.mark.parametrize("factor", [14.1, float("inf"), float("nan")])
def test_a_spacing_that_leaves_nothing_of_the_patch_is_refused_with_what_it_can_be(factor):
    """The patch is 256 x 224, and five stages make a position of the deepest features 16 pixels wide."""
    with pytest.raises(AttenScribbleError, match="give 14 at most"):
        add_cpu_configuration(some_plans(), spacing_factor=factor)
    small = resolve_configuration(add_cpu_configuration(some_plans(), spacing_factor=14), "2d_cpu")
    assert small["patch_size"] == [32, 16]


def test_plans_have_any_name(tmp_path):
    for name in ("dataset", "dataset_fingerprint", "splits_final", "notes"):
        (tmp_path / f"{name}.json").write_text('{"configurations": {}}' if name != "notes" else "{}")
    for name in ("nnUNetPlans", "small", "my_plans_80G"):
        (tmp_path / f"{name}.json").write_text('{"configurations": {}}' if name == "small" else "[")
    assert [file.stem for file in list_plans(tmp_path)] == ["my_plans_80G", "nnUNetPlans", "small"]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw" / "Dataset502_Raw").mkdir(parents=True)
    folder = tmp_path / "Dataset501_Heart"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(some_plans()))
    labels = {"background": 0, "wall": 1, "ignore": 2}
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["configure", *arguments])


def test_command_writes_what_it_prints(dataset):
    result = run("501", "--name", "2d_crf05", "--set", "crf_weight=0.05", "--set", "padding=ignore")
    assert result.exit_code == 0
    assert "attenscribble.crf_weight: unset -> 0.05" in result.output
    written = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]
    expected = {"inherits_from": "2d", "attenscribble": {"crf_weight": 0.05, "padding": "ignore"}}
    assert written["2d_crf05"] == expected
    assert written["2d"] == some_plans()["configurations"]["2d"]


def test_calls_at_the_same_time_keep_what_the_others_add(dataset, monkeypatch):
    pytest.importorskip("fcntl")
    both = threading.Barrier(2, timeout=0.3)

    def read_together(file):
        content = read_plans(file)
        with suppress(threading.BrokenBarrierError):
            both.wait()
        return content

    monkeypatch.setattr("nnunet_attenscribble.plans.read_plans", read_together)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: configure("501", name=name, assignments=["crf_weight=1"]), "ab"))
    assert {"a", "b"} < set(read_plans(dataset / "nnUNetPlans.json")["configurations"])
    assert sorted(file.name for file in dataset.iterdir()) == ["dataset.json", "nnUNetPlans.json"]


def test_command_for_the_published_method(dataset):
    result = run("501", "--name", "2d_paper", "--paper", "--set", "warmup_epochs=1")
    assert result.exit_code == 0
    written = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]["2d_paper"]["attenscribble"]
    assert written == PAPER | {"warmup_epochs": 1}
    told = get_type_hints(configure, include_extras=True)["paper"].__metadata__[0].help.split(": ")[1].rstrip(".")
    assert read_assignments(told.split(", ")) == PAPER


def test_command_for_the_cpu(dataset):
    result = run("Dataset501_Heart", "--cpu", "--set", "num_epochs=5")
    assert result.exit_code == 0
    assert "nnUNetv2_preprocess -d 501 -c 2d_cpu\n" in result.output  # which takes numbers alone
    assert "2d_cpu" in json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"]


def test_other_plans_are_named_in_the_commands_that_come_next(dataset):
    (dataset / "nnUNetPlans.json").rename(dataset / "ResEncM.json")
    result = run("501", "--name", "2d_crf05", "--set", "crf_weight=0.05", "-p", "ResEncM")
    assert "nnUNetv2_train 501 2d_crf05 0 -tr nnUNetTrainerAttenScribble -p ResEncM\n" in result.output
    assert "nnUNetv2_preprocess -d 501 -plans_name ResEncM -c 2d_cpu\n" in run("501", "--cpu", "-p", "ResEncM").output


def test_batch_size_and_spacing_factor_of_the_cpu_configuration(dataset):
    planned = some_plans()["configurations"]["2d"]
    for arguments, factor, batch_size in (
        ((), 2.0, 12),
        (("--batch-size", "4", "--spacing-factor", "3"), 3.0, 4),
    ):
        assert run("501", "--cpu", "--name", f"x{batch_size}", *arguments).exit_code == 0
        written = json.loads((dataset / "nnUNetPlans.json").read_text())["configurations"][f"x{batch_size}"]
        assert written["batch_size"] == batch_size
        assert written["spacing"] == [edge * factor for edge in planned["spacing"]]


@pytest.mark.parametrize("arguments", [("--cpu",), ("--name", "2d_cpu")])
def test_command_for_thin_strokes(dataset, arguments):
    result = run("501", "--thin-strokes", *arguments)
    assert result.exit_code == 0
    assert "resampling_fn_seg_kwargs.order: 1 -> 0" in result.output
    assert "nnUNetv2_preprocess -d 501 -c 2d_cpu" in result.output  # its labels are preprocessed by themselves
    plans = json.loads((dataset / "nnUNetPlans.json").read_text())
    assert resolve_configuration(plans, "2d_cpu")["data_identifier"] == "nnUNetPlans_2d_cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("501",), "--name"),
        (("501", "--name", "x"), "change nothing"),
        (("501", "--name", "x", "--set", "crf_weight"), "name=value"),
        (("501", "--name", "x", "--set", "crf_weight=-1"), "crf_weight is -1"),
        (
            ("501", "--name", "x", "--set", 'class_weights={"Wall": 2}'),
            "labels of one value are background, wall",
        ),
        (("501", "--name", "a b", "--set", "padding=ignore"), "configuration name 'a b'"),
        (("501", "--name", "", "--thin-strokes"), "configuration name ''"),
        (("501", "--name", "", "--cpu"), "configuration name ''"),
        (
            ("501", "--name", "x", "--set", 'class_weights={"wall": 2, "wall": 3}'),
            "--set class_weights: the key 'wall' stands twice",
        ),
        (("502", "--cpu"), "(from nnUNet_preprocessed): plan Dataset502_Raw first"),
        (("Dataset502_Raw", "--cpu"), "(from nnUNet_preprocessed): plan Dataset502_Raw first"),
        (("heart", "--cpu"), "neither an ID"),
        (("501", "--cpu", "-p", "Other"), "has no plans of this name; it has nnUNetPlans"),
        (("501", "--cpu", "-p", "nnUNetPlans.json"), "has no plans of this name; it has nnUNetPlans"),
        (("501", "--cpu", "-p", "../Dataset501_Tiny/nnUNetPlans"), "has no plans of this name"),
        (("501", "--name", "x", "--thin-strokes", "--batch-size", "4"), "--batch-size is only for --cpu"),
        (
            ("501", "--name", "x", "--set", "padding=ignore", "--spacing-factor", "1"),
            "--spacing-factor is only for --cpu",
        ),
        (("501", "--batch-size", "4", "--spacing-factor", "3"), "--batch-size is only for --cpu"),
    ],
)
def test_command_refuses_and_leaves_the_file(dataset, arguments, message):
    before = (dataset / "nnUNetPlans.json").read_bytes()
    result = run(*arguments)
    assert isinstance(result.exception, AttenScribbleError)
    assert message in str(result.exception)
    assert (dataset / "nnUNetPlans.json").read_bytes() == before


def test_a_dataset_that_is_nowhere_cannot_be_planned(dataset):
    assert str(run("777", "--cpu").exception).endswith("(from nnUNet_preprocessed)")


@pytest.mark.parametrize("ignore", [[2, 3], 10**13])
def test_class_weights_of_labels_that_nnunet_would_not_take(dataset, ignore):
    file = dataset / "dataset.json"
    content = json.loads(file.read_text())
    content["labels"]["ignore"] = ignore
    file.write_text(json.dumps(content))
    result = run("501", "--name", "x", "--set", 'class_weights={"wall": 2}')
    assert isinstance(result.exception, AttenScribbleError)


def test_class_weights_where_the_channels_go_by_their_old_name(dataset):
    file = dataset / "dataset.json"
    file.write_text(file.read_text().replace("channel_names", "modality"))
    assert run("501", "--name", "x", "--set", 'class_weights={"wall": 2}').exit_code == 0


@pytest.mark.parametrize("options", [["--set", "crf_weight=0.05"], ["--paper"]], ids=" ".join)
def test_settings_for_dense_labels_are_refused(dataset, options):
    file = dataset / "dataset.json"
    content = json.loads(file.read_text())
    del content["labels"]["ignore"]
    file.write_text(json.dumps(content))
    before = (dataset / "nnUNetPlans.json").read_text()
    problem = str(run("501", "--name", "x", *options).exception)
    assert "has no `ignore` label, so its labels are dense" in problem
    assert (dataset / "nnUNetPlans.json").read_text() == before
    assert run("501", "--cpu").exit_code == 0


def test_command_without_nnunets_folder(monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert "nnUNet_preprocessed is not set" in str(run("501", "--cpu").exception)


def test_the_second_stage_of_a_cascade_has_no_copy_and_that_of_the_first_no_second():
    plans = some_plans()
    low, full = ({**plans["configurations"]["2d"]} for _ in range(2))
    low["next_stage"], full["previous_stage"] = "full", "low"
    plans["configurations"] |= {"low": low, "full": full}
    with pytest.raises(AttenScribbleError, match=r"'full' is the second stage of a cascade.*under the key 'attenscr"):
        add_configuration(plans, "full", "full_crf05", {"crf_weight": 0.05})
    copied = add_configuration(plans, "low", "low_crf05", {"crf_weight": 0.05})
    assert PlansManager(copied).get_configuration("low_crf05").next_stage_names is None


def test_a_window_that_is_off_stays_off_on_a_processor():
    plans = some_plans()
    plans["configurations"]["2d"]["attenscribble"] = {"similarity_radius": 0}
    small = resolve_configuration(add_cpu_configuration(plans), "2d_cpu")
    assert small["attenscribble"]["similarity_radius"] == 0
