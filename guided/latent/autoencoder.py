"""Between pictures and latents of unit deviation, in which a diffusion model then works."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from guided.networks.autoencoder import AutoencoderNet

LOG_VARIANCE = (-30.0, 20.0)  # what the encoder may say of its own noise


class Autoencoder(nn.Module):
    """encode(pictures) -> latents, decode(latents) -> pictures.

    Latents are the encoder's mean less `shift`, times `scale`: of deviation 1 over the data that the two were measured
    on (`guided.latent.training.measure`). Nothing is frozen or without a graph here; `guided.load_autoencoder` freezes.

    Args:
        net: a network of `guided.networks.autoencoder`.
        scale: one over the latents' standard deviation.
        shift: their mean, one number or one a channel.
        image_size: side of the pictures it was trained on; others work.

    Raises:
        ValueError: scale is not positive, or shift has another number of values.

    Source:
        Rombach et al. 2022, section 3.1; the scale: appendix G.
    """

    def __init__(
        self, net: AutoencoderNet, *, scale: float = 1.0, shift: float | Sequence[float] = 0.0, image_size: int = 64
    ):
        super().__init__()
        self.net, self.image_size = net, image_size
        self.set_scale(scale, shift)

    def set_scale(self, scale: float, shift: float | Sequence[float] = 0.0) -> None:
        """What latents are measured by from now on; see the class."""
        values = [float(shift)] if isinstance(shift, int | float) else [float(value) for value in shift]
        values = values * self.latent_channels if len(values) == 1 else values
        if len(values) != self.latent_channels:
            raise ValueError(f"shift needs one value or one a channel, {self.latent_channels}, got {len(values)}")
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale, self.shift = float(scale), tuple(values)

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return self.net.config.in_channels

    @property
    def latent_channels(self) -> int:
        """Of the latents."""
        return self.net.config.latent_channels

    @property
    def factor(self) -> int:
        """How many times smaller the latents' sides are than the pictures'."""
        return self.net.config.downsample

    @property
    def variational(self) -> bool:
        """Whether the encoder gives a distribution."""
        return self.net.config.variational

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """q(z | picture) as the encoder gives it, before the scale: mean and log-variance, (N, c, H/f, W/f) each.

        Args:
            images: (N, C, H, W) in [-1, 1].

        Returns:
            the log-variance is None where the encoder is deterministic.

        Raises:
            ValueError: wrong channels, or sides that are no multiples of `factor`.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"the autoencoder takes pictures (N, {self.channels}, H, W), got {tuple(images.shape)}")
        if images.shape[2] % self.factor or images.shape[3] % self.factor or 0 in images.shape:
            height, width = images.shape[2:]
            raise ValueError(f"height and width must be multiples of {self.factor}, got {height}x{width}")
        moments = self.net.encode(images.to(next(self.net.parameters()).dtype))
        if not self.variational:
            return moments.to(images.dtype), None
        mean, log_var = moments.to(images.dtype).chunk(2, dim=1)
        return mean, log_var.clamp(*LOG_VARIANCE)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, after the scale: (N, c, H/f, W/f) each; see `posterior`."""
        mean, log_var = self.posterior(images)
        deviation = torch.zeros_like(mean) if log_var is None else (0.5 * log_var).exp()
        return (mean - self._shift(mean)) * self.scale, deviation * self.scale

    def encode(self, images: Tensor) -> Tensor:
        """The latents' mean, after the scale, (N, c, H/f, W/f); see `posterior` for the argument."""
        return self.moments(images)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, C, h f, w f), in about [-1, 1] but not clamped.

        Args:
            latents: (N, c, h, w), after the scale.

        Raises:
            ValueError: wrong channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self.latent_channels:
            raise ValueError(f"latents must be (N, {self.latent_channels}, h, w), got {tuple(latents.shape)}")
        z = latents / self.scale + self._shift(latents)
        return self.net.decode(z.to(next(self.net.parameters()).dtype)).to(latents.dtype)

    def _shift(self, like: Tensor) -> Tensor:
        return torch.tensor(self.shift, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)


def same_latents(a: Autoencoder | None, b: Autoencoder | None) -> bool:
    """Whether two models' states mean the same: both pixels, or latents of one autoencoder."""
    if a is b or a is None or b is None:
        return a is b
    if (a.net.config, a.scale, a.shift) != (b.net.config, b.scale, b.shift):
        return False
    return all(torch.equal(v.cpu(), w.cpu()) for v, w in zip(a.parameters(), b.parameters(), strict=True))
