"""Bounds on the estimate: a fixed range, or one that follows each picture."""

from __future__ import annotations

import torch
from torch import Tensor

from guided.guidance.per_picture import rows
from guided.types import Denoiser, Prediction


def clamp(D: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """x0 cut to [low, high].

    Around a guided denoiser it bounds what guidance made; the result has no `grad` then, and `ddpm` takes x0
    as it is. Inside one, guide(clamp(D), term), it is guided-diffusion's order: x0 + sigma^2 grad is not cut
    again. There a term with wrt="x0" gets no gradient from pixels that are cut, so for CLIP rather take
    clamp(guide(D, term)).

    Raises:
        ValueError: low is not below high.
    """
    if not low < high:
        raise ValueError(f"clamp needs low < high, got {low} and {high}")

    def clamped_D(x: Tensor, sigma: Tensor) -> Prediction:
        pred = D(x, sigma)
        return Prediction(pred.x0.clamp(low, high), pred.var_frac)

    return clamped_D


def dynamic_threshold(D: Denoiser, percentile: float = 0.995) -> Denoiser:
    """x0 cut to [-s, s] and divided by s, s the percentile of |x0| in each picture where that exceeds 1.

    Holds saturation down at high guidance scales. Keeps var_frac, drops grad, as `clamp` does.

    Raises:
        ValueError: percentile is not in (0, 1].

    Source:
        Saharia et al. 2022, section 2.3.
    """
    if not 0 < percentile <= 1:
        raise ValueError(f"percentile must lie in (0, 1], got {percentile}")

    def thresholded_D(x: Tensor, sigma: Tensor) -> Prediction:
        pred = D(x, sigma)
        s = torch.quantile(pred.x0.detach().abs().flatten(1), percentile, dim=1).clamp(min=1)
        s = rows(s, pred.x0)
        return Prediction(pred.x0.clamp(-s, s) / s, pred.var_frac)

    return thresholded_D
