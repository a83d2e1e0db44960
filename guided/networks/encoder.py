"""The downward half of the ADM UNet as a classifier of noisy images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guided.networks.blocks import AttentionPool, GroupNorm32, zero
from guided.networks.config import TrunkConfig
from guided.networks.unet import Trunk


@dataclass(frozen=True)
class EncoderConfig(TrunkConfig):
    """An encoder with a head.

    Attributes:
        image_size: side of the images; attention pooling is built for it.
        out_channels: numbers that come out (classes).
        pool: "attention" (the official classifiers), "adaptive" (mean), "spatial" or "spatial_v2" (means of all blocks'
            map, then two linear layers).
    """

    image_size: int = 64
    out_channels: int = 1000
    pool: str = "attention"


class Encoder(Trunk):
    """logits(x, t), with guided-diffusion's parameter names (EncoderUNetModel).

    Args of `forward`:
        x: (N, C, H, W), H and W multiples of `config.downsample` (with attention pooling: of `config.image_size`).
        t: (N,) timesteps, whole or fractional.

    Returns:
        (N, out_channels).

    Raises:
        ValueError: the pool is unknown.

    Source:
        Dhariwal & Nichol 2021, section 4.
    """

    config: EncoderConfig

    def __init__(self, config: EncoderConfig):
        super().__init__(config, config.in_channels)
        ch, out = self.skip_channels[-1], config.out_channels
        if config.pool == "attention":
            heads = config.num_head_channels if config.num_head_channels > 0 else ch // config.num_heads
            pool = AttentionPool(config.image_size // config.downsample, ch, heads, out)
            self.out = nn.Sequential(GroupNorm32(ch), nn.SiLU(), pool)
        elif config.pool == "adaptive":
            self.out = nn.Sequential(
                GroupNorm32(ch),
                nn.SiLU(),
                nn.AdaptiveAvgPool2d((1, 1)),
                zero(nn.Conv2d(ch, out, 1)),
                nn.Flatten(),
            )
        elif config.pool in ("spatial", "spatial_v2"):
            features = sum(self.skip_channels) + ch
            between = [nn.ReLU()] if config.pool == "spatial" else [GroupNorm32(2048), nn.SiLU()]
            self.out = nn.Sequential(nn.Linear(features, 2048), *between, nn.Linear(2048, out))
        else:
            raise ValueError(f"pool must be attention, adaptive, spatial or spatial_v2, got {config.pool!r}")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self._embed(t)
        h, means = self._enter(x), []
        for block in [*self.input_blocks, self.middle_block]:
            h = self._run(block, h, emb)
            means.append(h.to(x.dtype).mean(dim=(2, 3)))
        if self.config.pool.startswith("spatial"):
            return self.out(torch.cat(means, dim=1))
        return self.out(h.to(x.dtype))
