"""Multistep samplers: one network call a step, higher order from the estimates of the steps before.

They start at first order. An edited `state.x` leaves the history as it is, which is harmless for small edits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from guided.samplers.steps import check_choice, check_not_negative, check_sigmas, level, phi, toward
from guided.types import Denoiser, NoiseFn, State


def dpmpp_2m(D: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseFn = torch.randn_like) -> Iterator[State]:
    """DPM-Solver++(2M): the ODE for an x0 that moves linearly in log sigma; order 2.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.

    Raises:
        ValueError: sigmas are not strictly decreasing.

    Source:
        Lu et al. 2022b, Alg. 2.
    """
    yield from dpmpp_2m_sde(D, x, sigmas, noise=noise, eta=0.0)


@torch.no_grad()
def dpmpp_2m_sde(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: str = "midpoint",
) -> Iterator[State]:
    """SDE-DPM-Solver++(2M): order 2 at eta = 0, where "midpoint" is `dpmpp_2m`.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        eta: how much noise to add, at least 0; 1 is the reverse SDE.
        s_noise: factor on that noise.
        solver_type: how the slope of x0 is weighed: "midpoint" or "heun" (exact for a linear x0).

    Raises:
        ValueError: sigmas are not strictly decreasing, solver_type is unknown, or an option is negative.

    Source:
        Lu et al. 2022b (SDE-DPM-Solver++(2M)); Alg. 2 at eta = 0.
    """
    check_not_negative(eta=eta, s_noise=s_noise)
    check_choice("solver_type", solver_type, ("midpoint", "heun"))
    levels = check_sigmas(sigmas)
    x0_before, h_before = None, None
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        if s_next == 0:
            x = toward(x0, x, 0.0)
        else:
            h = math.log(s / s_next)
            H = (1 + eta) * h
            x = toward(x0, x, math.exp(-H))
            if x0_before is not None:
                slope = (x0 - x0_before) * (h / h_before)  # change of x0 over this step
                x = x + H * (phi(2, -H) if solver_type == "heun" else phi(1, -H) / 2) * slope
            x = _add_sde_noise(x, s_next, h, eta, s_noise, noise)
            x0_before, h_before = x0, h
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x  # read back: the caller may have edited it


@torch.no_grad()
def dpmpp_3m_sde(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Iterator[State]:
    """SDE-DPM-Solver++(3M): slope and curvature of x0 from two estimates before; order 2 at eta = 0.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        eta: how much noise to add, at least 0; 1 is the reverse SDE.
        s_noise: factor on that noise.

    Raises:
        ValueError: sigmas are not strictly decreasing, or an option is negative.

    Source:
        Lu et al. 2022b (SDE-DPM-Solver++), carried to three points as k-diffusion does.
    """
    check_not_negative(eta=eta, s_noise=s_noise)
    levels = check_sigmas(sigmas)
    past: deque[tuple[float, Tensor]] = deque(maxlen=2)  # (length of the step, x0 at its start), newest first
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        if s_next == 0:
            x = toward(x0, x, 0.0)
        else:
            h = math.log(s / s_next)
            H = (1 + eta) * h
            x = toward(x0, x, math.exp(-H))
            if past:
                slope, bend = _differences(x0, h, past)
                x = x + H * phi(2, -H) * slope
                if bend is not None:
                    # k-diffusion's weight. Taylor asks for twice that, which would bring order 3.
                    x = x + H * phi(3, -H) * bend
            x = _add_sde_noise(x, s_next, h, eta, s_noise, noise)
            past.appendleft((h, x0))
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x


def _differences(x0: Tensor, h: float, past: deque[tuple[float, Tensor]]) -> tuple[Tensor, Tensor | None]:
    """How x0 changes over a step of length h: slope times h and, from three points, bend times h^2."""
    (h1, x1), *older = past
    slope = (x0 - x1) * (h / h1)
    if not older:
        return slope, None
    h2, x2 = older[0]
    bend = (slope - (x1 - x2) * (h / h2)) * (h / (h1 + h2))
    return slope + bend * (h1 / h), bend


def _add_sde_noise(x: Tensor, s_next: float, h: float, eta: float, s_noise: float, noise: NoiseFn) -> Tensor:
    if eta == 0:
        return x
    return x + s_noise * s_next * math.sqrt(-math.expm1(-2 * eta * h)) * noise(x)


@torch.no_grad()
def lms(
    D: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseFn = torch.randn_like, order: int = 4
) -> Iterator[State]:
    """Linear multistep: Adams-Bashforth in sigma with uneven steps, on dx/dsigma = (x - x0) / sigma.

    Slopes hold the noise of the x they were taken at: after an edit of the state the past is forgotten. A step that
    is long beside those before it, as the one to 0 is of many, takes fewer of them, lest it magnify their errors.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        order: how many slopes it uses once it has them, at least 1.

    Raises:
        ValueError: sigmas are not strictly decreasing, or order is not a whole number from 1 on.

    Source:
        Hairer et al. 1993, section III.5, as k-diffusion applies it.
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(f"order must be a whole number from 1 on, got {order!r}")
    levels = check_sigmas(sigmas)
    past: deque[tuple[float, Tensor]] = deque(maxlen=order)  # (sigma, slope), newest last
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        past.append((s, (x - x0) / s))
        weights = _steady([node for node, _ in past], s, s_next)
        x = x + sum(w * d for w, (_, d) in zip(weights, list(past)[-len(weights) :], strict=True))
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        if state.x is not x:
            past.clear()
        x = state.x


MAGNIFIED = 20  # the most by which a step of lms may magnify an error of its slopes; 6.7 where four steps are alike


def _steady(nodes: list[float], a: float, b: float) -> list[float]:
    """`_integrals` over as many of the last nodes as magnify no more than that."""
    weights = _integrals(nodes, a, b)
    if len(nodes) > 1 and sum(map(abs, weights)) > MAGNIFIED * abs(b - a):
        return _steady(nodes[1:], a, b)
    return weights


def _integrals(nodes: list[float], a: float, b: float) -> list[float]:
    """Integral from a to b of each Lagrange polynomial over the nodes; Gauss-Legendre is exact for them."""
    points, weights = np.polynomial.legendre.leggauss((len(nodes) + 1) // 2)
    points = (a + b) / 2 + (b - a) / 2 * points
    lagrange = (math.prod((points - q) / (p - q) for q in nodes if q != p) for p in nodes)
    return [float((b - a) / 2 * (weights * value).sum()) for value in lagrange]
