"""PartialDiceCE plus agreement with a teacher where the teacher is sure."""

from __future__ import annotations

import random
from math import log
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnunet_attenscribble.losses.rival import RivalTerm, is_inside
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerTeacher, sigmoid_rise

_NOISES = 8  # by which the teacher's uncertainty is estimated


class TeacherPrediction(NamedTuple):
    """What a teacher makes of a batch.

    Attributes:
        probabilities: (N, C, *S), of the turned and noisy images.
        mean: (N, C, *S), mean over further noises of the same turned images.
        turns: by how many quarters the last two axes were turned.
    """

    probabilities: Tensor
    mean: Tensor
    turns: int


class UncertainTeacherLoss(RivalTerm):
    """L = sum_i m_i |p_i - t_i|^2 / (2 sum_i m_i), with m_i = 1 where the teacher's entropy is below a threshold.

    The teacher t sees the image turned by quarters and with noise; the student's prediction p is turned likewise. The
    entropy is that of the mean over further noises. The threshold rises with the training from 0.75 to 1 times log 2,
    for any number of classes: (0.75 + 0.25 exp(-5 (1 - progress)^2)) log 2.

    Reference: Liu et al., "Weakly supervised segmentation of COVID19 infection with scribble annotation on CT images",
    Pattern Recognition 2022 (USTM), as in WSL4MIS (Luo et al. 2022).
    """

    name = "consistency"
    weight = 1.0

    def __init__(self) -> None:
        super().__init__()
        #: Share of the training that is done.
        self.progress = 0.0

    def forward(self, logits: Tensor, target: Tensor, image: Tensor, ignore_label: int, companion: Any) -> Tensor:
        """See `RivalTerm`; the companion is a `TeacherPrediction`."""
        student = torch.rot90(logits.softmax(dim=1), companion.turns, (-2, -1))
        inside = torch.rot90(is_inside(target), companion.turns, (-2, -1))
        mean = companion.mean.to(student.dtype)
        entropy = -torch.xlogy(mean, mean).sum(dim=1, keepdim=True)
        threshold = (0.75 + 0.25 * sigmoid_rise(self.progress)) * log(2)
        sure = (entropy < threshold) & inside
        squares = (student - companion.probabilities.to(student.dtype)).square().sum(dim=1, keepdim=True)
        return (squares * sure).sum() / (2 * sure.sum().clamp(min=1))


class nnUNetTrainerUSTM(nnUNetTrainerTeacher):
    """PartialDiceCE plus agreement with a teacher where the teacher is sure (USTM).

    Its teacher, at first the plain mean of the network's weights, sees nine noises of every batch, so that a step takes
    several times as long. Noise is normal with a standard deviation of 0.1, cut off at 0.2, of the range of a patch's
    intensities. Patches whose plane is no square are turned by halves.
    """

    term = UncertainTeacherLoss
    rise = 1.0

    def train_step(self, batch: dict) -> dict:
        """The threshold rises with the training."""
        done = self.current_epoch + self._steps / self.num_iterations_per_epoch
        self.loss.regularised.term.progress = done / self.num_epochs
        return super().train_step(batch)

    def _teacher_decay(self) -> float:
        steps = self.current_epoch * self.num_iterations_per_epoch + self._steps  # this one too
        return min(1 - 1 / steps, super()._teacher_decay())

    def ask_teacher(self, images: Tensor) -> TeacherPrediction:
        """See `TeacherPrediction`."""
        turns = random.randrange(4) if self._is_square() else random.choice((0, 2))
        turned = torch.rot90(images, turns, (-2, -1))
        size = measure_range(images)
        first, mean = self._predict_noisy(turned, size), self._predict_noisy(turned, size) / _NOISES
        for _ in range(_NOISES - 1):  # summed as they come: in 3D each is hundreds of megabytes
            mean += self._predict_noisy(turned, size) / _NOISES
        return TeacherPrediction(first, mean, turns)

    def _predict_noisy(self, images: Tensor, size: Tensor) -> Tensor:
        return self.predict_with_teacher(self._add_noise(images, size)).float().softmax(dim=1)

    def _add_noise(self, images: Tensor, size: Tensor) -> Tensor:
        noise = (0.1 * torch.randn_like(images)).clamp(-0.2, 0.2) * size
        noise[:, self.image_channels :] = 0  # a cascade's first stage is no image
        return images + noise

    def _is_square(self) -> bool:
        strides = self.configuration_manager.network_arch_init_kwargs["strides"]
        height, width = self.configuration_manager.patch_size[-2:]
        return height == width and all(isinstance(s, int) or s[-2] == s[-1] for s in strides)


def measure_range(images: Tensor) -> Tensor:
    """From the least to the greatest intensity of each channel of each of (N, M, *S) images, (N, M, 1, ...)."""
    axes = tuple(range(2, images.ndim))
    return images.amax(axes, keepdim=True) - images.amin(axes, keepdim=True)
