"""Augmentations that a diffusion model is told about, so that its samples do not show them."""

from __future__ import annotations

import math

import torch
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
