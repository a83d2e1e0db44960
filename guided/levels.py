"""Which noise levels training sees: objects with sample(n) -> (levels, weights) and update(levels, losses)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guided.processes import Process


@dataclass(frozen=True)
class Uniform:
    """Timesteps uniform in 0..T-1 (Ho et al. 2020, Alg. 1)."""

    T: int

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """t (n,) int64 and importance weights (n,), all one, by the global generator."""
        return torch.randint(self.T, (n,)), torch.ones(n)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class LogNormal:
    """log sigma ~ N(mean, std^2), for continuous models (Karras et al. 2022, Table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """sigma (n,) float32 and importance weights (n,), all one, by the global generator."""
        return (self.mean + self.std * torch.randn(n)).exp(), torch.ones(n)

    def update(self, sigma: Tensor, losses: Tensor) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class UniformTime:
    """t of a continuous process, uniform in [t_min, 1]: what score models are trained on (Song et al. 2021b, eq. 7).

    Attributes:
        process: of `guided.processes`.
        t_min: where the likelihood's integral is cut off; 1e-5 is theirs.
        steps: only so many evenly spaced t; for VE, from t_min = 0, NCSN's geometric levels (Song & Ermon 2019,
            section 4). None is all of them.
    """

    process: Process
    t_min: float = 1e-5
    steps: int | None = None

    def __post_init__(self):
        if not 0 <= self.t_min < 1:
            raise ValueError(f"t_min must lie in [0, 1), got {self.t_min}")
        if self.t_min == 0 and not float(self.process.sigma(0.0)) > 0:
            raise ValueError("this process has no noise at t = 0: t_min must be positive")
        if self.steps is not None and self.steps < 2:
            raise ValueError(f"steps must be at least 2, or None for all t, got {self.steps}")

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """sigma (n,) float32 and importance weights (n,), all one, by the global generator."""
        u = torch.rand(n) if self.steps is None else torch.randint(self.steps, (n,)) / (self.steps - 1)
        return self.process.sigma(self.t_min + (1 - self.t_min) * u.double()).float(), torch.ones(n)

    def update(self, sigma: Tensor, losses: Tensor) -> None:
        """Nothing to learn."""


class LossSecondMoment(nn.Module):
    """Timesteps in proportion to the root mean square of their recent losses (Nichol & Dhariwal 2021, eq. 18).

    Uniform until every timestep has `history` losses. Its record is a buffer, so it is saved and restored with whatever
    holds it.

    Args:
        T: length of the chain.
        history: how many losses of each timestep are kept.
        uniform_prob: this much of the probability is spread evenly.
    """

    def __init__(self, T: int, *, history: int = 10, uniform_prob: float = 0.001):
        super().__init__()
        self.T, self.uniform_prob = T, uniform_prob
        self.register_buffer("losses", torch.zeros(T, history, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(T, dtype=torch.long))

    @property
    def probabilities(self) -> Tensor:
        """(T,) float64, adding up to 1."""
        T, history = self.losses.shape
        if bool((self.counts < history).any()):
            return torch.full((T,), 1 / T, dtype=torch.float64)
        p = (self.losses**2).mean(1).sqrt()
        return p / p.sum() * (1 - self.uniform_prob) + self.uniform_prob / T

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """t (n,) int64 and importance weights 1 / (T p(t)), (n,) float32."""
        p = self.probabilities.cpu()
        t = torch.multinomial(p, n, replacement=True)
        return t, (1 / (len(p) * p[t])).float()

    @torch.no_grad()
    def update(self, t: Tensor, losses: Tensor) -> None:
        """Records unweighted losses (n,) of timesteps t (n,), in order; the oldest of a timestep gives way.

        A loss that is not finite is left out. Where several processes train together, each records the losses of all.
        """
        t, losses = _of_all_processes(t.to(losses.device)), _of_all_processes(losses)
        history = self.losses.shape[1]
        for i, loss in zip(t.tolist(), losses.tolist(), strict=True):
            if not math.isfinite(loss):  # training skips such a step; one in the record would end it
                continue
            if self.counts[i] == history:
                self.losses[i] = torch.cat([self.losses[i, 1:], self.losses.new_tensor([loss])])
            else:
                self.losses[i, self.counts[i]] = loss
                self.counts[i] += 1


def _of_all_processes(values: Tensor) -> Tensor:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)
