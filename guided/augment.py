"""Pictures varied at random: for classifiers, and for diffusion models, which are told, so that samples do not show it.

Every function takes draws in [0, 1), a row a picture, and is a pure function of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NUMBERS = 3  # mirrored; cosine of the hue's turn, less 1; its sine
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64)


def flip_and_hue(x: Tensor, draws: Tensor, *, mirrored: float = 0.5, turned: float = 0.3) -> tuple[Tensor, Tensor]:
    """Pictures mirrored and their hues turned at random, and the numbers that say how.

    The hue turns in the chrominance plane of YIQ: luma stays, and so do greys, white ground among them.

    Args:
        x: (N, 3, H, W) in [-1, 1].
        draws: (N, 3) in [0, 1): whether to mirror, whether to turn, and how far.
        mirrored, turned: shares of the pictures that are.

    Returns:
        the pictures, and (N, 3): 1 where mirrored; cosine of the angle less 1; its sine. All zero: as it was.

    Source:
        Karras et al. 2022, appendix F.2, for the principle.
    """
    flip = draws[:, 0] < mirrored
    angle = torch.where(draws[:, 1] < turned, 2 * math.pi * draws[:, 2], 0.0)
    x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    x = torch.einsum("nij,njhw->nihw", hue_rotation(angle).to(x.dtype), x).clamp(-1, 1)
    return x, torch.stack([flip.to(angle.dtype), angle.cos() - 1, angle.sin()], dim=1).float()


def hue_rotation(angle: Tensor) -> Tensor:
    """(N, 3, 3) maps of RGB that turn chrominance by angle (N,) in radians; the identity at 0."""
    c, s = angle.double().cos(), angle.double().sin()
    one, zero = torch.ones_like(c), torch.zeros_like(c)
    turn = torch.stack([one, zero, zero, zero, c, -s, zero, s, c], dim=-1).reshape(-1, 3, 3)
    return torch.linalg.inv(TO_YIQ) @ turn @ TO_YIQ


def crop(x: Tensor, draws: Tensor) -> Tensor:
    """A square part of each picture (N, C, H, W), enlarged: side 0.8 + 0.2 draws[:, 0], place draws[:, 1:]."""
    side = 0.8 + 0.2 * draws[:, 0]
    centre = (1 - side)[:, None] * (2 * draws[:, 1:] - 1)  # the picture spans -1 .. 1: the part stays inside
    theta = torch.cat([side[:, None, None] * torch.eye(2), centre[:, :, None]], dim=2)
    return _resampled(x, theta, "reflection")


def move(x: Tensor, draws: Tensor) -> Tensor:
    """Pictures shown at another size, place, angle, brightness and contrast: for classifiers that have few.

    Args:
        x: (N, C, H, W) in [-1, 1]; what comes into view repeats the edge.
        draws: (N, 6): size, exp(+-0.3) times; across and down, up to an eighth of the side; angle, up to 15 degrees;
            brightness, up to 0.2; contrast, exp(+-0.3) times.
    """
    d = 2 * draws.to(x.dtype) - 1
    scale, angle = (0.3 * d[:, 0]).exp(), math.radians(15) * d[:, 3]
    c, s = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack([c, -s, d[:, 1] / 4, s, c, d[:, 2] / 4], dim=1).reshape(-1, 2, 3)
    light, contrast = (0.2 * d[:, 4])[:, None, None, None], (0.3 * d[:, 5]).exp()[:, None, None, None]
    return (contrast * _resampled(x, theta, "border") + light).clamp(-1, 1)


def _resampled(x: Tensor, theta: Tensor, outside: str) -> Tensor:
    """x looked at through maps theta (N, 2, 3) of the square -1 .. 1."""
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bicubic", padding_mode=outside, align_corners=False).clamp(-1, 1)
