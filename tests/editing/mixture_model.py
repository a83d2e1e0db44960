"""A model that is exact: its network is the denoiser of a mixture of Gaussians, one class a component."""

from __future__ import annotations

import torch
from oracle import Mixture
from torch import Tensor, nn

import guided


class MixtureNet(nn.Module):
    """F(x_t, t, y) = E[x0 | x, y] for the parametrization "x0", with t = log(sigma) / 4; the last label is no class."""

    def __init__(self, mixture: Mixture):
        super().__init__()
        self.mixture = mixture

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        sigma = (4 * t.double()).exp()
        x = x_t.double() * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
        classes = len(self.mixture.stds)
        estimates = [self.mixture.denoiser([k])(x, sigma).x0 for k in range(classes)]
        estimates.append(self.mixture.denoiser()(x, sigma).x0)
        rows = y if y.is_floating_point() else nn.functional.one_hot(y, classes + 1)
        return (rows.double().reshape(*rows.shape, 1, 1, 1) * torch.stack(estimates, 1)).sum(1).to(x_t.dtype)


def mixture_model(side: int = 8, stds: tuple[float, float] = (0.3, 0.3)) -> guided.Model:
    """Two classes of pictures (3, side, side), dark at the left and dark at the right, and no class."""
    ramp = torch.linspace(-0.5, 0.5, side, dtype=torch.float64).expand(3, side, side)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    mixture = Mixture(torch.stack([ramp, -ramp]), torch.tensor(stds, dtype=torch.float64), half)
    return guided.Model(
        MixtureNet(mixture), parametrization="x0", image_size=side, class_names=["left", "right"], null_class=True
    )
