"""Mask denoisers whose answer is known: a few masks that a picture makes more or less likely."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

import guided


class OneOfSome(nn.Module):
    """E[x0 | x, picture] where the mask is one of `masks` (M, C, H, W), in [-1, 1].

    The picture's first pixels, channel by channel, are the masks' log-probabilities (not normalised): the posterior is
    softmax(log p + <x, mask> / sigma^2 - |mask|^2 / (2 sigma^2)).
    """

    def __init__(self, masks: Tensor, pixelwise: bool = False):
        super().__init__()
        self.masks, self.pixelwise = masks, pixelwise
        channels = masks.shape[1]
        self.config = SimpleNamespace(in_channels=channels, image_channels=len(masks), downsample=1)

    def forward(self, x: Tensor, t: Tensor, *, image: Tensor) -> Tensor:
        sigma = (4 * t).exp()[:, None, None, None]  # of c_noise = log(sigma) / 4
        x = x * (1 + sigma**2).sqrt()
        fit = (x[:, None] * self.masks - self.masks**2 / 2) / sigma[:, None] ** 2
        if self.pixelwise:  # each pixel is one of the masks' by itself
            w = (image[:, :, None] * 3 + fit.sum(2, keepdim=True)).softmax(1)
        else:
            w = (image[:, :, 0, 0] * 3 + fit.sum((2, 3, 4))).softmax(1)[:, :, None, None, None]
        return (w * self.masks).sum(1)


def one_of(masks: Tensor, segments: guided.Segments | None = None, *, pixelwise: bool = False) -> guided.Model:
    """The model of that network; a picture of -1 .. 1 in channel m stands for a log-probability of -3 .. 3."""
    return guided.Model(
        OneOfSome(masks, pixelwise), None, "x0", channels=masks.shape[1], image_size=masks.shape[-1], segments=segments
    ).eval()


def picture(*logs: float, side: int = 4, n: int = 1) -> Tensor:
    """(n, M, side, side): log-probabilities of the masks, divided by 3."""
    return torch.tensor(logs)[None, :, None, None].expand(n, -1, side, side).clone() / 3
