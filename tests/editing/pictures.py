"""What the editors' tests share: pictures, masks, a mixture whose conditional distribution is known."""

from __future__ import annotations

import torch
from oracle import Mixture
from torch import Tensor


def pictures(n: int = 2, dtype: torch.dtype = torch.float32, side: int = 16) -> Tensor:
    """(n, 3, side, side) of any values in [-1, 1]."""
    g = torch.Generator().manual_seed(1)
    return torch.rand((n, 3, side, side), generator=g, dtype=dtype) * 2 - 1


def hole(n: int = 1, side: int = 16) -> Tensor:
    """(n, 1, side, side): the middle is to be painted."""
    mask = torch.zeros(n, 1, side, side)
    mask[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return mask


def kept_exactly(before: Tensor, after: Tensor, mask: Tensor) -> bool:
    """Whether every pixel where the mask is 0 is the same to the bit."""
    kept = (mask == 0).expand_as(after)
    return torch.equal(before.expand_as(after)[kept], after[kept])


def two_pixels() -> Mixture:
    """Two classes of pictures with two pixels, which lie near (-1, -0.8) and (1, 0.9) with deviation 0.58, in float64.

    To know the first pixel is to know something of the second: at 0.25 its conditional mean is 0.46, while the
    unconditional one is 0.05.
    """
    means = torch.tensor([[-1.0, -0.8], [1.0, 0.9]], dtype=torch.float64).reshape(2, 1, 1, 2)
    return Mixture(means, torch.full((2,), 0.58, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64))


def conditional(mixture: Mixture, known: float, n: int, generator: torch.Generator) -> tuple[float, float, Tensor]:
    """Mean, deviation and n sorted draws of the second pixel given the first, in closed form."""
    a, b, std = mixture.means[:, 0, 0, 0], mixture.means[:, 0, 0, 1], mixture.stds
    weights = (mixture.weights.log() - (known - a) ** 2 / (2 * std**2) - std.log()).softmax(0)
    mean = float((weights * b).sum())
    deviation = float(((weights * (std**2 + b**2)).sum() - mean**2).sqrt())
    k = torch.multinomial(weights, n, replacement=True, generator=generator)
    draws = b[k] + std[k] * torch.randn(n, generator=generator, dtype=torch.float64)
    return mean, deviation, draws.sort().values


def normal(seed: int):
    """Fast noise for many points: a NoiseFn of one generator."""
    g = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype)
