"""Published losses for scribbles, for comparison inside the same nnU-Net: one file each, with formula and source."""

from nnunet_attenscribble.losses.rivals.competing_labels import CompetingLabelsLoss
from nnunet_attenscribble.losses.rivals.entropy import EntropyLoss
from nnunet_attenscribble.losses.rivals.gated_crf import GatedCRFLoss
from nnunet_attenscribble.losses.rivals.mixed_labels import MixedLabelsLoss
from nnunet_attenscribble.losses.rivals.mumford_shah import MumfordShahLoss
from nnunet_attenscribble.losses.rivals.regularised import RivalLoss, RivalTerm
from nnunet_attenscribble.losses.rivals.total_variation import TotalVariationLoss
from nnunet_attenscribble.losses.rivals.uncertain_teacher import TeacherPrediction, UncertainTeacherLoss

__all__ = [
    "CompetingLabelsLoss",
    "EntropyLoss",
    "GatedCRFLoss",
    "MixedLabelsLoss",
    "MumfordShahLoss",
    "RivalLoss",
    "RivalTerm",
    "TeacherPrediction",
    "TotalVariationLoss",
    "UncertainTeacherLoss",
]
