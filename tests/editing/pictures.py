"""What the editors' tests share: pictures, masks, a mixture whose conditional distribution is known."""

from __future__ import annotations

import copy

import torch
from oracle import Mixture
from torch import Tensor

import guided


def pictures(n: int = 2, dtype: torch.dtype = torch.float32, side: int = 16) -> Tensor:
    """(n, 3, side, side) of any values in [-1, 1]."""
    g = torch.Generator().manual_seed(1)
    return torch.rand((n, 3, side, side), generator=g, dtype=dtype) * 2 - 1


def no_null_class(model: guided.Model) -> guided.Model:
    """The same network without a class that stands for none."""
    bare = copy.copy(model)
    bare.null_label = None
    return bare


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
    """Two classes of pictures with two pixels, which lie near (-1, -1) and (1, 1) with deviation 0.5, in float64.

    To know the first pixel is to know much of the second: at 0.6 its conditional mean is 0.98 and its deviation 0.53;
    without it they are 0 and 1.12.
    """
    means = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64).reshape(2, 1, 1, 2)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    return Mixture(means, half, half)


def conditional(mixture: Mixture, known: float, n: int, generator: torch.Generator) -> tuple[float, float, Tensor]:
    """Mean and deviation, in closed form, of the second pixel given the first; and n of its quantiles, from draws."""
    a, b, std = mixture.means[:, 0, 0, 0], mixture.means[:, 0, 0, 1], mixture.stds
    weights = (mixture.weights.log() - (known - a) ** 2 / (2 * std**2) - std.log()).softmax(0)
    mean = float((weights * b).sum())
    deviation = float(((weights * (std**2 + b**2)).sum() - mean**2).sqrt())
    k = torch.multinomial(weights, 200 * n, replacement=True, generator=generator)
    draws = b[k] + std[k] * torch.randn(200 * n, generator=generator, dtype=torch.float64)
    return mean, deviation, draws.sort().values[100::200]


def normal(seed: int):
    """Fast noise for many points: a NoiseFn of one generator."""
    g = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype)


def model_with_mask() -> guided.Model:
    """16 pixels, random weights, told a masked image and its mask."""
    config = guided.networks.UNetConfig(
        in_channels=3, out_channels=3, mask_channels=1, model_channels=32, num_res_blocks=1, channel_mult=(1,),
        attention_resolutions=(), num_head_channels=32,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = guided.Model(guided.networks.UNet(config), parametrization="edm", image_size=16)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)
