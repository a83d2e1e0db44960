"""Networks: the ADM UNet, its super-resolution form and its encoder. F(x, t, ...) with guided-diffusion's keys."""

from guided.networks.encoder import Encoder, EncoderConfig
from guided.networks.unet import TrunkConfig, UNet, UNetConfig

__all__ = ["Encoder", "EncoderConfig", "TrunkConfig", "UNet", "UNetConfig"]
