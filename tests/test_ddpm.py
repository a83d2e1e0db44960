"""`ddpm` and `ddim` in sigma space against the papers' formulas in their own terms, x_t and alpha_bar."""

from __future__ import annotations

import pytest
import torch

from guided.noise import SeededNoise
from guided.samplers import ddim, ddpm
from guided.types import Prediction

BETA = torch.linspace(1e-4, 0.3, 20, dtype=torch.float64)
ALPHA_BAR = torch.cumprod(1 - BETA, 0)
BEFORE = torch.cat([torch.ones(1).double(), ALPHA_BAR[:-1]])
SIGMA = ((1 - ALPHA_BAR) / ALPHA_BAR).sqrt()
SIGMAS = torch.cat([SIGMA.flip(0), torch.zeros(1)])
SHAPE = (2, 3, 4, 4)


def eps_theta(x_t):
    """Stands for a network; and its classifier gradient and variance fraction."""
    return torch.tanh(1.3 * x_t) - 0.2 * x_t


def grad_theta(x_t):
    return 0.5 * torch.sin(2 * x_t)


def frac_theta(x_t):
    return torch.sigmoid(x_t) * 1.4 - 0.2


def denoiser(*, guided: bool, learned: bool):
    """The same three in sigma space."""

    def D(x, sigma):
        x_t = x / (1 + sigma**2).sqrt()
        grad = grad_theta(x_t) / (1 + sigma**2).sqrt() if guided else None
        x0 = x - sigma * eps_theta(x_t)
        if guided:
            x0 = x0 + sigma**2 * grad
        return Prediction(x0, frac_theta(x_t) if learned else None, grad)

    return D


def textbook_ddpm(x_t, noises, *, variance: str, guided: bool):
    """Ho et al. 2020, Alg. 2 with eq. 7; Nichol & Dhariwal 2021, eq. 15; Dhariwal & Nichol 2021, Alg. 1."""
    beta_tilde = (1 - BEFORE) / (1 - ALPHA_BAR) * BETA
    beta_tilde[0] = beta_tilde[1]  # as in the reference code: its log must be finite
    for t in reversed(range(len(BETA))):
        x0 = (x_t - (1 - ALPHA_BAR[t]).sqrt() * eps_theta(x_t)) / ALPHA_BAR[t].sqrt()
        mean = (BEFORE[t].sqrt() * BETA[t] * x0 + (1 - BETA[t]).sqrt() * (1 - BEFORE[t]) * x_t) / (1 - ALPHA_BAR[t])
        if variance == "learned":
            frac = frac_theta(x_t)
            V = (frac * BETA[t].log() + (1 - frac) * beta_tilde[t].log()).exp()
        elif variance == "fixed-large":
            V = BETA[t] if t > 0 else beta_tilde[0]
        else:
            V = beta_tilde[t]
        if guided:
            mean = mean + V * grad_theta(x_t)
        x_t = mean + V**0.5 * noises[t] if t > 0 else mean
    return x_t


def textbook_ddim(x_t, noises, *, eta: float, guided: bool):
    """Song et al. 2021, eq. 12 and 16; Dhariwal & Nichol 2021, Alg. 2."""
    for t in reversed(range(len(BETA))):
        eps = eps_theta(x_t)
        if guided:
            eps = eps - (1 - ALPHA_BAR[t]).sqrt() * grad_theta(x_t)
        x0 = (x_t - (1 - ALPHA_BAR[t]).sqrt() * eps) / ALPHA_BAR[t].sqrt()
        s = eta * ((1 - BEFORE[t]) / (1 - ALPHA_BAR[t]) * (1 - ALPHA_BAR[t] / BEFORE[t])).sqrt()
        x_t = BEFORE[t].sqrt() * x0 + (1 - BEFORE[t] - s**2).sqrt() * eps
        if t > 0:
            x_t = x_t + s * noises[t]
    return x_t


def draws():
    """x_T and the noise of each t, as the sampler will draw them."""
    noise = SeededNoise([0, 1])
    x_T = noise(torch.empty(SHAPE, dtype=torch.float64))
    later = SeededNoise([0, 1], draws=1)
    return x_T, [later(x_T) for _ in BETA][::-1]


def final(states):
    for state in states:  # noqa: B007
        pass
    return state.x


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    ("variance", "option"),
    [
        ("fixed-small", None),
        ("fixed-small", "fixed-small"),
        ("fixed-large", "fixed-large"),
        ("learned", None),
        ("learned", "learned"),
    ],
)
def test_ddpm(variance, option, guided):
    x_T, noises = draws()
    expected = textbook_ddpm(x_T, noises, variance=variance, guided=guided)
    D = denoiser(guided=guided, learned=variance == "learned")
    x = x_T / ALPHA_BAR[-1].sqrt()
    ours = final(ddpm(D, x, SIGMAS, variance=option, noise=SeededNoise([0, 1], draws=1)))
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(eta, guided):
    x_T, noises = draws()
    x = x_T / ALPHA_BAR[-1].sqrt()
    D = denoiser(guided=guided, learned=False)
    ours = final(ddim(D, x, SIGMAS, eta=eta, noise=SeededNoise([0, 1], draws=1)))
    torch.testing.assert_close(ours, textbook_ddim(x_T, noises, eta=eta, guided=guided), atol=1e-10, rtol=1e-10)


def test_a_changed_x0_is_taken_as_it_is():
    """Where grad is None, as after a clamp, `ddpm` moves to the x0 it is given, guided or not."""
    x0 = torch.full(SHAPE, 0.25, dtype=torch.float64)
    s, s_next = SIGMAS[3], SIGMAS[4]
    x = torch.ones(SHAPE, dtype=torch.float64)
    state = next(ddpm(lambda x, s: Prediction(x0), x, SIGMAS[3:5], noise=torch.zeros_like))
    torch.testing.assert_close(state.x, x0 + (s_next / s) ** 2 * (x - x0))


def test_mean_and_score_form_agree_as_steps_shrink():
    """The mean form (ddpm, low variance) tends to the score form (ddim, eta = 1) on finer chains."""

    def gap(n):
        sigmas = torch.logspace(0.5, -0.5, n + 1, dtype=torch.float64)
        D = denoiser(guided=True, learned=False)
        x = torch.ones(SHAPE, dtype=torch.float64)
        a = final(ddpm(D, x, sigmas, noise=torch.zeros_like))
        b = final(ddim(D, x, sigmas, eta=1.0, noise=torch.zeros_like))
        return float((a - b).abs().max())

    assert gap(40) / gap(80) == pytest.approx(2, abs=0.3)
