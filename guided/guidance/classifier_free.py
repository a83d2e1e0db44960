"""Guidance by the difference of two denoisers: classifier-free guidance and what grew out of it."""

from __future__ import annotations

import math

from torch import Tensor

from guided.guidance.per_picture import Window, check_window, inside, length, per_picture, rows
from guided.guidance.scales import Scale, check_scale, is_off, scale_at
from guided.guidance.together import together
from guided.types import Denoiser, Prediction


def cfg(
    D_c: Denoiser,
    D_u: Denoiser,
    guidance_scale: Scale,
    *,
    window: Window | None = None,
    rescale: float = 0.0,
    parallel: float = 1.0,
    momentum: float = 0.0,
    norm: float | None = None,
) -> Denoiser:
    """Classifier-free guidance: x0 = D_c + (guidance_scale - 1) (D_c - D_u).

    D_u may be any denoiser: the same model without its condition or with a negative one, an unconditional
    model, or a smaller or less trained model with the same condition (autoguidance). Where both are one model
    with conditions of the same names and shapes they run as a single batch of 2N.

    `momentum`, `norm` and `parallel` make it adaptive projected guidance: the difference becomes a running
    sum, is cut to a length, and its part along D_c is multiplied by `parallel`. The sum starts afresh
    whenever sigma does not fall, so one denoiser serves many runs.

    Args:
        D_c: the conditional denoiser; the result has its var_frac, and no grad.
        D_u: the one to move away from. Not called at scale 1 or outside the window.
        guidance_scale: a number, (N,), or a function of sigma that gives one (`guided.scales`); 1 is off.
        window: (low, high]; outside it the result is D_c's own prediction.
        rescale: in [0, 1]; how far to bring each picture's standard deviation back to that of D_c.
        parallel: factor on the difference's part along D_c; 1 keeps it, 0 is the paper's choice.
        momentum: in (-1, 1); negative values are the paper's choice.
        norm: greatest length of one picture's difference; None is no limit.

    Raises:
        ValueError: an option is out of range; when called, a scale (N,) does not match the batch.

    Source:
        Ho & Salimans 2022, eq. 6, with guidance_scale = 1 + w. Window: Kynkäänniemi et al. 2024. Rescale: Lin
        et al. 2024, section 3.4. Projection, momentum, norm: Sadat et al. 2025. Autoguidance: Karras et al.
        2024.
    """
    _check_options(window, rescale, momentum, norm)
    check_scale(guidance_scale)
    if not callable(guidance_scale) and is_off(guidance_scale):
        return D_c
    running = _RunningSum(momentum)

    def guided_D(x: Tensor, sigma: Tensor) -> Prediction:
        on, scale = inside(window, sigma), scale_at(guidance_scale, sigma)
        if not on.any() or (callable(guidance_scale) and is_off(scale)):
            return D_c(x, sigma)
        pred, other = together((D_c, D_u), x, sigma)
        delta = running.add(pred.x0 - other.x0, sigma)
        if norm is not None:
            delta = delta * (norm / length(delta)).clamp(max=1)
        if parallel != 1:
            delta = delta - (1 - parallel) * _along(delta, pred.x0)
        weight = per_picture(scale, x, "guidance_scale") - 1
        x0 = pred.x0 + weight * per_picture(on, x, "sigma") * delta  # Ho & Salimans 2022, eq. 6
        if rescale:
            x0 = x0 * (1 - rescale + rescale * _deviation(pred.x0) / _deviation(x0))
        return Prediction(x0, pred.var_frac)

    return guided_D


def _check_options(window: Window | None, rescale: float, momentum: float, norm: float | None) -> None:
    check_window(window)
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale must lie in [0, 1], got {rescale}")
    if not -1 < momentum < 1:
        raise ValueError(f"momentum must lie in (-1, 1), got {momentum}")
    if norm is not None and not norm > 0:
        raise ValueError(f"norm must be positive, or None for no limit, got {norm}")


class _RunningSum:
    """Differences summed with momentum over one run: as long as sigma falls."""

    def __init__(self, momentum: float):
        self.momentum = momentum
        self.sigma, self.sum = -math.inf, None

    def add(self, delta: Tensor, sigma: Tensor) -> Tensor:
        if self.momentum == 0:
            return delta
        level = float(sigma.max())
        if level < self.sigma and self.sum.shape == delta.shape:
            delta = delta + self.momentum * self.sum
        self.sigma, self.sum = level, delta.detach()
        return delta


def _along(delta: Tensor, x0: Tensor) -> Tensor:
    """Each picture's delta projected on its x0."""
    unit = x0 / length(x0)
    return rows((delta * unit).flatten(1).sum(dim=1), x0) * unit


def _deviation(x: Tensor) -> Tensor:
    return rows(x.flatten(1).std(dim=1).clamp(min=1e-12), x)
