"""How much was annotated for a training, measured in the labels that it was given."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from nnunet_attenscribble.common.files import read_json
from nnunet_attenscribble.common.readers import find_reader
from nnunet_attenscribble.common.volumes import slice_axis
from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.annotation import ANNOTATED, Annotation, count_annotation
from nnunet_attenscribble.evaluation.benchmark.test_set import list_training_cases, read_fold
from nnunet_attenscribble.evaluation.benchmark.workspace import Workspace
from nnunet_attenscribble.evaluation.scoring import read_label_image
from nnunet_attenscribble.evaluation.structures import read_label_coding

__all__ = ["AnnotationReader"]


class AnnotationReader:
    """Annotation of trainings on scribbles; every file of labels is read once."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._measure = cache(self._measure_dataset)

    def measure(self, dataset: str, fold: str) -> Annotation:
        """The mean over the cases that a fold trains with.

        Raises:
            AttenScribbleError: labels are not there, or cannot be read.
        """
        found = self._measure(dataset)
        cases = list(found) if fold == "all" else read_fold(self._workspace, dataset, fold)["train"]
        if lacking := sorted(set(cases) - set(found)):
            raise AttenScribbleError(f"{self._workspace.raw / dataset} has no labels of {', '.join(lacking)}")
        means = np.mean([[getattr(found[case], name) for name in ANNOTATED] for case in cases], axis=0).tolist()
        return Annotation(*means)

    def _measure_dataset(self, dataset: str) -> dict[str, Annotation]:
        folder = self._workspace.raw / dataset
        ignore = read_label_coding(folder / "dataset.json").ignore
        if ignore is None:
            raise AttenScribbleError(f"{folder / 'dataset.json'} has no label 'ignore': its labels are no scribbles")
        description, found, problems = read_json(folder / "dataset.json", "convert it again"), {}, []
        for case, entry in list_training_cases(self._workspace, dataset).items():
            file = Path(entry["label"])
            try:
                image = read_label_image(file, find_reader(description, file))
            except (OSError, ValueError) as error:
                problems.append(f"{file} cannot be read: {error}")
                continue
            axis = slice_axis(image.labels.shape, image.spacing) if image.labels.ndim == 3 else 0
            found[case] = count_annotation(image.labels, axis, ignore)
        if problems:
            raise AttenScribbleError(problems)
        return found
