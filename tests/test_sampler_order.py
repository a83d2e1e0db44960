"""Each sampler's measured order of convergence, on the exact denoiser of a Gaussian mixture in float64."""

from __future__ import annotations

import math
from functools import cache, partial

import pytest
import torch
from oracle import blobs

from guided.samplers import (
    ddim,
    dpm2,
    dpm2_ancestral,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s_ancestral,
    dpmpp_3m_sde,
    dpmpp_sde,
    euler,
    euler_ancestral,
    heun,
    lms,
    unipc,
)

HIGH, LOW = 10.0, 0.1
D = blobs().denoiser()
X = HIGH * torch.randn(8, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@cache
def exact() -> torch.Tensor:
    """The ODE dx/dlambda = x0 - x with lambda = -log sigma, by 800 classical Runge-Kutta steps."""

    def slope(x, lam):
        return D(x, torch.tensor(math.exp(-lam), dtype=torch.float64)).x0 - x

    x, steps = X, 800
    lam, h = -math.log(HIGH), math.log(HIGH / LOW) / steps
    for _ in range(steps):
        k1 = slope(x, lam)
        k2 = slope(x + h / 2 * k1, lam + h / 2)
        k3 = slope(x + h / 2 * k2, lam + h / 2)
        k4 = slope(x + h * k3, lam + h)
        x, lam = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), lam + h
    return x


def even(n: int) -> torch.Tensor:
    """n steps, uniform in log sigma."""
    return torch.linspace(math.log(HIGH), math.log(LOW), n + 1, dtype=torch.float64).exp()


def graded(n: int) -> torch.Tensor:
    """The same with its first step cut into ever smaller ones, so that a multistep method has history."""
    sigmas = even(n)
    h = float((sigmas[0] / sigmas[1]).log())
    parts = torch.tensor([0.0, *(h * 2.0**-k for k in range(12, 0, -1))], dtype=torch.float64)
    return torch.cat([HIGH * (-parts).exp(), sigmas[1:]])


def measured_order(sampler, levels, n: int) -> float:
    errors = []
    for steps in (n, 2 * n):
        for state in sampler(D, X, levels(steps)):  # noqa: B007
            pass
        errors.append((state.x - exact()).abs().max())
    return float(torch.log2(errors[0] / errors[1]))


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (ddim, 1),
        (euler, 1),
        (partial(euler_ancestral, eta=0), 1),
        (partial(lms, order=1), 1),
        (heun, 2),
        (dpm2, 2),
        (partial(dpm2_ancestral, eta=0), 2),
        (partial(dpmpp_2s_ancestral, eta=0), 2),
        (partial(dpmpp_sde, eta=0), 2),
        (partial(dpmpp_sde, eta=0, r=0.3), 2),
        (dpmpp_2m, 2),
        (partial(dpmpp_2m_sde, eta=0), 2),
        (partial(dpmpp_2m_sde, eta=0, solver_type="heun"), 2),
        (partial(dpmpp_3m_sde, eta=0), 2),
        (partial(lms, order=2), 2),
        (unipc, 3),  # the corrector lifts the predictor's order 2
    ],
)
def test_order(sampler, order):
    assert measured_order(sampler, even, 128) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(partial(lms, order=3), 3), (lms, 4), (unipc, 3), (partial(unipc, order=3), 3)],
)
def test_order_with_a_graded_start(sampler, order):
    assert measured_order(sampler, graded, 64) > order - 0.2
