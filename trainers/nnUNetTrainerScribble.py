"""What all scribble trainers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_attenscribble.common.nnunet import BASES, entry_values
from nnunet_attenscribble.errors import AttenScribbleError, refuse
from nnunet_attenscribble.losses import (
    AttenScribbleLoss,
    AttentiveSimilarityLoss,
    MaskedCRFLoss,
    PartialBinaryCrossEntropyLoss,
    PartialCrossEntropyLoss,
    PartialDiceCrossEntropyLoss,
    SimilarityPairLoss,
)
from nnunet_attenscribble.losses.rival import RivalLoss
from nnunet_attenscribble.network import (
    add_spatial_attention,
    attention_stage,
    check_encoder,
    grid_shape,
    total_stride,
)
from nnunet_attenscribble.normalisation import (
    has_unlabelled_zeros,
    is_scaled_by_unlabelled,
    list_ct_channels,
    normalisation_problems,
)
from nnunet_attenscribble.objective import ScribbleObjective, append_epoch, average_terms, plot_epochs
from nnunet_attenscribble.plans import read_plans, resolve_configuration
from nnunet_attenscribble.settings import AttenScribbleSettings, similarity_window, window_radius
from nnunet_attenscribble.targets import keep_labels, keep_padding, keep_scribbles
from nnunet_attenscribble.windows import in_plane_share


class nnUNetTrainerScribble(nnUNetTrainer):
    """Base of the scribble trainers; train with one of its subclasses, which differ by these switches only.

    In front of one of nnU-Net's own variants, it takes that one's augmentation, network or epochs:
    `class T(nnUNetTrainerAttenScribble, nnUNetTrainerDA5)`.
    """

    with_dice = False
    with_crf = False
    with_attention = False
    with_similarity = False

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads this very signature
    ):
        # Before nnU-Net makes the fold's folder and a log in it.
        planned = PlansManager(plans)
        problems = self._list_problems(planned.dataset_name, planned.get_label_manager(dataset_json))
        refuse(problems)
        self.settings = AttenScribbleSettings.from_configuration(planned.get_configuration(configuration).configuration)
        self.settings.weigh_labels(dataset_json["labels"])  # refuses names that are none
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
            value = getattr(self.settings, name)
            if value is not None:
                setattr(self, name, value)
        # Without a latest checkpoint, `--c` goes on from the best one, which is chosen on the validation cases.
        self.save_every = max(1, min(50, self.num_epochs // 10))  # 50 are nnU-Net's

    def _list_problems(self, dataset: str, labels: LabelManager) -> list[str]:
        """Why a dataset cannot be trained with this trainer."""
        name = type(self).__name__
        problems = []
        if not labels.has_ignore_label:
            problems.append(
                f"{dataset} has no `ignore` label in dataset.json, so its labels are dense and "
                f"{name} has nothing to do: use nnUNetTrainer, or make scribbles"
            )
        if name in BASES:
            problems.append(f"{name} is a common base of scribble trainers: use nnUNetTrainerAttenScribble")
        bases = type(self).__mro__
        for place, base in enumerate(bases[: bases.index(nnUNetTrainer)]):
            if issubclass(base, nnUNetTrainerScribble) or not issubclass(base, nnUNetTrainer):
                continue
            if "_build_loss" in vars(base):
                problems.append(f"{name}: {base.__name__} has a loss of its own, and so have scribble trainers")
            elif place < bases.index(nnUNetTrainerScribble):  # many of nnU-Net's variants do not call super()
                problems.append(f"{name}: name the scribble trainer before {base.__name__}, which may pass over it")
        return problems

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager,
        configuration_manager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The planned network, with the attention block where the method has one; called in inference too."""
        network = super().build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        if not cls.with_attention:
            return network
        check_encoder(network)
        settings = AttenScribbleSettings.from_configuration(configuration_manager.configuration)
        return add_spatial_attention(
            network,
            configuration_manager.patch_size,
            stride=settings.attention_stride,
            max_tokens=settings.attention_max_tokens,
            similarity=settings.similarity_mode if cls.with_similarity else None,
            radius=_similarity_window(configuration_manager, settings)[0],
            gated=settings.attention_gated,
        )

    def _build_loss(self) -> ScribbleObjective:
        # nnU-Net's own loss knows the weights of the scales and its Dice the batch, DDP and compilation.
        stock = super()._build_loss()
        scale_weights = stock.weight_factors if self.enable_deep_supervision else None
        dice = (stock.loss if self.enable_deep_supervision else stock).dc
        ignore_label = self.label_manager.ignore_label
        segmentation: nn.Module
        if self.label_manager.has_regions:
            segmentation = PartialBinaryCrossEntropyLoss(ignore_label, self.label_manager.foreground_regions)
        else:
            segmentation = PartialCrossEntropyLoss(ignore_label)
        if self.with_dice and self.settings.dice_weight > 0:
            segmentation = PartialDiceCrossEntropyLoss(segmentation, dice, self.settings.dice_weight)
        class_weights = self.settings.weigh_labels(self.dataset_json["labels"])
        objective = ScribbleObjective(
            segmentation, scale_weights, self._build_regularised(), self.settings.padding, class_weights
        )
        return objective.to(self.device)  # what it holds, so that no step has to bring it there

    def _build_regularised(self) -> AttenScribbleLoss | RivalLoss:
        crf, crf_weight = self._build_crf() if self.with_crf else (None, 0.0)
        similarity, similarity_weight = self._build_similarity() if self.with_similarity else (None, 0.0)
        # Pairs with a weight of 0 too, or no gradient would reach the similarity's parameters, and DDP wait for it.
        anchored = self.with_similarity and self.settings.similarity_mode == "anchored"
        return AttenScribbleLoss(
            self.label_manager.ignore_label,
            crf=crf,
            similarity=similarity,
            pairs=SimilarityPairLoss() if anchored else None,
            crf_weight=crf_weight,
            similarity_weight=similarity_weight,
            pair_weight=self.settings.pair_weight,
            regions=self.label_manager.has_regions,
            ranks=self.settings.ranks_intensities(len(self.configuration_manager.patch_size)),
        )

    # The energies are sums over the window, those of a cube ten times those of a square: with weights that are right in
    # 2D, all that was predicted in the end was background. So both are weighed as their in-plane part.

    def _build_crf(self) -> tuple[MaskedCRFLoss, float]:
        spacing = _in_plane_first(self.configuration_manager)
        radius, sigma = window_radius(self.settings.crf_radius, spacing), self.settings.crf_sigma_position
        weight = self.settings.crf_weight * in_plane_share(radius, sigma, spacing)
        return MaskedCRFLoss(radius, sigma, self.settings.crf_sigma_intensity, spacing), weight

    def _build_similarity(self) -> tuple[AttentiveSimilarityLoss, float]:
        radius, sigma, spacing = _similarity_window(self.configuration_manager, self.settings)
        weight = self.settings.similarity_weight * in_plane_share(radius, sigma, spacing)
        anchored = self.settings.similarity_mode == "anchored"
        floor = self.settings.similarity_floor if anchored else 0.0
        disagreement = self.settings.similarity_disagreement if anchored else "potts"
        return AttentiveSimilarityLoss(radius, sigma, spacing, anchored, floor, disagreement), weight

    @classmethod
    def get_training_transforms(cls, *args, **kwargs):
        """nnU-Net's augmentation, behind which scribbles and padding are still known."""
        transforms = super().get_training_transforms(*args, **kwargs)
        given = signature(nnUNetTrainer.get_training_transforms).bind(*args, **kwargs).arguments
        deep_supervision = given["deep_supervision_scales"] is not None
        return keep_scribbles(keep_labels(keep_padding(transforms)), given["ignore_label"], deep_supervision)

    def get_validation_transforms(self, *args, **kwargs):
        """nnU-Net's transforms; unless padding counts as background, the online validation does not see it."""
        replacement = 0 if self.settings.padding == "background" else self.label_manager.ignore_label
        return keep_padding(super().get_validation_transforms(*args, **kwargs), replacement)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net's loading; a training that goes on with other settings says so, as its checkpoint keeps the first."""
        try:
            super().load_checkpoint(filename_or_checkpoint)
        finally:  # also where the network of now cannot take its weights
            self._tell_other_settings(self.my_init_kwargs.get("plans"), "this training began")

    def _tell_other_settings(self, plans: Any, who: str) -> None:
        try:
            before = AttenScribbleSettings.from_configuration(resolve_configuration(plans, self.configuration_name))
        except (KeyError, TypeError, AttenScribbleError):
            return  # of another trainer, or of settings that are none any more
        if before != self.settings:
            self.print_to_log_file(
                f"WARNING: {who} with other settings than the plans file has now: {before}; give the "
                "configuration of now another name, or its settings of then back"
            )

    def on_train_start(self) -> None:
        """nnU-Net's preparations; then what a reader of the log should know before the first epoch."""
        plans = Path(self.output_folder_base) / "plans.json"  # which nnU-Net overwrites, and prediction reads
        if plans.is_file():
            with suppress(AttenScribbleError):  # of a file that is damaged, and written anew now
                self._tell_other_settings(read_plans(plans, ""), "the last training of this model was made")
        super().on_train_start()
        if self.with_attention:
            self.print_to_log_file(self._describe_block())
        if self.local_rank != 0:
            return
        configuration = self.configuration_manager.configuration
        channels = list_ct_channels(configuration)
        wrong = bool(channels) and is_scaled_by_unlabelled(
            self._read_cases(), channels, self.label_manager.ignore_label
        )
        zeros = any(configuration.get("use_mask_for_norm", ())) and any(
            has_unlabelled_zeros(images, labels, self.label_manager.ignore_label)
            for images, labels in islice(self._read_cases(), 1)
        )
        for problem in normalisation_problems(configuration, scaled_by_unlabelled=wrong, unlabelled_zeros=zeros):
            self.print_to_log_file(
                f"WARNING: {problem}: run `attenscribble fingerprint {self.plans_manager.dataset_name}`, then plan and "
                "preprocess again"
            )

    def _read_cases(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images and labels of the training cases, preprocessed as they are trained with."""
        dataset, _ = self.get_tr_and_val_datasets()
        for case in dataset.identifiers:
            images, labels, *_ = dataset.load_case(case)
            yield images[:], labels[:][0]

    def _describe_block(self) -> str:
        stage, stride = _block_place(self.configuration_manager, self.settings)
        grid = grid_shape(
            self.configuration_manager.network_arch_init_kwargs["strides"], self.configuration_manager.patch_size, stage
        )
        told = f"attention block: stage {stage}, a position of its grid {grid} covers {stride} pixels"
        if not self.with_similarity:
            return told
        radius, _, _ = _similarity_window(self.configuration_manager, self.settings)
        return f"{told}, the similarity looks {radius} positions far"

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step; the loss also sees the image (without the channels that a cascade adds)."""
        self.loss.regularised.strength = self._regularisers_strength(
            self.current_epoch + self._steps / self.num_iterations_per_epoch
        )
        self._steps += 1
        # Here, so that nnU-Net and the loss share one copy.
        batch = {**batch, "data": batch["data"].to(self.device, non_blocking=True)}
        with self.loss.given(batch["data"][:, : self.image_channels], self._ask_companion(batch)):
            return super().train_step(batch)

    @property
    def image_channels(self) -> int:
        """How many channels are images; behind them stand those of a cascade's first stage."""
        # As nnU-Net reads it, which still knows the key of its first version.
        return len(self.dataset_json.get("modality") or self.dataset_json["channel_names"])

    def _regularisers_strength(self, epochs_done: float) -> float:
        """Factor on the regularisers' weights: linear from 0 over the first epochs, then 1."""
        warmup = self.settings.warmup_epochs
        return min(1.0, epochs_done / warmup) if warmup > 0 else 1.0

    def _ask_companion(self, batch: dict) -> Any:
        """What a teacher predicts for a batch; only some rivals have one."""
        return None

    def on_train_epoch_start(self) -> None:
        """Count the steps of the epoch anew."""
        super().on_train_epoch_start()
        self._steps = 0

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Tell the loss terms of the epoch wherever nnU-Net tells its own (with DDP their mean)."""
        super().on_train_epoch_end(train_outputs)
        terms = self.loss.take_terms()
        if self.is_ddp:  # whose processes see foreground of different shares
            everywhere = [terms] * dist.get_world_size()
            dist.all_gather_object(everywhere, terms)
            terms = average_terms(everywhere)
        if self.local_rank != 0:
            return
        self.print_to_log_file("terms", ", ".join(f"{name} {value:.4f}" for name, value in terms.items()))
        values = {name: entry_values(entry) for name, entry in self.dataset_json["labels"].items()}
        for name, own in values.items():
            if all(terms.get(f"annotated_{value}") == 0 for value in own):
                # nnU-Net takes strokes of background where the image is zero for padding.
                further = ", where the image is not zero, or count all of that with padding=background"
                self.print_to_log_file(
                    f"WARNING: no scribble of '{name}' was seen in this epoch, so nothing teaches it: draw more of it"
                    f"{further if own == (0,) else ''}"
                )
        # wandb, where it is on; nnU-Net's local logger knows its own values only. A logger without others ends nothing.
        for logger in getattr(self.logger, "loggers", ()):
            for name, value in terms.items():
                logger.log(f"terms/{name}", value, self.current_epoch)
        file = Path(self.output_folder) / "loss_terms.csv"
        append_epoch(file, self.current_epoch, terms)
        # As often as a checkpoint, for a GPU waits for the drawing.
        if (self.current_epoch + 1) % self.save_every == 0 or self.current_epoch + 1 == self.num_epochs:
            plot_epochs(file, file.with_suffix(".png"), {own[0]: name for name, own in values.items() if len(own) == 1})


def _in_plane_first(configuration_manager) -> list[float]:
    # A 2D configuration's spacing may carry the slice distance in front; the patch tells how many axes there are.
    return [float(s) for s in configuration_manager.spacing[-len(configuration_manager.patch_size) :]]


def _similarity_window(
    configuration_manager, settings: AttenScribbleSettings
) -> tuple[tuple[int, ...], float, list[float]]:
    _, stride = _block_place(configuration_manager, settings)
    return similarity_window(settings, _in_plane_first(configuration_manager), stride)


def _block_place(configuration_manager, settings: AttenScribbleSettings) -> tuple[int, tuple[int, ...]]:
    """Stage of the attention block, and the stride of its grid."""
    strides = configuration_manager.network_arch_init_kwargs["strides"]
    patch_size = configuration_manager.patch_size
    stage = attention_stage(strides, patch_size, settings.attention_stride, settings.attention_max_tokens)
    return stage, total_stride(strides, len(patch_size), stage)
