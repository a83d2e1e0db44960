"""First-order samplers: DDIM, Euler and Euler-ancestral, which are one rule with different noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from guided.samplers.steps import check_not_negative, check_sigmas, churn, level, split, toward
from guided.types import Denoiser, NoiseFn, State


def ddim(
    D: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseFn = torch.randn_like, eta: float = 0.0
) -> Iterator[State]:
    """DDIM: x' = x0 + (down / sigma) (x - x0) + up * noise, with up = eta * the posterior's deviation.

    Deterministic at eta = 0, and then it also goes up (inversion): pass increasing levels from a positive
    one. At eta = 1 it is `ddpm(variance="fixed-small")`, but for gradient guidance, which enters in the score
    form.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        eta: how much of the ancestral noise to add, at least 0; what exceeds the next level is cut.

    Raises:
        ValueError: sigmas are not strictly monotone (decreasing, where eta > 0), or eta is negative.

    Source:
        Song et al. 2021, eq. 12 and 16; Dhariwal & Nichol 2021, Alg. 2.
    """
    check_not_negative(eta=eta)
    yield from _first_order(D, x, check_sigmas(sigmas, up=eta == 0), noise, eta, 1.0)


def euler_ancestral(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[State]:
    """Euler steps to a lower level, then fresh noise: `ddim` by another name and with eta = 1 by default.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        eta: how much of the ancestral noise to add, at least 0.
        s_noise: factor on that noise.

    Raises:
        ValueError: sigmas are not strictly decreasing, or an option is negative.

    Source:
        Song et al. 2021, eq. 12 and 16, as k-diffusion names it.
    """
    check_not_negative(eta=eta, s_noise=s_noise)
    yield from _first_order(D, x, check_sigmas(sigmas), noise, eta, s_noise)


@torch.no_grad()
def _first_order(
    D: Denoiser, x: Tensor, levels: list[float], noise: NoiseFn, eta: float, s_noise: float
) -> Iterator[State]:
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        down, up = split(s, s_next, eta)  # Song et al. 2021, eq. 16
        x = toward(x0, x, down / s)  # Song et al. 2021, eq. 12
        if up > 0:
            x = x + s_noise * up * noise(x)
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x  # read back: the caller may have edited it


@torch.no_grad()
def euler(
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
    """Euler's method on dx/dsigma = (x - x0) / sigma, with optional churn; order 1.

    Without churn it is `ddim(eta=0)` and, like it, also goes up.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        s_churn: how much noise to add and remove again over the run; each of its n steps takes s_churn / n.
        s_tmin, s_tmax: levels between which that happens.
        s_noise: factor on that noise.

    Raises:
        ValueError: sigmas are not strictly monotone (decreasing, if s_churn > 0), or an option is negative.

    Source:
        Karras et al. 2022, eq. 1 with sigma(t) = t; Alg. 2 without its second-order correction.
    """
    check_not_negative(s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax, s_noise=s_noise)
    levels = check_sigmas(sigmas, up=s_churn == 0)
    steps = len(levels) - 1
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x, s = churn(x, s, steps, noise, s_churn, s_tmin, s_tmax, s_noise)
        x0 = D(x, level(s)).x0
        x = toward(x0, x, s_next / s)
        state = State(x, x0, level(s_next), i, steps)
        yield state
        x = state.x
