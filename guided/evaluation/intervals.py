"""How far a figure may be off: intervals from halves of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

Statistic = Callable[..., dict[str, float]]
"""Index tensors, one a set of pictures, to named figures."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of all pictures, its standard deviation over other draws of as many, and an interval."""

    value: float
    sd: float
    low: float
    high: float


def estimates(
    statistic: Statistic,
    counts: Sequence[int],
    *,
    shares: dict[str, int] | None = None,
    draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
    tick: Callable[[Iterable], Iterable] = iter,
) -> dict[str, Estimate]:
    """The figures of all pictures, with intervals from random halves of every set, drawn without replacement.

    A figure of half the pictures differs from that of all of them like that of all differs from the truth, so the
    standard deviation over halves is the figure's own. The bootstrap would draw pictures twice, which neighbours,
    kernels and covariances take for structure: its distances come out too large. The interval is value +- z sd; a
    share's is Wilson's with the count that has that deviation, so none is empty at 0 or 1. Bias is not in it.

    Args:
        statistic: takes one index tensor for each of `counts`.
        counts: pictures in each set, at least 4.
        shares: the figures that are shares of pictures, and of how many.
        draws: halves drawn.
        level: probability that the interval holds the figure's expectation.
        tick: wraps the loop over the draws, for a progress bar.

    Source:
        Shao & Wu 1989 (the jackknife that deletes d = n / 2); Wilson 1927.
    """
    if draws < 2 or not 0 < level < 1:
        raise ValueError(f"intervals need 2 draws or more and a level between 0 and 1, got {draws} and {level}")
    if min(counts) < 4:
        raise ValueError(f"intervals need 4 pictures or more in each set, got {min(counts)}")
    whole = statistic(*(torch.arange(n) for n in counts))
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for _ in tick(range(draws)):
        halves = [torch.randperm(n, generator=generator)[: n // 2] for n in counts]
        for name, value in statistic(*halves).items():
            drawn[name].append(value)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    found = {}
    for name, value in whole.items():
        sd = float(torch.tensor(drawn[name], dtype=torch.float64).std())
        low, high = value - z * sd, value + z * sd
        if shares and name in shares:
            spread = value * (1 - value)
            count = min(shares[name], spread / sd**2) if sd and spread else shares[name]
            low, high = wilson(value, max(count, 1.0), z)
        found[name] = Estimate(value, sd, low, high)
    return found


def wilson(share: float, count: float, z: float) -> tuple[float, float]:
    """(low, high) of a share of `count` independent pictures.

    Source:
        Wilson 1927.
    """
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, centre - reach), min(1.0, centre + reach)


def pick(*sets: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """The rows of several tensors that belong to the same pictures."""
    return tuple(x[index] for x in sets)
