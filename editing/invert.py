"""Inversion: the noise that a deterministic sampler makes a picture of, and what else can be made of it.

Source:
    Song et al. 2021 (DDIM), section 5.4 and eq. 13; each step as a fixed point: Pan et al. 2023 (AIDI), with the steps
    of Barzilai & Borwein 1988.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Progress, Sampler, blank, find_sampler, prepare, start_level, ticked
from guided import Denoiser, Model, State, Term


@torch.no_grad()
def invert_stream(D: Denoiser, image: Tensor, sigmas: Tensor, *, evaluations: int = 5) -> Iterator[State]:
    """The states of `guided.ddim` backwards: from the picture up to sigmas[0].

    A step of ddim makes x' = x0 + (s'/s) (x - x0) of x, x0 = D(x, s). Its inverse is where the residual
    x0 + (s/s') (x' - x0) - x is 0; at s' = 0, x' - x0. It is sought by x <- x + w residual, from where the straight
    line of the step before leads. The plain fixed point, w = 1, runs away where the levels lie far apart; here the
    first w is the best one if no pixel of the data deviates by more than 1, and the others are Barzilai and Borwein's,
    each picture's own. On a mixture of Gaussians five evaluations bring every picture back with 30 dB at 8 steps, 110
    at 50 (tests/editing/test_invert.py).

    Args:
        D: a denoiser.
        image: (N, C, H, W) at level sigmas[-1].
        sigmas: the decreasing list that the way down will take; to 0, where the image is clean.
        evaluations: of D, at most so many a step, at least 1; fewer where nothing moves any more.

    Yields:
        One state a step; `x0` is the estimate that the step down will make.

    Raises:
        ValueError: sigmas do not strictly decrease to 0 or more, or evaluations < 1.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations must be at least 1, got {evaluations}")
    levels = torch.as_tensor(sigmas, dtype=torch.float64).flip(0)
    if len(levels) < 2 or bool((levels.diff() <= 0).any()) or float(levels[0]) < 0:
        raise ValueError(f"sigmas must strictly decrease to 0 or more, got {levels.flip(0).tolist()}")
    x, slope = image, torch.zeros_like(image)
    for step, (below, level) in enumerate(pairwise(levels)):
        goal, gap = x, float(level - below)
        x, x0 = _undo_step(D, goal, x + gap * slope, float(below), level, evaluations)
        slope = (x - goal) / gap
        state = State(x, x0, level, step, len(levels) - 1)
        yield state
        x = state.x


def _undo_step(
    D: Denoiser, goal: Tensor, x: Tensor, s_next: float, level: Tensor, evaluations: int
) -> tuple[Tensor, Tensor]:
    """The x at `level` that a step of ddim takes to `goal` at s_next, and the last estimate of x0; begins at x."""
    s, before = float(level), None
    ratio = s / s_next if s_next > 0 else 1.0
    w: float | Tensor = 2 / (2 + (ratio - 1) / (1 + s**2))  # the Jacobian of D lies in [0, 1 / (1 + s^2)]
    for _ in range(evaluations):
        x0 = D(x, level).x0
        # Song et al. 2021, eq. 12 backwards
        residual = x0 + ratio * (goal - x0) - x if s_next > 0 else goal - x0
        if before is not None:  # Barzilai & Borwein 1988
            dx, dr = x - before[0], before[1] - residual
            w = (_dot(dx, dr) / _dot(dr, dr).clamp(min=1e-30)).clamp(0.05, 1.0 if s_next > 0 else 4.0)
        before = x, residual
        x = x + w * residual
        if bool((w * residual).abs().max() <= 1e-6 * max(1.0, s)):
            break
    return x, x0


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def invert(
    model: Model,
    image: Any,
    *,
    strength: float = 1.0,
    sigma: float | None = None,
    evaluations: int = 5,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """The noisy image that ddim makes the picture of, under the same condition and steps.

    Where `strength` is 1, `guided.ddim(D, invert(model, image), model.sigmas(steps))` ends at the image. It is not
    white noise to every test: of flat regions, which no noise was ever taken out of, too little comes back.

    Args:
        image: as `editing.inputs.read_image` takes it.
        strength, sigma: how far up, as in `editing.sdedit`; 1 is the model's sigma_max.
        evaluations: of the network, at most so many a step; see `invert_stream`.
        labels, prompt, guidance_scale, terms, steps, progress: see `editing.call.prepare`; what the image is of.
        sampler: "ddim" (the default) or its other name "euler".
        seeds: of noise at the model's lowest level, put on the image first; None is none.

    Returns:
        (N, C, H, W) at the noise level reached: `editing.call.start_level(model, strength, sigma)`.

    Raises:
        ValueError: another sampler, strength 0, or what `editing.call.prepare` or `invert_stream` raise.
    """
    check_backward(sampler)
    top = start_level(model, strength, sigma)
    if top <= model.sigma_min:
        raise ValueError(f"there is nothing to invert up to sigma {top:.4g}: the model begins at {model.sigma_min:.4g}")
    call = prepare(
        model, image, labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
        sampler="ddim", seeds=seeds, progress=progress,
    )  # fmt: skip
    sigmas = levels_up_to(call.sigmas, top)
    x = call.image if seeds is None else call.image + model.sigma_min * call.noise(call.image)
    return guided.last(ticked(invert_stream(call.D, x, sigmas, evaluations=evaluations), progress))


def reconstruct(
    model: Model,
    image: Any,
    *,
    to: Any = None,
    strength: float = 1.0,
    sigma: float | None = None,
    evaluations: int = 5,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """The image turned to noise and made again: itself, or what it would be as another class.

    Args:
        to: the class on the way back, as `labels`, which is that on the way up. None is the same one; the null class is
            [None]. One image is repeated for several.
        guidance_scale: on the way back; on the way up as well where `to` is None, as else the picture would not come
            back. Upwards without it the noise is that of the source, and guidance to the new class has its full effect.
        terms: on the way back alone.
        sampler: on the way back; any, ddim by default: the image comes back only by ddim or euler.
        seeds: of the noise that a stochastic sampler adds.
        others: as in `invert`. A lower strength keeps more of the image.

    Returns:
        (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: as `invert`.

    Source:
        Song et al. 2021, section 5.4; with `to`, Su et al. 2023 (DDIB) between two classes of one model.
    """
    back = find_sampler("ddim" if sampler is None else sampler)
    x = invert(
        model, image, strength=strength, sigma=sigma, evaluations=evaluations, labels=labels, prompt=prompt,
        guidance_scale=guidance_scale if to is None else 1.0, steps=steps, progress=progress,
    )  # fmt: skip
    to = labels if to is None else to
    call = prepare(
        model, blank(model, x), labels=to, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
        sampler=back, seeds=seeds, progress=progress,
    )  # fmt: skip
    sigmas = levels_up_to(call.sigmas, start_level(model, strength, sigma))
    return call.finish(call.run(call.D, x.expand_as(call.image), sigmas, noise=call.noise))


def check_backward(sampler: str | Sampler | None) -> None:
    """ValueError unless the sampler is one whose steps `invert_stream` runs backwards."""
    if sampler not in (None, "ddim", "euler", guided.ddim, guided.euler):
        raise ValueError(f"inversion runs ddim (or euler, the same) backwards, not {sampler!r}: leave sampler out")


def levels_up_to(sigmas: Tensor, top: float) -> Tensor:
    """The levels of a way up to `top` and down again; `top` itself is the first."""
    return guided.start_at(sigmas, min(top, float(sigmas[0])))
