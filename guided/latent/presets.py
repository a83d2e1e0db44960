"""Presets of `guided train-autoencoder`: one row each of network, loss and optimisation, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from guided.latent.autoencoder import Autoencoder
from guided.networks.autoencoder import AutoencoderConfig, AutoencoderNet


@dataclass(frozen=True)
class AutoencoderPreset:
    """Everything `guided train-autoencoder` needs but the data.

    Attributes:
        network: what is trained.
        image_size: side of the pictures.
        weight: of the latents' divergence, see `guided.latent.training.AutoencoderLoss`.
        batch_size, lr, betas, warmup, decay, ema, images, precision: as `guided.train` takes them.
        optimizer: "adamw", or "muon" (`guided.training.optimizers`).
        flip: mirror half of the pictures.
        data: how `Images` reads the metadata.
    """

    network: AutoencoderConfig
    image_size: int = 64
    weight: float = 1e-6
    batch_size: int = 8
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 1_000
    decay: str = "cosine"
    ema: float = 0.999
    images: int = 200_000
    precision: str = "bf16"
    optimizer: str = "muon"
    flip: bool = True
    data: dict[str, Any] = field(default_factory=lambda: {"background": "white"})

    def autoencoder(self, *, size: int | None = None, channels: int = 3) -> Autoencoder:
        """A fresh one."""
        net = AutoencoderNet(replace(self.network, in_channels=channels))
        return Autoencoder(net, image_size=size or self.image_size)


_SMALL = AutoencoderConfig(widths=(16, 32, 64), layers=1, groups=8)  # 0.7 M parameters; made for two CPU cores

AUTOENCODERS: dict[str, AutoencoderPreset] = {
    # 64 pixels to (4, 16, 16): a quarter of the side, as LDM-4 has it
    "kl-f4": AutoencoderPreset(_SMALL, weight=1e-4),
    "plain-f4": AutoencoderPreset(replace(_SMALL, variational=False), weight=1e-4),
    # 256 pixels to (4, 32, 32), the architecture of Stable Diffusion's autoencoder; for a large GPU
    "kl-f8": AutoencoderPreset(
        AutoencoderConfig(), image_size=256, batch_size=64, lr=1e-4, betas=(0.9, 0.999), ema=0.9999, images=20_000_000,
        optimizer="adamw", decay="constant",
    ),
}  # fmt: skip
