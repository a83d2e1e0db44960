"""Annealed Langevin dynamics, the sampler of NCSN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from guided.samplers.steps import check_sigmas, level, toward
from guided.types import Denoiser, NoiseFn, State


@torch.no_grad()
def annealed_langevin(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    moves: int = 5,
    step_size: float | None = 0.2,
) -> Iterator[State]:
    """Annealed Langevin dynamics: moves x + a score + sqrt(2 a) noise at each level, a = step_size sigma^2.

    A step makes its moves at the level it goes to; the step to 0 takes the denoised x, and a list that does not
    end in 0 leaves that out. In the papers' terms step_size = epsilon / sigma_L^2. Theirs for CIFAR-10: 10
    levels, moves=100, step_size=0.2 as the code of 2019 has it (its Alg. 1 writes a / 2 for a); 232 levels
    from 50 to 0.01 in pixels of [0, 1], moves=5, step_size=0.062 (2020). It needs levels that lie close, or
    many moves: too few leave the data too wide.

    Args:
        D, x, sigmas, noise: see `guided.samplers`. One draw a move.
        moves: network calls a step, at least 1.
        step_size: in (0, 1]; the level it settles at is too high by the factor (1 - step_size / 2)^(-1/2). None
            is `langevin_step_size` of the list's widest step: a run cut into lists of two levels is then another.

    Raises:
        ValueError: sigmas are not strictly decreasing, or an option is out of range.

    Source:
        Song & Ermon 2019, Alg. 1; Song & Ermon 2020, Alg. 1, with its final denoising.
    """
    if moves < 1:
        raise ValueError(f"moves must be at least 1, got {moves}")
    if step_size is not None and not 0 < step_size <= 1:
        raise ValueError(f"step_size must lie in (0, 1], or be None for the rule of 2020, got {step_size}")
    levels = check_sigmas(sigmas)
    if step_size is None:
        step_size = langevin_step_size(max([a / b for a, b in pairwise(levels) if b > 0], default=2.0), moves)
    for i, (s, s_next) in enumerate(pairwise(levels)):
        if s_next == 0:
            x0 = D(x, level(s)).x0
            x = toward(x0, x, 0.0)
        else:
            x0 = None
            for _ in range(moves):
                estimate = D(x, level(s_next)).x0
                x0 = estimate if x0 is None else x0
                # Song & Ermon 2019, Alg. 1, line 6, with score = (estimate - x) / sigma^2
                x = x + step_size * (estimate - x) + math.sqrt(2 * step_size) * s_next * noise(x)
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x  # read back: the caller may have edited it


def langevin_step_size(ratio: float, moves: int) -> float:
    """The step size that leaves the noise nearest to its level after so many moves, in (0, 1].

    Of data in one point, a move at level s takes a deviation r s to one with r'^2 = (1 - a)^2 r^2 + 2 a. From r
    = ratio this comes, after all moves, to (1 - a)^(2 moves) (ratio^2 - q) + q with q = 1 / (1 - a / 2); the a
    with the least of that is taken, which is never below 1.

    Args:
        ratio: a level over the next, above 1.
        moves: at each level.

    Source:
        Song & Ermon 2020, Technique 4.
    """
    if not ratio > 1:
        raise ValueError(f"the ratio of a level to the next must be above 1, got {ratio}")
    a = torch.logspace(-6, 0, 6001, dtype=torch.float64)
    q = 1 / (1 - a / 2)
    return float(a[((1 - a) ** (2 * moves) * (ratio**2 - q) + q).argmin()])
