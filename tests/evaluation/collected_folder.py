"""A collected benchmark of toy data, as `attenscribble benchmark collect` would leave it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_attenscribble.evaluation.attention_folder import PairMean, write_record
from nnunet_attenscribble.evaluation.compare import compare_summaries
from nnunet_attenscribble.evaluation.comparison_files import WRITERS
from nnunet_attenscribble.evaluation.metrics import compute_scores, select_structure
from nnunet_attenscribble.evaluation.pooling import pool_runs
from nnunet_attenscribble.evaluation.report.attention import AttentionView, write_view
from nnunet_attenscribble.evaluation.structures import Structure, count_confusion
from nnunet_attenscribble.evaluation.summary import SUMMARY_FILE, Summary, write_summary

STRUCTURES = (Structure("RV", (1,)), Structure("LV", (2,)))
CASES = ("p1", "p2", "p3", "p4")
SPACING = (10.0, 2.0, 1.0)  # z, y, x
SHAPE = (3, 20, 24)
ROWS = (("Dense & full", "dense"), ("Partial CE", "scribble"), ("Method <new>", "scribble"))
SLUGS = {"Dense & full": "dense_full", "Partial CE": "partial_ce", "Method <new>": "method_new"}
BLOCK = "Method <new>"  # the row whose network has the attention block
# By row, how far the RV is moved along x in each case; None: the RV is missed.
SHIFTS = {"Dense & full": (0, 1, 1, 2), "Partial CE": (2, 3, None, 4), "Method <new>": (1, 0, 2, 3)}


def make_dense() -> np.ndarray:
    """Labels (3, 20, 24): most of the RV is in slice 1."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 6:8, 4:8] = 1
    labels[1, 5:11, 4:10] = 1
    labels[1:, 6:12, 14:18] = 2
    return labels


def make_prediction(shift: int | None) -> np.ndarray:
    dense = make_dense()
    labels = np.where(dense == 2, 2, 0).astype(np.uint8)
    if shift is not None:
        labels[np.roll(dense == 1, shift, axis=2)] = 1
    return labels


def write_image(file: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file))


def write_collected(folder: Path, *, seeds: tuple[int, ...] = (0,), missing: tuple[str, ...] = ()) -> Path:
    """Write the folder; `missing` are cells without a result."""
    data = folder.parent / "data"
    for number, case in enumerate(CASES):
        noise = np.random.default_rng(number).normal(0, 5, SHAPE)
        write_image(data / "images" / f"{case}_0000.nii.gz", (make_dense() * 40 + noise).astype(np.float32))
        write_image(data / "labels" / f"{case}.nii.gz", make_dense())
        scribble = np.full(SHAPE, 3, np.uint8)
        scribble[1, 7, 5:9], scribble[1, 8, 15:17], scribble[1, 2, 3:20] = 1, 2, 0
        write_image(data / "scribbles" / f"{case}.nii.gz", scribble)
    place = folder / "test" / "fold_0"
    place.mkdir(parents=True)
    for kind in ("images", "labels"):
        (place / kind).symlink_to(data / kind)
    cells, found = [], {name: {} for name, _ in ROWS}
    for seed in seeds:
        for name, labels in ROWS:
            cell = f"seed_{seed}/fold_0/{SLUGS[name]}"
            done = cell not in missing
            if done:
                found[name][seed] = _write_cell(folder / "cells" / cell, name, labels, seed)
            own = {"state": "done", "folder": f"cells/{cell}", "lacks": None}
            lacking = {"state": "missing", "folder": None, "lacks": "training"}
            cells.append({"cell": cell, "row": name, "seed": seed, "fold": "0", **(own if done else lacking)})
    rows = []
    for name, labels in ROWS:
        for seed, summary in found[name].items():
            write_summary(summary, folder / "rows" / SLUGS[name] / f"seed_{seed}")
        files = [f"rows/{SLUGS[name]}/seed_{seed}/{SUMMARY_FILE}" for seed in found[name]]
        row = {"name": name, "slug": SLUGS[name], "labels": labels, "trainer": "nnUNetTrainer", "plans": "nnUNetPlans"}
        row |= {"configuration": "2d", "settings": {"crf_weight": 0.5}, "summaries": files, "compared": files}
        budget = {"epochs": 3, "iterations": 250, "batch_size": 2, "attention": name == BLOCK}
        rows.append(row | {"budget": budget})
    reference = ROWS[0][0]
    note = "A note with <b>markup</b>."
    pooled = {name: pool_runs(name, list(own.values())) for name, own in found.items() if own}
    compared = reference in pooled
    if compared:
        pooled[reference] = replace(pooled[reference], notes=(note,))
        comparison = compare_summaries(pooled, reference, resamples=200)
        for ending, convert in WRITERS.items():
            (folder / f"comparison{ending}").write_text(convert(comparison), encoding="utf-8")
    content = {
        "schema": "nnunet-attenscribble/collected",
        "schema_version": 1,
        "name": "Toy & more",
        "reference": reference,
        "subject": None,
        "datasets": {"scribble": "Dataset501_Toy", "dense": "Dataset502_ToyDense"},
        "test": {
            "kind": "validation",
            "text": "The validation patients.",
            "folds": {"0": {"images": "test/fold_0/images", "labels": "test/fold_0/labels", "cases": list(CASES)}},
        },
        "scribbles": {"folder": str(data / "scribbles"), "file_ending": ".nii.gz", "ignore": 3},
        "selection": ["No checkpoint was selected on any case."],
        "notes": [note],
        "versions": {},
        "commit": None,
        "rows": rows,
        "cells": cells,
        "comparison": {ending[1:]: f"comparison{ending}" for ending in WRITERS} if compared else None,
        "comparison_postprocessed": None,
    }
    (folder / "collected.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _write_cell(place: Path, name: str, labels: str, seed: int) -> Summary:
    cases, confusions = {}, {}
    for case, shift in zip(CASES, SHIFTS[name], strict=True):
        moved = None if shift is None else shift + seed
        prediction, dense = make_prediction(moved), make_dense()
        write_image(place / "predictions" / f"{case}.nii.gz", prediction)
        confusions[case] = count_confusion(prediction, dense, STRUCTURES)
        cases[case] = {
            structure.name: compute_scores(
                select_structure(prediction, structure.values), select_structure(dense, structure.values), SPACING
            )
            for structure in STRUCTURES
        }
    provenance = {"trainer": "nnUNetTrainer", "plans_sha256": "a1" * 32, "commit": "c0ffee" * 6 + "-dirty"}
    summary = Summary(
        STRUCTURES,
        cases,
        dict.fromkeys(CASES, SHAPE),
        dict.fromkeys(CASES, SPACING),
        confusions=confusions,
        provenance={**provenance, "seed": str(seed)},
        versions={"nnunetv2": "2.8.1", "torch": "2.9"},
    )
    write_summary(summary, place)
    lines = "epoch,learning_rate,train_loss,val_loss,pseudo_dice_1,pseudo_dice_2,seconds\n"
    lines += "".join(f"{epoch},0.01,{1 / (epoch + 1)},{0.5 + seed},0.{epoch + 1},nan,9\n" for epoch in range(3))
    (place / "training_log.csv").write_text(lines)
    if name == BLOCK:
        write_attention(place / "attention", seed)
    if labels == "scribble":
        terms = "epoch,segmentation,crf,mean_similarity,annotated,total\n"
        terms += "".join(f"{epoch},{0.5 + epoch},100,0.4,0.01,{0.75 + epoch}\n" for epoch in range(3))
        (place / "loss_terms.csv").write_text(terms)
    return summary


def make_view(case: str, *, similarity: bool = True) -> AttentionView:
    """A grid of 2 x 3 cells over 20 x 24 pixels, seen from the middle of its upper row."""
    attention = np.array([[0.1, 0.2, 0.1], [0.0, 0.1, 0.0]], np.float32)  # half of it lies in other planes
    near = np.array([[0.9, np.nan, 0.25], [np.nan, 0.5, np.nan]], np.float32)
    image = make_dense()[1].astype(np.float32)
    near = near if similarity else np.full_like(near, np.nan)
    return AttentionView(case, "RV", image, attention, near, (0, 1), 18, 1, (2.0, 1.0))


def write_attention(folder: Path, seed: int = 0) -> None:
    """Two cases; the similarity of the second repetition is a tenth higher."""
    folder.mkdir(parents=True)
    more = 0.1 * seed
    pairs = [
        PairMean("p1", "window", "background", "background", 30, 0.6 + more),
        PairMean("p1", "window", "RV", "RV", 10, 0.8 + more),
        PairMean("p1", "window", "background", "RV", 20, 0.3 + more),
        PairMean("p2", "window", "background", "background", 10, 0.45 + more),
        PairMean("p1", "adjacent", "background", "RV", 5, 0.35 + more),
    ]
    for case in ("p1", "p2"):
        write_view(make_view(case), folder / f"{case}.npz")
    write_record(folder, {"labels": "dense", "cases": ["p1", "p2"]}, pairs)


def read_csv(file: Path) -> list[dict]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))
