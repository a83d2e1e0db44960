"""Self-recurrence: every step of a sampler made several times, with noise back up in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from guided.samplers.steps import check_sigmas, level
from guided.types import Denoiser, NoiseFn, State


def recurrent(
    sampler: Callable[..., Iterator[State]], repeats: int = 4, window: tuple[float, float] | None = None
) -> Callable[..., Iterator[State]]:
    """A sampler that makes each step `repeats` times: down, up again by x + sqrt(s^2 - s'^2) noise, down again.

    Where guidance pulls off what the network knows, the repeats let it correct that::

        states = guided.recurrent(guided.ddim, 4)(D, x, sigmas, noise=noise)

    One state a step comes out, the last of its repeats. Each step is a call of the sampler with two levels, so those
    of many steps start afresh every time, at first order.

    Args:
        sampler: any of `guided.samplers`.
        repeats: at least 1; 1 is each step once.
        window: (low, high] in sigma of the steps' starts that are repeated; None is all.

    Raises:
        ValueError: repeats < 1; when run, what the sampler raises.

    Source:
        Bansal et al. 2023 (*Universal Guidance for Diffusion Models*), per-step self-recurrence; Lugmayr et al. 2022.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    low, high = window or (0.0, math.inf)

    @torch.no_grad()
    def run(D: Denoiser, x: Tensor, sigmas: Tensor, *, noise: NoiseFn = torch.randn_like, **own) -> Iterator[State]:
        levels = check_sigmas(sigmas)
        for i, (s, s_next) in enumerate(pairwise(levels)):
            for again in range(repeats if low < s <= high else 1):
                if again:
                    x = x + math.sqrt(s**2 - s_next**2) * noise(x)
                (state,) = sampler(D, x, torch.stack([level(s), level(s_next)]), noise=noise, **own)
                x = state.x
            state.step, state.steps = i, len(levels) - 1
            yield state
            x = state.x  # read back: the caller may have edited it

    return run
