"""A tiny autoencoder, a diffusion model in its latents, and a picture, for the tests of latent diffusion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import guided
from guided.networks.autoencoder import AutoencoderConfig, AutoencoderNet

CLASSES = ["cat", "dog", "fish", "heart"]


def tiny_autoencoder(seed: int = 0, **changes) -> guided.Autoencoder:
    """Pictures of 16 pixels to latents (4, 8, 8), seeded random weights, trainable."""
    config = AutoencoderConfig(**{"widths": (8, 16), "layers": 1, "groups": 4, **changes})
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = AutoencoderNet(config)
    shift = [0.1, *[0.0] * (config.latent_channels - 2), -0.1]
    return guided.Autoencoder(net, scale=2.0, shift=shift, image_size=16)


def tiny_latent_model(autoencoder: guided.Autoencoder | None = None, **changes) -> guided.Model:
    """A generator of 16 pixels in those latents, frozen; its output depends on x, sigma and label."""
    autoencoder = autoencoder or tiny_autoencoder()
    config = guided.networks.UNetConfig(
        in_channels=4,
        out_channels=4,
        model_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(2,),
        num_head_channels=32,
        resblock_updown=False,
        num_classes=len(CLASSES) + 1,
        **changes,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        net = guided.networks.UNet(config)
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    model = guided.Model(
        net, parametrization="edm", image_size=16, class_names=CLASSES, null_class=True, sigma_data=1.0,
        time_scale=250.0, autoencoder=autoencoder,
    )  # fmt: skip
    return model.eval().requires_grad_(False)


class Unshuffle(nn.Module):
    """An autoencoder that loses nothing: the 2x2 blocks of a picture as channels, for a `guided.Autoencoder`."""

    channels, latent_channels, factor, variational = 3, 12, 2, False

    def __init__(self):
        super().__init__()
        self.net = nn.Identity()

    def encode(self, images: Tensor) -> Tensor:
        return F.pixel_unshuffle(images, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(latents, 2)


def in_exact_latents(model: guided.Model) -> guided.Model:
    """A model of pixels with patches of 2, seen as one without patches in the latents of `Unshuffle`."""
    return guided.Model(
        model.net, model.schedule, model.parametrization, image_size=model.image_size, class_names=model.class_names,
        null_class=model.null_label is not None, sigma_data=model.sigma_data, time_scale=model.time_scale,
        autoencoder=Unshuffle(),
    ).eval().requires_grad_(False)  # fmt: skip


def picture(n: int = 1, size: int = 16) -> torch.Tensor:
    """(n, 3, size, size) in [-1, 1], smooth and different from one another."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return torch.stack([torch.stack([x * y, (x + k / 4).cos() * 2 - 1, -y]) for k in range(n)]).clamp(-1, 1)
