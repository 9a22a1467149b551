"""What the rivals with two decoders share."""

from torch import nn

from nnunet_attenscribble.network import check_encoder
from nnunet_attenscribble.trainers.rivals.nnUNetTrainerRival import nnUNetTrainerRival
from nnunet_attenscribble.two_decoders import TwoDecoderUNet


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
        network, second = (nnUNetTrainerRival.build_network_architecture(*planned) for _ in range(2))
        check_encoder(network)
        return TwoDecoderUNet(network, second)
