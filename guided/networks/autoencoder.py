"""The convolutional autoencoder of latent diffusion, with diffusers' parameter names (AutoencoderKL)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from guided.networks.blocks import scaled_dot_product, silu
from guided.networks.onednn import Conv2d


@dataclass(frozen=True)
class AutoencoderConfig:
    """An encoder to a smaller map and a decoder back.

    Attributes:
        in_channels: of the pictures, also those that come out.
        latent_channels: of the map between.
        widths: channels of each level, the finest first; each level but the last halves the sides.
        layers: residual blocks a level of the encoder; the decoder has one more.
        groups: of the group norms; divides all widths.
        variational: the encoder gives a mean and a log-variance, else one value.
        quant_conv: 1x1 convolutions on both sides of the latents.
        attention: one layer of self-attention in the middle of either half.
    """

    in_channels: int = 3
    latent_channels: int = 4
    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    groups: int = 32
    variational: bool = True
    quant_conv: bool = True
    attention: bool = True

    def __post_init__(self):
        for name in ("in_channels", "latent_channels", "layers", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.widths or any(width < 1 or width % self.groups for width in self.widths):
            raise ValueError(f"the widths must be multiples of the {self.groups} groups, got {list(self.widths)}")

    @property
    def downsample(self) -> int:
        """How many times smaller the latents' sides are."""
        return 2 ** (len(self.widths) - 1)

    @property
    def moments(self) -> int:
        """Channels that the encoder gives."""
        return self.latent_channels * (1 + self.variational)


class AutoencoderNet(nn.Module):
    """encode(pictures) -> moments, decode(latents) -> pictures.

    Args of `encode`:
        x: (N, C, H, W) in [-1, 1], sides multiples of `config.downsample`.

    Returns of `encode`:
        (N, moments, H/f, W/f): the latents' mean, and, where the network is variational, their log-variance after it.

    Args of `decode`:
        z: (N, latent_channels, h, w).

    Source:
        Rombach et al. 2022, section 3.1 and appendix G.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)
        pointwise = config.quant_conv
        self.quant_conv = Conv2d(config.moments, config.moments, 1) if pointwise else nn.Identity()
        latent = config.latent_channels
        self.post_quant_conv = Conv2d(latent, latent, 1) if pointwise else nn.Identity()

    def encode(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))


class _Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, last = config.widths, len(config.widths) - 1
        self.conv_in = Conv2d(config.in_channels, widths[0], 3, padding=1)
        before = (widths[0], *widths[:-1])
        self.down_blocks = nn.ModuleList(
            _Level(before[i], widths[i], config.layers, config.groups, "down" if i < last else None)
            for i in range(len(widths))
        )
        self.mid_block = _Middle(widths[-1], config.groups, config.attention)
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = Conv2d(widths[-1], config.moments, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down_blocks:
            h = level(h)
        return self.conv_out(silu(self.conv_norm_out(self.mid_block(h))))


class _Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, last = config.widths[::-1], len(config.widths) - 1
        self.conv_in = Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _Middle(widths[0], config.groups, config.attention)
        before = (widths[0], *widths[:-1])
        self.up_blocks = nn.ModuleList(
            _Level(before[i], widths[i], config.layers + 1, config.groups, "up" if i < last else None)
            for i in range(len(widths))
        )
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=1e-6)
        self.conv_out = Conv2d(widths[-1], config.in_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            h = level(h)
        return self.conv_out(silu(self.conv_norm_out(h)))


class _Level(nn.Module):
    """Residual blocks at one size, then half or twice of it."""

    def __init__(self, channels: int, out_channels: int, layers: int, groups: int, resample: str | None):
        super().__init__()
        self.resnets = nn.ModuleList(
            _Residual(channels if i == 0 else out_channels, out_channels, groups) for i in range(layers)
        )
        if resample == "down":
            self.downsamplers = nn.ModuleList([_Down(out_channels)])
        if resample == "up":
            self.upsamplers = nn.ModuleList([_Up(out_channels)])

    def forward(self, h: Tensor) -> Tensor:
        for block in self.resnets:
            h = block(h)
        for resample in (*getattr(self, "downsamplers", ()), *getattr(self, "upsamplers", ())):
            h = resample(h)
        return h


class _Middle(nn.Module):
    def __init__(self, channels: int, groups: int, attention: bool):
        super().__init__()
        self.attentions = nn.ModuleList([_Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(_Residual(channels, channels, groups) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        h = self.resnets[0](h)
        for attention in self.attentions:
            h = attention(h)
        return self.resnets[1](h)


class _Residual(nn.Module):
    """Two convolutions, each after norm and SiLU, beside the identity or a 1x1 convolution."""

    def __init__(self, channels: int, out_channels: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-6)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = None if channels == out_channels else Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Attention(nn.Module):
    """Self-attention of one head over all positions, residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)[:, None]  # one head
        h = scaled_dot_product(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.to_out[0](h)[:, 0].transpose(1, 2).reshape(x.shape)


class _Down(nn.Module):
    """A strided convolution whose padding lies to the right and below."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
