"""What the trainers of published rivals share: a term, a teacher, a second decoder."""

from __future__ import annotations

from copy import deepcopy
from math import exp
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunet_attenscribble.common.files import replaced_file
from nnunet_attenscribble.losses.rival import RivalLoss, RivalTerm
from nnunet_attenscribble.network import TwoDecoderUNet, check_encoder
from nnunet_attenscribble.trainers.nnUNetTrainerAttenScribble import nnUNetTrainerPartialDiceCE


class nnUNetTrainerRival(nnUNetTrainerPartialDiceCE):
    """Base of the rivals: PartialDiceCE plus one term, with the warm-up, targets and log of the method's trainers."""

    term: type[RivalTerm]
    """Its class, for those that do not override `build_term`."""

    def _list_problems(self, dataset: str, labels: LabelManager) -> list[str]:
        problems = super()._list_problems(dataset, labels)
        if labels.has_regions:
            problems.append(
                f"{dataset} has regions, and {type(self).__name__} is published for classes that do not overlap: use "
                "nnUNetTrainerMaskedCRF or nnUNetTrainerAttenScribble"
            )
        return problems

    def _build_regularised(self) -> RivalLoss:
        return RivalLoss(self.label_manager.ignore_label, self.build_term())

    def build_term(self) -> RivalTerm:
        """The rival's term."""
        return self.term()


class nnUNetTrainerTeacher(nnUNetTrainerRival):
    """Base of the rivals whose network learns from a teacher: the mean of its own weights, exponential in the steps.

    After every step the teacher's weights become 0.99 of themselves and 0.01 of the network's. The term's weight rises
    as exp(-5 (1 - t)^2) with t from 0 to 1 over the first `rise` of the training. Predictions are the network's. Beside
    nnU-Net's checkpoint_*.pth lies a teacher_*.pth, with which a training goes on.
    """

    rise: float
    teacher: nn.Module
    _teacher_file: Path | None = None

    def on_train_start(self) -> None:
        """nnU-Net's preparations; the teacher begins as the network, or where it was when the training stopped."""
        super().on_train_start()
        self.begin_teacher()

    def begin_teacher(self) -> None:
        """Make the teacher."""
        self.teacher = deepcopy(self._bare_network()).requires_grad_(False)
        if self._teacher_file is None:
            return
        try:
            saved = torch.load(self._teacher_file, map_location="cpu", weights_only=True)
            if saved["epoch"] != self.current_epoch:  # the training ended between the two files
                raise ValueError("it is of another epoch")
            self.teacher.load_state_dict(saved["weights"])
        except (OSError, EOFError, RuntimeError, UnpicklingError, ValueError, KeyError, TypeError) as error:
            self.teacher = deepcopy(self._bare_network()).requires_grad_(False)
            self.print_to_log_file(
                f"WARNING: {self._teacher_file.name} cannot be used ({error!r}): the teacher begins anew as the "
                "network is now"
            )

    def train_step(self, batch: dict) -> dict:
        """The network's step, then the teacher's."""
        told = super().train_step(batch)
        with torch.no_grad():
            torch._foreach_lerp_(
                [p.data for p in self.teacher.parameters()],
                [p.data for p in self._bare_network().parameters()],
                1 - self._teacher_decay(),
            )
        return told

    def _teacher_decay(self) -> float:
        return 0.99

    def _regularisers_strength(self, epochs_done: float) -> float:
        return sigmoid_rise(epochs_done / (self.rise * self.num_epochs))

    def _ask_companion(self, batch: dict) -> Any:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            return self.ask_teacher(batch["data"])

    def ask_teacher(self, images: Tensor) -> Any:
        """What the rival's term wants to know of the teacher; images (N, M, *S) on the device."""
        raise TypeError(f"{type(self).__name__} asks its teacher nothing")

    def predict_with_teacher(self, images: Tensor) -> Tensor:
        """The teacher's logits at full resolution, (N, C, *S)."""
        logits = self.teacher(images)
        return logits[0] if self.enable_deep_supervision else logits

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, and the teacher beside it."""
        super().save_checkpoint(filename)
        if self.local_rank == 0 and not self.disable_checkpointing and Path(filename).is_file():
            with replaced_file(name_teacher(filename)) as part:
                torch.save({"epoch": self.current_epoch + 1, "weights": self.teacher.state_dict()}, part)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net's checkpoint, and the teacher beside it where there is one."""
        super().load_checkpoint(filename_or_checkpoint)
        if isinstance(filename_or_checkpoint, str):
            self._teacher_file = name_teacher(filename_or_checkpoint)

    def on_train_end(self) -> None:
        """nnU-Net's end, at which its latest checkpoint goes; the teacher's goes with it."""
        super().on_train_end()
        if self.local_rank == 0:
            name_teacher(str(Path(self.output_folder) / "checkpoint_latest.pth")).unlink(missing_ok=True)

    def _bare_network(self) -> nn.Module:
        network: Any = self.network.module if self.is_ddp else self.network
        return getattr(network, "_orig_mod", network)


def sigmoid_rise(progress: float) -> float:
    """exp(-5 (1 - progress)^2) up to a progress of 1 (Laine, Aila, "Temporal ensembling", ICLR 2017)."""
    return exp(-5 * (1 - min(1.0, progress)) ** 2)


def name_teacher(checkpoint: str) -> Path:
    """The teacher's file beside a checkpoint."""
    file = Path(checkpoint)
    return file.with_name(f"teacher_{file.name.removeprefix('checkpoint_')}")


class nnUNetTrainerTwoDecoders(nnUNetTrainerRival):
    """Base of the rivals with a second decoder, which sees the features through dropout; inference leaves it out."""

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager,
        configuration_manager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The planned network with a second decoder; called in inference too."""
        planned = (
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        build = super().build_network_architecture
        network, second = build(*planned), build(*planned)
        check_encoder(network)
        return TwoDecoderUNet(network, second)
