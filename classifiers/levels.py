"""Which noise levels a classifier's training sees, as quantile functions: u in [0, 1) to sigma."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.schedule import Schedule


@dataclass(frozen=True)
class UniformT:
    """Timesteps of a chain, each as likely (the official classifiers)."""

    schedule: Schedule

    def at(self, u: Tensor) -> Tensor:
        """sigma (N,) float64 of u (N,) in [0, 1)."""
        return self.schedule.sigma[(u * len(self.schedule)).long().clamp(max=len(self.schedule) - 1)]


@dataclass(frozen=True)
class LogNormal:
    """ln sigma ~ N(mean, std^2)."""

    mean: float
    std: float

    def at(self, u: Tensor) -> Tensor:
        """sigma (N,) float64 of u (N,) in [0, 1)."""
        return (self.mean + self.std * torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6))).exp()


@dataclass(frozen=True)
class LogUniform:
    """ln sigma even between two levels."""

    low: float
    high: float

    def at(self, u: Tensor) -> Tensor:
        """sigma (N,) float64 of u (N,) in [0, 1)."""
        return (math.log(self.low) + u.double() * math.log(self.high / self.low)).exp()


@dataclass(frozen=True)
class Clean:
    """One tiny level: a classifier of clean pictures."""

    sigma: float = 0.002

    def at(self, u: Tensor) -> Tensor:
        """sigma (N,) float64 of u (N,) in [0, 1)."""
        return torch.full(u.shape, self.sigma, dtype=torch.float64)


Levels = UniformT | LogNormal | LogUniform | Clean


def stratified(n: int) -> Tensor:
    """(n,) float64 in [0, 1), shuffled: one in each n-th part, so that every batch sees all noise levels.

    Each number alone is uniform, so the loss is unbiased; its variance falls. By torch's global generator.
    """
    return (torch.randperm(n) + torch.rand(n, dtype=torch.float64)) / n
