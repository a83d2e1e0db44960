"""Predictor-corrector sampling: Langevin moves at one noise level, between the steps of any sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from guided.samplers.steps import check_choice, check_sigmas, level
from guided.types import Denoiser, NoiseFn, State

Sampler = Callable[..., Iterator[State]]


def corrected(
    states: Iterable[State],
    D: Denoiser,
    *,
    noise: NoiseFn = torch.randn_like,
    snr: float = 0.16,
    step_size: float | None = None,
    moves: int = 1,
) -> Iterator[State]:
    """Predictor-corrector: after every step of any sampler, Langevin moves at the level it has come to.

    ::

        states = guided.reverse_diffusion(D, x, sigmas, noise=noise)
        images = guided.last(guided.corrected(states, D, noise=noise))

    The step to 0 is left as it is. Multistep samplers take the moves as edits.

    Args:
        states: of a sampler that runs.
        D: the sampler's denoiser.
        noise: the sampler's.
        snr, step_size: as `langevin` takes them.
        moves: after each step, at least 0.

    Raises:
        ValueError: an option is out of range.

    Source:
        Song et al. 2021b, Alg. 2 and 3, with the corrector of Alg. 4 and 5.
    """
    if moves < 0:
        raise ValueError(f"moves must be at least 0, got {moves}")
    check_moves(snr, step_size)
    return _corrected(states, D, moves, {"noise": noise, "snr": snr, "step_size": step_size})


def _corrected(states: Iterable[State], D: Denoiser, moves: int, options: dict[str, Any]) -> Iterator[State]:
    for state in states:
        if state.sigma > 0:
            state.x = langevin(D, state.x, state.sigma, steps=moves, **options)
        yield state


@torch.no_grad()
def langevin(
    D: Denoiser,
    x: Tensor,
    sigma: Tensor | float,
    *,
    noise: NoiseFn,
    snr: float = 0.16,
    step_size: float | None = None,
    steps: int = 1,
) -> Tensor:
    """Corrector moves at a fixed noise level, for a loop of the caller's.

    `state.x = langevin(D, state.x, state.sigma, noise=noise)` moves x by e score + sqrt(2 e) noise, where
    e = 2 (snr |noise| / |score|)^2 = 2 snr^2 sigma^2. The norms are what they are where noise outweighs the data:
    sqrt(d) and sqrt(d) / sigma in d dimensions. The paper's code takes those of the batch at hand, and then a
    picture depends on its batch; norms of its own draw would favour some places, and what comes out is too wide.

    Args:
        D: a denoiser.
        x: (N, ...) at noise level sigma.
        sigma: (), positive.
        noise: called once a move.
        snr: signal-to-noise ratio of a move, positive. The papers: 0.16 for CIFAR-10, 0.075 for LSUN at 256.
        step_size: e = step_size sigma^2 instead, as NCSN has it: snr = 0.16 is step_size = 0.0512.
        steps: how many moves.

    Returns:
        (N, ...) still at noise level sigma.

    Raises:
        ValueError: sigma, snr or step_size is not positive.

    Source:
        Song et al. 2021b, Alg. 4; with step_size Song & Ermon 2019, Alg. 1.
    """
    check_moves(snr, step_size)
    s, share = float(sigma), 2 * snr**2 if step_size is None else step_size
    if not s > 0:
        raise ValueError(f"a corrector needs a positive sigma, got {s}; leave the last step out")
    for _ in range(steps):
        # e score = share (x0 - x), as the score is (x0 - x) / sigma^2 (Karras et al. 2022, eq. 3)
        x = x + share * (D(x, level(s)).x0 - x) + math.sqrt(2 * share) * s * noise(x)
    return x


@torch.no_grad()
def predictor_corrector(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    predictor: str | Sampler = "reverse_diffusion",
    snr: float = 0.16,
    step_size: float | None = None,
    moves: int = 1,
) -> Iterator[State]:
    """`corrected` states of a predictor, as one sampler.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        predictor: any sampler by its name, or one with its options bound: `partial(guided.ddim, eta=1.0)`.
        snr, step_size, moves: of the corrector, see `corrected`.

    Raises:
        ValueError: the predictor is unknown, an option is out of range, or sigmas are not strictly decreasing.

    Source:
        Song et al. 2021b, Alg. 2 and 3.
    """
    from guided.samplers import SAMPLERS

    if isinstance(predictor, str):
        check_choice("predictor", predictor, [name for name in SAMPLERS if name != "predictor_corrector"])
        predictor = SAMPLERS[predictor]
    check_sigmas(sigmas)
    states = predictor(D, x, sigmas, noise=noise)
    yield from corrected(states, D, noise=noise, snr=snr, step_size=step_size, moves=moves)


def check_moves(snr: float, step_size: float | None) -> None:
    """Raise a ValueError unless both are positive, a step_size only where there is one."""
    for name, value in (("snr", snr), ("step_size", step_size)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
