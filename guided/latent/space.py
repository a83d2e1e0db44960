"""What a model's x is of a picture: the picture itself, or its latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from guided.latent.autoencoder import Autoencoder, same_latents


@dataclass(frozen=True)
class Space:
    """Where a model's states lie, and the way there and back.

    Attributes:
        image_channels: of the pictures.
        autoencoder: None where states are pixels; everything below is then the identity.
    """

    image_channels: int
    autoencoder: Autoencoder | None = None

    @property
    def latent(self) -> bool:
        """Whether states are latents."""
        return self.autoencoder is not None

    @property
    def channels(self) -> int:
        """Of a state."""
        return self.autoencoder.latent_channels if self.latent else self.image_channels

    @property
    def factor(self) -> int:
        """How many pixels the side of a place of the state covers."""
        return self.autoencoder.factor if self.latent else 1

    def shape(self, *sides: int) -> tuple[int, ...]:
        """(channels, h, w) of the state of a picture of so many pixels; likewise of what has fewer or more sides."""
        return self.channels, *(side // self.factor for side in sides)

    def from_images(self, images: Tensor) -> Tensor:
        """The clean state of pictures (N, C, H, W) in [-1, 1]."""
        return self.autoencoder.encode(images) if self.latent else images

    def to_images(self, x0: Tensor) -> Tensor:
        """The pictures of clean states, (N, C, H, W) in about [-1, 1]; differentiable."""
        return self.autoencoder.decode(x0) if self.latent else x0

    def from_mask(self, mask: Tensor) -> Tensor:
        """A mask (N, 1, H, W) as fine as the state: each place has the greatest value of its pixels.

        So a place is painted where any of its pixels is, and none that is to be painted is held to the picture.
        """
        return F.max_pool2d(mask, self.factor) if self.latent else mask

    def to_mask(self, mask: Tensor) -> Tensor:
        """The mask of pixels of one of places of the state."""
        return F.interpolate(mask, scale_factor=self.factor, mode="nearest") if self.latent else mask

    def is_that_of(self, other: Space) -> bool:
        """Whether a state means the same picture to both."""
        return self.image_channels == other.image_channels and same_latents(self.autoencoder, other.autoencoder)
