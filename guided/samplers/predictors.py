"""Predictors of score models: the reverse SDE in the coordinates of a process, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from guided.processes import Process, euler_step, process_of
from guided.samplers.steps import check_sigmas, level, toward
from guided.types import Denoiser, NoiseFn, State


def reverse_diffusion(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    process: str | Process = "ve",
) -> Iterator[State]:
    """The reverse SDE discretised as the process's own noising steps are.

    A noising step y' = decay y + sqrt(V) eps is gone back by y = (2 - decay) y' + V score + sqrt(V) noise: the
    chain of NCSN for "ve", that of DDPM for "vp", Euler's for "sub-vp". "ve" is best known, and the one that is
    stable with few steps. The step to 0 takes the denoised x.

    Args:
        D, x, sigmas, noise: see `guided.samplers`. No noise is drawn for the step to 0.
        process: "ve", "vp" or "sub-vp", in whose coordinates the steps are made, or an object of
            `guided.processes`. Any model goes with any: it needs not be the one it was trained on.

    Raises:
        ValueError: sigmas are not strictly decreasing, or the process is unknown.

    Source:
        Song et al. 2021b, appendix E (reverse diffusion sampling).
    """
    made = process_of(process)
    yield from _reverse(D, x, check_sigmas(sigmas), noise, made, made.step)


def euler_maruyama(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    process: str | Process = "vp",
) -> Iterator[State]:
    """The reverse SDE dy = (f y - g^2 score) dt + g dw by Euler and Maruyama.

    Drift and diffusion are taken at the start of a step, which needs many steps: hundreds. The step to 0 takes the
    denoised x.

    Args:
        D, x, sigmas, noise: see `guided.samplers`. No noise is drawn for the step to 0.
        process: "vp", "sub-vp" or "ve", or an object of `guided.processes`; as for `reverse_diffusion`.

    Raises:
        ValueError: sigmas are not strictly decreasing, or the process is unknown.

    Source:
        Song et al. 2021b, eq. 6.
    """
    made = process_of(process)
    yield from _reverse(D, x, check_sigmas(sigmas), noise, made, lambda low, high: euler_step(made, low, high))


@torch.no_grad()
def _reverse(
    D: Denoiser,
    x: Tensor,
    levels: list[float],
    noise: NoiseFn,
    process: Process,
    step: Callable[[float, float], tuple[float, float]],
) -> Iterator[State]:
    for i, (s, s_next) in enumerate(pairwise(levels)):
        x0 = D(x, level(s)).x0
        if s_next > 0:
            decay, variance = step(s_next, s)
            here, there = float(process.scale(s)), float(process.scale(s_next))
            # Song et al. 2021b, eq. 6, with y = scale x and score_y = (x0 - x) / (s^2 scale)
            y = (2 - decay) * here * x + variance / (s**2 * here) * (x0 - x)
            x = (y + math.sqrt(variance) * noise(x)) / there
        else:
            x = toward(x0, x, 0.0)
        state = State(x, x0, level(s_next), i, len(levels) - 1)
        yield state
        x = state.x  # read back: the caller may have edited it
