"""What nnU-Net's augmentation pipeline has to leave alone for this method.

Here and not in the trainers, because worker processes must be able to unpickle it.
"""

from __future__ import annotations

from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

from nnunet_attenscribble.losses.attenscribble import PADDING


def keep_padding(transforms: ComposeTransforms, replacement: int | None = None) -> ComposeTransforms:
    """Let pixels outside the image keep their value `PADDING`, where nnU-Net's pipeline would make them background.

    Args:
        transforms: nnU-Net's pipeline, changed in place.
        replacement: None leaves them; a label turns them into that one.

    Raises:
        RuntimeError: the pipeline has no single step that removes them, so that its handling of padding is not known.
    """
    steps = [
        step
        for step in transforms.transforms
        if isinstance(step, RemoveLabelTansform) and step.label_value == PADDING and step.set_to == 0
    ]
    if len(steps) != 1:
        raise RuntimeError(
            f"nnU-Net's augmentation has {len(steps)} steps that turn padding into background, expected 1: this "
            "version of nnU-Net is not supported"
        )
    if replacement is None:
        # Further channels hold the previous stage of a cascade, whose padding nobody needs to know.
        position = transforms.transforms.index(steps[0])
        transforms.transforms[position] = _RemovePaddingOfFurtherChannels(PADDING, 0)
    else:
        steps[0].set_to = replacement
    return transforms


class _RemovePaddingOfFurtherChannels(RemoveLabelTansform):
    def _apply_to_segmentation(self, segmentation, **params):
        segmentation[1:][segmentation[1:] == self.label_value] = self.set_to
        return segmentation
