"""DDPM's ancestral sampler, with fixed or learned variance and mean-form guidance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from guided.samplers.steps import check_choice, check_sigmas, level, toward
from guided.types import Denoiser, NoiseFn, Prediction, State


@torch.no_grad()
def ddpm(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    variance: str | None = None,
) -> Iterator[State]:
    """Ancestral sampling: x' ~ N(mu, V) with mu = x0 + (s'/s)^2 (x - x0).

    V lies between the chain's posterior variance and its beta, which in sigma space are

        "fixed-small"   (s'/s)^2 (s^2 - s'^2)
        "fixed-large"   (s^2 - s'^2) (1 + s'^2) / (1 + s^2)

    A denoiser's `grad` shifts mu by V * grad (the mean form); the other samplers take its x0 as it is (the
    score form), as this one does where grad is None. `state.x0` is the denoiser's own in either case.

    Args:
        D, x, sigmas, noise: see `guided.samplers`. No noise is drawn for the step to 0.
        variance: "fixed-small", "fixed-large" or "learned"; None is "learned" where the denoiser gives
            var_frac, else "fixed-small".

    Raises:
        ValueError: sigmas are not strictly decreasing; variance is unknown, or "learned" without var_frac.

    Source:
        Ho et al. 2020, eq. 7; Nichol & Dhariwal 2021, eq. 15; Dhariwal & Nichol 2021, Alg. 1.
    """
    check_choice("variance", variance, (None, "fixed-small", "fixed-large", "learned"))
    levels = check_sigmas(sigmas)
    low = None
    for i, (s, s_next) in enumerate(pairwise(levels)):
        pred = D(x, level(s))
        low, high = variance_bounds(s, s_next, low)
        if variance == "fixed-large" and s_next == 0:
            high = low  # as the reference: only its last entry is not beta
        V = _variance(pred, low, high, variance)
        x0 = pred.x0 if pred.grad is None else pred.x0 - s**2 * pred.grad
        x = toward(x0, x, (s_next / s) ** 2)  # Ho et al. 2020, eq. 7
        if pred.grad is not None:
            # Dhariwal & Nichol 2021, Alg. 1, with the gradient at x, as in their code, not at mu, as in the
            # paper. The root brings the mean, and the gradient with respect to x, from VP scale to sigma
            # space.
            x = x + V * math.sqrt((1 + s**2) / (1 + s_next**2)) * pred.grad
        if s_next > 0:
            x = x + V**0.5 * noise(x)
        state = State(x, pred.x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x  # read back: the caller may have edited it


def variance_bounds(s: float, s_next: float, low_before: float | None) -> tuple[float, float]:
    """The posterior variance and beta of a step from s to s_next, in sigma space.

    At s_next = 0 the posterior variance is 0, but the learned variance needs its log: as in the reference
    that of the step before stands in, `low_before` brought to VP scale; or beta where there was no step
    before.
    """
    gap = s**2 - s_next**2
    high = gap * (1 + s_next**2) / (1 + s**2)
    if s_next > 0:
        return (s_next / s) ** 2 * gap, high
    return (gap if low_before is None else low_before) / (1 + s**2), high


def _variance(pred: Prediction, low: float, high: float, variance: str | None) -> float | Tensor:
    if variance == "fixed-small" or (variance is None and pred.var_frac is None):
        return low
    if variance == "fixed-large":
        return high
    if pred.var_frac is None:
        raise ValueError("variance='learned' needs a denoiser with var_frac; use 'fixed-small' or 'fixed-large'")
    # Nichol & Dhariwal 2021, eq. 15
    return (pred.var_frac * (math.log(high) - math.log(low)) + math.log(low)).exp()
