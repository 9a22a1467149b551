"""PartialDiceCE plus agreement with a teacher where the teacher is sure."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from nnunet_attenscribble.losses.rivals import TeacherPrediction, UncertainTeacherLoss
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerTeacher import nnUNetTrainerTeacher

_NOISES = 8  # by which the teacher's uncertainty is estimated


class nnUNetTrainerUSTM(nnUNetTrainerTeacher):
    """PartialDiceCE plus agreement with a teacher where the teacher is sure (USTM).

    Its teacher sees nine noises of every batch, so that a step takes several times as long. Noise is normal with a
    standard deviation of 0.1, cut off at 0.2, on z-scored intensities. Patches whose plane is no square are turned by
    halves.
    """

    def build_term(self) -> UncertainTeacherLoss:
        """See `UncertainTeacherLoss`."""
        return UncertainTeacherLoss()

    def train_step(self, batch: dict) -> dict:
        """The threshold rises with the training."""
        done = self.current_epoch + self._steps / self.num_iterations_per_epoch
        self.loss.regularised.term.progress = min(1.0, done / self.num_epochs)
        return super().train_step(batch)

    def ask_teacher(self, images: Tensor) -> TeacherPrediction:
        """See `TeacherPrediction`."""
        turns = random.randrange(4) if self._is_square() else random.choice((0, 2))
        turned = torch.rot90(images, turns, (-2, -1))
        first, *others = (
            self.predict_with_teacher(turned + _make_noise(turned)).float().softmax(dim=1) for _ in range(_NOISES + 1)
        )
        return TeacherPrediction(first, torch.stack(others).mean(dim=0), turns)

    def _is_square(self) -> bool:
        strides = self.configuration_manager.network_arch_init_kwargs["strides"]
        height, width = self.configuration_manager.patch_size[-2:]
        return height == width and all(isinstance(s, int) or s[-2] == s[-1] for s in strides)


def _make_noise(images: Tensor) -> Tensor:
    return (0.1 * torch.randn_like(images)).clamp(-0.2, 0.2)
