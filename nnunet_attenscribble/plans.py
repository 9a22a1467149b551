"""Configurations added to a plans file: settings of the method, and a small network for the CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import ceil, prod
from pathlib import Path
from typing import Any

from nnunet_attenscribble.common.nnunet import CONVOLUTIONAL, PLANS_SHAPE
from nnunet_attenscribble.common.shapes import mapping, read_if_shaped, read_shaped, shape_problems
from nnunet_attenscribble.common.text import list_some
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.settings import KEY, AttenScribbleSettings

CPU_FEATURES = (16, 32, 64, 128, 128)
_NO_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")  # beside them


def resolve_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with everything it inherits, as nnU-Net resolves it.

    Raises:
        AttenScribbleError: for a name that the plans do not hold, or circular inheritance.
    """
    chain: list[str] = []
    merged: dict[str, Any] = {}
    following: str | None = name
    while following is not None:
        if following not in plans["configurations"]:
            known = ", ".join(plans["configurations"])
            raise AttenScribbleError(f"plans: no configuration '{following}'; there are {known}")
        if following in chain:
            raise AttenScribbleError(f"plans: configuration '{name}' inherits from itself: {' <- '.join(chain)}")
        chain.append(following)
        own = plans["configurations"][following]
        merged = {**own, **merged}
        following = own.get("inherits_from")
    return deepcopy(merged)


def add_configuration(
    plans: Mapping[str, Any],
    base: str,
    name: str,
    settings: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Plans with one configuration more, which inherits from another.

    Args:
        plans: content of a plans file; not changed.
        base: configuration to inherit from.
        name: of the new one.
        settings: fields of `AttenScribbleSettings`, on top of those that the base carries.
        changes: further keys of the configuration.

    Raises:
        AttenScribbleError: if the name is taken or none for a folder, the base unknown or the second stage of a
            cascade, or a setting refused.
    """
    resolved = resolve_configuration(plans, base)
    if resolved.get("previous_stage"):
        raise AttenScribbleError(
            f"plans: '{base}' is the second stage of a cascade, and its first stage '{resolved['previous_stage']}' "
            f"predicts for no other name: write the settings by hand, under the key '{KEY}' of '{base}' itself"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or "__" in name:
        raise AttenScribbleError(
            f"configuration name {name!r}: use letters, digits, _, . and - only, and no __, by which nnU-Net separates "
            "trainer, plans and configuration in names of folders"
        )
    if name in plans["configurations"]:
        raise AttenScribbleError(f"plans: there is a configuration '{name}' already; choose another name with --name")
    merged = {**resolved.get(KEY, {}), **settings}
    AttenScribbleSettings.from_configuration({**resolved, **(changes or {}), KEY: merged})
    new = {"inherits_from": base, **(changes or {})}
    if resolved.get("next_stage"):
        new["next_stage"] = None  # the second stage reads the predictions of the base
    if merged:
        new[KEY] = merged
    return {**plans, "configurations": {**plans["configurations"], name: new}}


def add_cpu_configuration(
    plans: Mapping[str, Any],
    base: str = "2d",
    name: str = "2d_cpu",
    *,
    spacing_factor: float = 2.0,
    batch_size: int = 12,
    features: Sequence[int] = CPU_FEATURES,
    patch_size: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    thin_strokes: bool = False,
) -> dict[str, Any]:
    """Plans with a configuration small enough for training on a CPU.

    The in-plane spacing becomes coarser by `spacing_factor` and the patch smaller by the same, so that it covers what
    the planned one covers: trained from scribbles, a network that does not see the whole slice finds the organ in
    many places. The network has one stage per entry of `features`, two convolutions each. In the plane the similarity's
    window covers what it would have covered at the planned spacing.

    Args:
        plans, base, name, settings: see `add_configuration`. The base may be 2D or 3D; the slice axis stays as planned.
        spacing_factor: 1 leaves the spacing; refused where the patch would be less than one position of the network's
            deepest features.
        batch_size: patches per batch.
        features: channels per stage.
        patch_size: in voxels, each a multiple of the network's strides. None: as said above.
        thin_strokes: see `nearest_labels`.
    """
    planned = resolve_configuration(plans, base)
    ndim = check_network(planned, base)
    architecture = _shrink_network(planned["architecture"], features)
    stages, strides = (architecture["arch_kwargs"][key] for key in ("n_stages", "strides"))
    factors = [1.0] * (ndim - 2) + [spacing_factor] * 2
    steps = [prod(stride[axis] for stride in strides) for axis in range(ndim)]
    most = min(size / step for size, step in list(zip(planned["patch_size"], steps, strict=True))[-2:])
    if not spacing_factor <= most:  # nor NaN
        raise AttenScribbleError(
            f"spacing factor {spacing_factor:g}: the patch {planned['patch_size']} of '{base}' would be nothing "
            f"behind a network of {stages} stages: give {most:g} at most"
        )
    sizes = zip(planned["patch_size"], factors, steps, strict=True)
    changes = {
        "data_identifier": f"{plans['plans_name']}_{name}",
        "spacing": [s * f for s, f in zip(planned["spacing"], factors, strict=True)],
        "patch_size": list(patch_size or (ceil(size / factor / step) * step for size, factor, step in sizes)),
        "median_image_size_in_voxels": [
            size / f for size, f in zip(planned["median_image_size_in_voxels"], factors, strict=True)
        ],
        "batch_size": batch_size,
        "architecture": architecture,
        **(nearest_labels(plans, base, name) if thin_strokes else {}),
    }
    usual = AttenScribbleSettings.from_configuration(planned)
    window: dict[str, Any] = {}
    if isinstance(usual.similarity_radius, int) and usual.similarity_radius > 0:
        window["similarity_radius"] = max(1, int(usual.similarity_radius / spacing_factor))
    window["similarity_sigma_position"] = usual.similarity_sigma_position / spacing_factor
    return add_configuration(plans, base, name, (window if spacing_factor > 1 else {}) | dict(settings or {}), changes)


def _shrink_network(architecture: Mapping[str, Any], features: Sequence[int]) -> dict[str, Any]:
    """The first stages of a planned network, with other features and two convolutions each."""
    arguments = architecture["arch_kwargs"]
    stages = min(len(features), arguments["n_stages"])
    changed = {
        "n_stages": stages,
        "features_per_stage": list(features[:stages]),
        "kernel_sizes": arguments["kernel_sizes"][:stages],
        "strides": arguments["strides"][:stages],
        "n_conv_per_stage_decoder": [2 if "n_conv_per_stage" in arguments else 1] * (stages - 1),
    }
    if "n_conv_per_stage" in arguments:
        changed["n_conv_per_stage"] = [2] * stages
    if "n_blocks_per_stage" in arguments:  # of a residual encoder
        changed["n_blocks_per_stage"] = arguments["n_blocks_per_stage"][:stages]
    return {**architecture, "arch_kwargs": {**arguments, **changed}}


def nearest_labels(plans: Mapping[str, Any], base: str, name: str) -> dict[str, Any]:
    """Keys with which configuration `name` is preprocessed with each label taken from the nearest voxel.

    nnU-Net resamples labels linearly, which takes away up to an eighth of strokes that are one voxel wide.
    """
    planned = resolve_configuration(plans, base)
    if "resampling_fn_seg_kwargs" not in planned:
        raise AttenScribbleError(f"plans: configuration '{base}' does not say how labels are resampled: plan again")
    return {
        "data_identifier": f"{plans['plans_name']}_{name}",
        "resampling_fn_seg_kwargs": {**planned["resampling_fn_seg_kwargs"], "order": 0},
    }


def describe_difference(plans: Mapping[str, Any], base: str, name: str) -> list[str]:
    """What a configuration changes against another, one line per value."""
    old, new = _flatten(resolve_configuration(plans, base)), _flatten(resolve_configuration(plans, name))
    keys = [key for key in dict.fromkeys([*old, *new]) if key != "inherits_from" and old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key, 'unset')} -> {new.get(key, 'unset')}" for key in keys]


def read_plans(file: Path, advice: str = "plan the dataset again") -> dict[str, Any]:
    """Read a plans file.

    Args:
        file: to read.
        advice: what to do where it is not in order.

    Raises:
        AttenScribbleError: where there is none, or it is not what nnU-Net's planning writes.
    """
    if not file.exists():
        raise AttenScribbleError(f"no plans file {file}: run nnUNetv2_plan_and_preprocess first")
    return read_shaped(file, PLANS_SHAPE, advice)


def name_plans_file(folder: Path, name: str) -> Path:
    """The plans file that nnU-Net's `-p NAME` means in a dataset's preprocessed folder.

    Raises:
        AttenScribbleError: where there is none, with the names of those that are there.
    """
    file = folder / f"{name}.json"
    if file.parent != folder or not file.is_file():
        there = list_some([plans.stem for plans in list_plans(folder)]) or "none, so plan it first"
        raise AttenScribbleError(f"-p {name}: {folder.name} has no plans of this name; it has {there}")
    return file


def list_plans(folder: Path) -> list[Path]:
    """The plans files in a dataset's preprocessed folder, whatever their names: nnU-Net takes any by `-p NAME`."""
    return [
        file
        for file in sorted(folder.glob("*.json"))
        if file.name not in _NO_PLANS
        and ("plans" in file.stem.casefold() or "configurations" in read_if_shaped(file, mapping()))
    ]


def check_network(configuration: Mapping[str, Any], name: str) -> int:
    """The number of axes of a configuration, resolved, whose network is a convolutional one of nnU-Net's.

    Raises:
        AttenScribbleError: every key that is not as nnU-Net plans such a network.
    """
    problems = list(shape_problems(configuration, CONVOLUTIONAL))
    if not problems:
        axes, arguments = len(configuration["patch_size"]), configuration["architecture"]["arch_kwargs"]
        per_axis = [configuration["spacing"], configuration["median_image_size_in_voxels"]]
        per_axis += arguments["strides"]
        if any(len(values) != axes for values in per_axis):
            problems.append(f"its patch has {axes} axes, and not all of spacing, size and strides have")
        stages = arguments["n_stages"]
        if any(len(arguments[key]) < stages for key in ("features_per_stage", "strides", "kernel_sizes")):
            problems.append(f"its network has {stages} stages, and not every one has features, strides and a kernel")
    refuse(f"plans: configuration '{name}': {problem}: plan again" for problem in problems)
    return axes


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
