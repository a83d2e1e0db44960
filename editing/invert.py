"""Inversion: the noise that a deterministic sampler makes a picture of, and what else can be made of it.

Source:
    Song et al. 2021 (DDIM), section 5.4 and eq. 13; the fixed point of each step is that of Pan et al. 2023 (AIDI).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Sampler, find_sampler, prepare, start_level, ticked
from guided import Denoiser, Model, State, Term


@torch.no_grad()
def invert_stream(D: Denoiser, image: Tensor, sigmas: Tensor, *, evaluations: int = 5) -> Iterator[State]:
    """The states of `guided.ddim` backwards: from the picture up to sigmas[0].

    A step of ddim makes x' = x0 + (s'/s) (x - x0) of x, x0 = D(x, s). Its inverse is the x with
    x = x0 + (s/s') (x' - x0), which the right side is iterated to, from where a straight line through the step before
    leads. One evaluation is DDIM's own inversion, but for D being asked at the level it will be asked at; the error
    falls with each by about |s/s' - 1| times the size of D's Jacobian, so it converges where the levels lie close.
    From the picture at s' = 0, x = x' + x - x0 is iterated instead.

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
        s, s_next = float(below), float(level)
        goal, x = x, x + (s_next - s) * slope
        for _ in range(evaluations):
            x0, before = D(x, level).x0, x
            # Song et al. 2021, eq. 12 backwards
            x = x0 + (s_next / s) * (goal - x0) if s > 0 else x + (goal - x0)
            if bool((x - before).abs().max() <= 1e-6 * max(1.0, s_next)):
                break
        slope = (x - x0) / s_next
        state = State(x, x0, level, step, len(levels) - 1)
        yield state
        x = state.x


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
    progress: bool = False,
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
    progress: bool = False,
) -> Tensor:
    """The image turned to noise and made again: itself, or what it would be as another class.

    Args:
        to: the class on the way back, as `labels`, which is that on the way up. None is the same one; the null class is
            [None]. One image is repeated for several.
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
        guidance_scale=guidance_scale, steps=steps, progress=progress,
    )  # fmt: skip
    to = labels if to is None else to
    call = prepare(
        model, torch.zeros_like(x), labels=to, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
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
