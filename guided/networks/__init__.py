"""The ADM UNet, also for super-resolution, inpainting and text, and its encoder, with the official files' keys."""

from guided.networks.config import TrunkConfig, UNetConfig
from guided.networks.encoder import Encoder, EncoderConfig
from guided.networks.text import TextConfig
from guided.networks.unet import UNet

__all__ = ["Encoder", "EncoderConfig", "TextConfig", "TrunkConfig", "UNet", "UNetConfig"]
