"""One-step samplers of second order: two network calls a step, no history."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from guided.samplers.steps import check_not_negative, check_sigmas, churn, level, split, toward
from guided.types import Denoiser, NoiseFn, State


@torch.no_grad()
def heun(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Iterator[State]:
    """EDM's sampler: Heun's method with optional churn; order 2, 2n - 1 network calls for n steps down to 0.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        s_churn: how much noise to add and remove again over the run; each of its n steps takes s_churn / n.
        s_tmin, s_tmax: levels between which that happens.
        s_noise: factor on that noise.

    Raises:
        ValueError: sigmas are not strictly decreasing, or an option is negative.

    Source:
        Karras et al. 2022, Alg. 2.
    """
    check_not_negative(s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax, s_noise=s_noise)
    levels = check_sigmas(sigmas)
    steps = len(levels) - 1
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x, s = churn(x, s, steps, noise, s_churn, s_tmin, s_tmax, s_noise)
        x0 = D(x, level(s)).x0
        x_next = toward(x0, x, s_next / s)
        if s_next > 0:
            d, d_next = (x - x0) / s, (x_next - D(x_next, level(s_next)).x0) / s_next
            x_next = x + (s_next - s) * (d + d_next) / 2  # Karras et al. 2022, Alg. 2, line 11
        state = State(x_next, x0, level(s_next), i, steps)
        yield state
        x = state.x  # read back: the caller may have edited it


def dpm2(D: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseFn = torch.randn_like) -> Iterator[State]:
    """The midpoint method with the midpoint taken in log sigma; order 2, two network calls a step.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.

    Raises:
        ValueError: sigmas are not strictly decreasing.

    Source:
        Karras et al. 2022, Alg. 3 with the midpoint of Lu et al. 2022a, Alg. 1.
    """
    yield from dpm2_ancestral(D, x, sigmas, noise=noise, eta=0.0)


@torch.no_grad()
def dpm2_ancestral(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[State]:
    """`dpm2` to a lower level, then fresh noise.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        eta: how much of the ancestral noise to add, at least 0; 0 is `dpm2`.
        s_noise: factor on that noise.

    Raises:
        ValueError: sigmas are not strictly decreasing, or an option is negative.

    Source:
        As `dpm2`; the noise is that of Song et al. 2021, eq. 16.
    """
    check_not_negative(eta=eta, s_noise=s_noise)
    levels = check_sigmas(sigmas)
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        down, up = split(s, s_next, eta)
        if down > 0:
            mid = math.sqrt(s * down)
            x_mid = toward(x0, x, mid / s)
            x = x + (down - s) * (x_mid - D(x_mid, level(mid)).x0) / mid
        else:
            x = toward(x0, x, 0.0)
        if up > 0:
            x = x + s_noise * up * noise(x)
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x


@torch.no_grad()
def dpmpp_2s_ancestral(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[State]:
    """DPM-Solver++(2S) to a lower level, then fresh noise; order 2 at eta = 0, two network calls a step.

    The ODE is solved for a constant x0, taken at the middle of the step in log sigma.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        eta: how much of the ancestral noise to add, at least 0.
        s_noise: factor on that noise.

    Raises:
        ValueError: sigmas are not strictly decreasing, or an option is negative.

    Source:
        Lu et al. 2022b, Alg. 1 with r = 1/2; the noise is that of Song et al. 2021, eq. 16.
    """
    check_not_negative(eta=eta, s_noise=s_noise)
    levels = check_sigmas(sigmas)
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = x0_mid = D(x, level(s)).x0
        down, up = split(s, s_next, eta)
        if down > 0:
            mid = math.sqrt(s * down)
            x0_mid = D(toward(x0, x, mid / s), level(mid)).x0
        x = toward(x0_mid, x, down / s)  # Lu et al. 2022b, Alg. 1, line 6
        if up > 0:
            x = x + s_noise * up * noise(x)
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x


@torch.no_grad()
def dpmpp_sde(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Iterator[State]:
    """DPM-Solver++ (SDE), single-step: noise enters at the inner point too; order 2 at eta = 0.

    Args:
        D, x, sigmas, noise: see `guided.samplers`. Two draws a step, independent of each other.
        eta: how much of the ancestral noise to add, at least 0.
        s_noise: factor on that noise.
        r: where the inner point lies in log sigma, in (0, 1].

    Raises:
        ValueError: sigmas are not strictly decreasing, r is outside (0, 1], or an option is negative.

    Source:
        Lu et al. 2022b, Alg. 1 for any r; the noise is that of Song et al. 2021, eq. 16, as in k-diffusion.
    """
    check_not_negative(eta=eta, s_noise=s_noise)
    if not 0 < r <= 1:
        raise ValueError(f"r must lie in (0, 1], got {r}")
    levels = check_sigmas(sigmas)
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = estimate = D(x, level(s)).x0
        if s_next > 0:
            inner = s * (s_next / s) ** r
            down, up = split(s, inner, eta)
            x_inner = toward(x0, x, down / s)
            if up > 0:
                x_inner = x_inner + s_noise * up * noise(x)
            estimate = x0 + (D(x_inner, level(inner)).x0 - x0) / (2 * r)
        down, up = split(s, s_next, eta)
        x = toward(estimate, x, down / s)
        if up > 0:
            x = x + s_noise * up * noise(x)
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x
