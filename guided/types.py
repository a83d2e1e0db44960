"""The four words of the library: a denoiser makes a Prediction, a sampler a stream of States."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.devices import onto


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a denoiser says about a noisy image x = x0 + sigma * noise.

    Attributes:
        x0: (N, C, H, W) estimate of E[x0 | x], guidance included.
        var_frac: (N, C, H, W) or None. Where the step variance lies between its two bounds, in log space
            (Nichol & Dhariwal 2021, eq. 15); about 0..1. Only ancestral sampling reads it.
        grad: (N, C, H, W) or None. grad_x log p(y | x), already folded into `x0` as sigma^2 * grad, kept
            because the mean form of guidance needs it apart (Dhariwal & Nichol 2021, Alg. 1).
    """

    x0: Tensor
    var_frac: Tensor | None = None
    grad: Tensor | None = None


@dataclass(slots=True)
class State:
    """One moment of a sampling run. Mutable on purpose: assigning `.x` edits the trajectory.

    Attributes:
        x: (N, C, H, W) the image at noise level `sigma`, right now.
        x0: (N, C, H, W) the estimate made at the start of the step that led here.
        sigma: () float64 on the CPU, the noise level of `x`.
        step: which step was just made, from 0.
        steps: how many steps the run has.
    """

    x: Tensor
    x0: Tensor
    sigma: Tensor
    step: int
    steps: int


Denoiser = Callable[[Tensor, Tensor], Prediction]
"""D(x, sigma): x (N, C, H, W), sigma () or (N,)."""

NoiseFn = Callable[[Tensor], Tensor]
"""Called as noise(x): standard normal noise of x's shape, dtype and device, like torch.randn_like."""


def score(D: Denoiser, x: Tensor, sigma: Tensor | float) -> Tensor:
    """grad_x log p(x; sigma) = (D - x) / sigma^2 of any denoiser, guided or not (Karras et al. 2022, eq. 3).

    Args:
        x: (N, ...) at noise level sigma.
        sigma: () or (N,), positive.

    Returns:
        Like x.
    """
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    variance = sigma.cpu() ** 2
    if variance.ndim:
        variance = onto(variance, x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return (D(x, sigma).x0 - x) / variance
