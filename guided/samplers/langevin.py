"""Langevin dynamics: the annealed sampler of score models, and the corrector of predictor-corrector loops."""

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
    step_size: float = 0.2,
) -> Iterator[State]:
    """Annealed Langevin dynamics: moves x + a score + sqrt(2 a) noise at each level, a = step_size sigma^2.

    A step makes its moves at the level it goes to; the step to 0 takes the denoised x. In the papers' terms
    step_size = epsilon / sigma_L^2. Theirs for CIFAR-10: 10 levels, moves=100, step_size=0.2 (2019); 232
    levels from 50 to 0.01, moves=5, step_size=0.062 (2020). It needs levels that lie close, or many moves:
    too few leave the data too wide.

    Args:
        D, x, sigmas, noise: see `guided.samplers`. One draw a move.
        moves: network calls a step, at least 1.
        step_size: in (0, 1]; the level it settles at is too high by the factor (1 - step_size / 2)^(-1/2).

    Raises:
        ValueError: sigmas are not strictly decreasing, or an option is out of range.

    Source:
        Song & Ermon 2019, Alg. 1; Song & Ermon 2020, Alg. 1, with its final denoising.
    """
    if moves < 1:
        raise ValueError(f"moves must be at least 1, got {moves}")
    if not 0 < step_size <= 1:
        raise ValueError(f"step_size must lie in (0, 1], got {step_size}")
    levels = check_sigmas(sigmas)
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


@torch.no_grad()
def langevin(
    D: Denoiser, x: Tensor, sigma: Tensor | float, *, noise: NoiseFn, snr: float = 0.16, steps: int = 1
) -> Tensor:
    """Corrector moves at a fixed noise level, for a loop of the caller's.

    `state.x = langevin(D, state.x, state.sigma, noise=noise)` moves x by e score + sqrt(2 e) noise, where
    e = 2 (snr |noise| / |score|)^2. The norms are each picture's own, where the paper's code takes the
    batch's mean: a picture then does not depend on its batch.

    Args:
        D: a denoiser.
        x: (N, ...) at noise level sigma.
        sigma: (), positive.
        noise: called once a move.
        snr: signal-to-noise ratio of a move, positive. The papers: 0.16 for CIFAR-10, 0.075 for LSUN at 256.
        steps: how many moves.

    Returns:
        (N, ...) still at noise level sigma.

    Raises:
        ValueError: sigma or snr is not positive.

    Source:
        Song et al. 2021b, Alg. 4.
    """
    if not snr > 0:
        raise ValueError(f"snr must be positive, got {snr}")
    s = float(sigma)
    if not s > 0:
        raise ValueError(f"a corrector needs a positive sigma, got {s}; leave the last step out")
    for _ in range(steps):
        score = (D(x, level(s)).x0 - x) / s**2  # Karras et al. 2022, eq. 3
        z = noise(x)
        size = 2 * (snr * _norm(z) / _norm(score).clamp(min=1e-12)) ** 2
        x = x + size * score + (2 * size).sqrt() * z
    return x


def _norm(x: Tensor) -> Tensor:
    """(N, 1, ...) Euclidean norm of each sample."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
