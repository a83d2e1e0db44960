"""What the samplers share: the checked list of levels, the moves a step is made of, and its checks.

Levels are Python floats here: coefficients are then float64 on any device, and no branch waits for one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from guided.types import NoiseFn


def check_sigmas(sigmas: Tensor | Sequence[float | Tensor], *, up: bool = False) -> list[float]:
    """The levels as floats: at least two, finite, strictly decreasing or, where `up` allows it, increasing.

    Raises:
        ValueError: they are not; the first step that goes the wrong way is named.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas must be a list of at least two levels, got shape {tuple(levels.shape)}")
    levels = levels.tolist()
    if not all(0 <= s < math.inf for s in levels):
        raise ValueError(f"sigmas must be finite and not negative, got {levels}")
    rising = up and levels[1] > levels[0]
    if rising and levels[0] == 0:
        raise ValueError("an upward run cannot start at sigma 0: start at the model's sigma_min")
    for i in range(len(levels) - 1):
        s, s_next = levels[i], levels[i + 1]
        if s == s_next or (s_next > s) != rising:
            way = "keep rising" if rising else "strictly decrease"
            remedy = "" if up else "; to go up use ddim(eta=0) or euler(s_churn=0)"
            raise ValueError(f"sigmas must {way}, got {s:.6g} -> {s_next:.6g} at step {i}{remedy}")
    return levels


def check_not_negative(**options: float) -> None:
    """Raise a ValueError that names the first option which is negative or not a number."""
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a ValueError that lists the choices when `value` is none of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def level(s: float) -> Tensor:
    """A noise level in the form denoisers and states hold it: () float64 on the CPU."""
    return torch.tensor(s, dtype=torch.float64)


def toward(x0: Tensor, x: Tensor, ratio: float) -> Tensor:
    """Where x arrives at level ratio * sigma if x0 stays what it is: the exact solution of the ODE then.

    This is a step of DDIM's probability flow (Song et al. 2021, eq. 13), whose coordinates are sigma space.
    """
    return x0 + ratio * (x - x0)


def split(s: float, s_next: float, eta: float) -> tuple[float, float]:
    """An ancestral step's two parts: go down to `down`, then add noise `up`; down^2 + up^2 = s_next^2.

    eta = 1 gives the chain's posterior variance, eta = 0 no noise (Song et al. 2021, eq. 16, in sigma space).
    """
    if eta == 0:
        return s_next, 0.0
    up = min(s_next, eta * s_next * math.sqrt(s**2 - s_next**2) / s)
    return math.sqrt(s_next**2 - up**2), up


def churn(
    x: Tensor,
    s: float,
    steps: int,
    noise: NoiseFn,
    s_churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
) -> tuple[Tensor, float]:
    """Raise the noise level before a step: x and its new level (Karras et al. 2022, Alg. 2, lines 4-6).

    With s_churn > 0 a draw is made at every step, inside [s_tmin, s_tmax] or not, so that the k-th step sees
    the k-th draw whatever the window.
    """
    if s_churn == 0:
        return x, s
    eps = noise(x)
    if not s_tmin <= s <= s_tmax:
        return x, s
    s_hat = s * (1 + min(s_churn / steps, math.sqrt(2) - 1))
    return x + s_noise * math.sqrt(s_hat**2 - s**2) * eps, s_hat


def phi(k: int, z: float) -> float:
    """phi_k(z) = sum_n z^n / (n + k)!, the functions of exponential integrators (Hochbruck & Ostermann 2010).

    phi_0 is exp, phi_{k+1}(z) = (phi_k(z) - 1/k!) / z; this loses digits near 0, where the series is short.
    """
    if abs(z) < 1:
        return sum(z**n / math.factorial(n + k) for n in range(20))
    value = math.exp(z)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / z
    return value
