"""The continuous noise processes of score models: VP, sub-VP and VE, as functions of a time t in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.schedule import float64


@dataclass(frozen=True)
class VP:
    """dy = -beta(t)/2 y dt + sqrt(beta(t)) dw, beta(t) = beta_min + t (beta_max - beta_min).

    The limit of DDPM's chain: y = scale(t) (x0 + sigma(t) eps) with scale^2 (1 + sigma^2) = 1.

    Source:
        Song et al. 2021b, eq. 11 and appendix C; the constants are theirs for all data.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"a process needs 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}")

    def beta(self, t: Tensor | float) -> Tensor:
        """The rate at which the process forgets; float64 on the CPU, as all that a process returns."""
        return self.beta_min + (self.beta_max - self.beta_min) * float64(t)

    def integral(self, t: Tensor | float) -> Tensor:
        """The integral of beta from 0 to t."""
        t = float64(t)
        return self.beta_min * t + (self.beta_max - self.beta_min) / 2 * t**2

    def time_of(self, integral: Tensor) -> Tensor:
        """The inverse of `integral`."""
        gap = self.beta_max - self.beta_min
        return ((self.beta_min**2 + 2 * gap * integral).sqrt() - self.beta_min) / gap

    def sigma(self, t: Tensor | float) -> Tensor:
        """The noise level at t."""
        return torch.expm1(self.integral(t)).sqrt()

    def t(self, sigma: Tensor | float) -> Tensor:
        """The time of a noise level; levels above sigma(1) lie after 1."""
        return self.time_of(torch.log1p(float64(sigma) ** 2))

    def scale(self, sigma: Tensor | float) -> Tensor:
        """What x = x0 + sigma eps is multiplied by to be the process's own state y."""
        return (1 + float64(sigma) ** 2).rsqrt()

    def drift(self, t: Tensor | float) -> Tensor:
        """f(t) of dy = f y dt + g dw."""
        return -self.beta(t) / 2

    def diffusion(self, t: Tensor | float) -> Tensor:
        """g(t)^2."""
        return self.beta(t)

    def step(self, sigma_next: float, sigma: float) -> tuple[float, float]:
        """(decay, variance) of the noising step y' = decay y + sqrt(variance) eps from sigma_next up to sigma.

        DDPM's (Song et al. 2021b, eq. 10).
        """
        r = math.sqrt((1 + sigma_next**2) / (1 + sigma**2))
        return r, 1 - r**2


@dataclass(frozen=True)
class SubVP(VP):
    """dy = -beta(t)/2 y dt + sqrt(beta(t) (1 - exp(-2 B(t)))) dw, B the integral of beta.

    The same mean as `VP` and never more noise: scale = exp(-B/2), sigma = (1 - scale^2) / scale.

    Source:
        Song et al. 2021b, eq. 12 and appendix C.
    """

    def sigma(self, t: Tensor | float) -> Tensor:
        """The noise level at t."""
        return 2 * torch.sinh(self.integral(t) / 2)

    def t(self, sigma: Tensor | float) -> Tensor:
        """The time of a noise level."""
        return self.time_of(2 * torch.asinh(float64(sigma) / 2))

    def scale(self, sigma: Tensor | float) -> Tensor:
        """The root m of m^2 + sigma m = 1, in the form without cancellation."""
        sigma = float64(sigma)
        return 2 / (sigma + (sigma**2 + 4).sqrt())

    def diffusion(self, t: Tensor | float) -> Tensor:
        """g(t)^2."""
        return -self.beta(t) * torch.expm1(-2 * self.integral(t))

    def step(self, sigma_next: float, sigma: float) -> tuple[float, float]:
        """Euler's, since no chain stands behind this process."""
        return euler_step(self, sigma_next, sigma)


@dataclass(frozen=True)
class VE:
    """dy = sqrt(d sigma^2 / dt) dw, sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    The limit of NCSN's geometric levels, in pixels of [-1, 1]: 0.02 to 100 are the 0.01 to 50 in [0, 1] of the paper.

    Source:
        Song et al. 2021b, eq. 9 and appendix C.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"a process needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Tensor | float) -> Tensor:
        """The noise level at t."""
        return self.sigma_min * (self._log_ratio * float64(t)).exp()

    def t(self, sigma: Tensor | float) -> Tensor:
        """The time of a noise level."""
        return (float64(sigma) / self.sigma_min).log() / self._log_ratio

    def scale(self, sigma: Tensor | float) -> Tensor:
        """One: the process's state is x itself."""
        return torch.ones_like(float64(sigma))

    def drift(self, t: Tensor | float) -> Tensor:
        """None."""
        return torch.zeros_like(float64(t))

    def diffusion(self, t: Tensor | float) -> Tensor:
        """g(t)^2 = d sigma^2 / dt."""
        return 2 * self._log_ratio * self.sigma(t) ** 2

    def step(self, sigma_next: float, sigma: float) -> tuple[float, float]:
        """(decay, variance) of the noising step y' = decay y + sqrt(variance) eps, NCSN's.

        Song et al. 2021b, eq. 8.
        """
        return 1.0, sigma**2 - sigma_next**2


Process = VP | SubVP | VE
PROCESSES: dict[str, Process] = {"vp": VP(), "sub-vp": SubVP(), "ve": VE()}
"""By the names of the parametrizations of networks trained on them."""


def process_of(process: str | Process) -> Process:
    """A process by its name, with the published constants, or as it is.

    Raises:
        ValueError: the name is unknown.
    """
    if not isinstance(process, str):
        return process
    if process not in PROCESSES:
        raise ValueError(f"process must be one of {', '.join(PROCESSES)}, got {process!r}")
    return PROCESSES[process]


def euler_step(process: Process, sigma_next: float, sigma: float) -> tuple[float, float]:
    """(decay, variance) of a noising step from sigma_next up to sigma by Euler and Maruyama, coefficients at sigma."""
    t = process.t(sigma)
    dt = float(t - process.t(sigma_next))
    return 1 + float(process.drift(t)) * dt, float(process.diffusion(t)) * dt
