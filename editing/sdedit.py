"""SDEdit: noise an image up to a level, then denoise it. Strokes become pictures, pictures variations.

Source:
    Meng et al. 2022 (SDEdit), Alg. 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import guided
from editing.blend import join
from editing.call import Progress, Sampler, prepare, start_level
from editing.inputs import read_image, read_mask
from guided import Denoiser, Model, NoiseFn, State, Term


def sdedit_stream(
    D: Denoiser,
    image: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn,
    mask: Tensor | None = None,
    repeats: int = 1,
    sampler: Sampler = guided.ddim,
) -> Iterator[State]:
    """The states of a run from image + sigmas[0] * noise down.

    Args:
        D: the denoiser.
        image: (N, C, H, W), what to edit.
        sigmas: decreasing, from the level to start at; ends in 0 for a finished picture.
        noise: one draw a repeat, and the sampler's own.
        mask: (N, 1, H, W), 1 = edit; the rest is held to the image, with the noise of the start, after each step.
        repeats: how often the whole is done, each time on what came out (K in the paper).
        sampler: any.

    Source:
        Meng et al. 2022, Alg. 1 (strokes to picture), Alg. 2 (with a mask).
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    mask = None if mask is None else read_mask(mask, image)
    result = image
    for k in range(repeats):
        z = noise(image)
        x = result + float(sigmas[0]) * z  # Meng et al. 2022, Alg. 1
        for state in sampler(D, x, sigmas, noise=noise):
            if mask is not None:
                state.x = join(state, image, mask, z)  # Meng et al. 2022, Alg. 2
            state.step, state.steps = state.step + k * state.steps, state.steps * repeats
            yield state
            result = state.x


def sdedit(
    model: Model,
    image: Any,
    *,
    strength: float = 0.5,
    sigma: float | None = None,
    mask: Any = None,
    repeats: int = 1,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """A picture that is as near to `image` as `strength` leaves it: strokes become a picture, a picture a variation.

    Args:
        model: any.
        image: as `editing.inputs.read_image` takes it: a tensor (N, C, H, W) in [-1, 1], a path, a PIL image.
        strength: 0 gives the image back, 1 a picture that has nothing of it; the paper's range is 0.3 to 0.6. The run
            starts at the level that the linear 1000-step chain has at t = 999 * strength, capped at the model's
            largest, whatever the model. `differential` takes one for each pixel, `sweep` several at once.
        sigma: the level itself; overrides strength.
        mask: 1 = edit; the rest comes back to the bit. None edits all.
        repeats: how often, each time from what came out; holds to the image less and less.
        labels, prompt, guidance_scale, terms, sampler, seeds, progress: see `editing.call.prepare`; ddim by default.
        steps: of the whole way from the model's sigma_max; an edit walks its lower part.

    Returns:
        (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: strength is outside [0, 1], or an argument is not what `editing.call.prepare` takes.
    """
    start = start_level(model, strength, sigma)
    call = prepare(
        model, image, mask, labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
        sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
    if start == 0 or (call.mask is not None and not bool(call.mask.any())):
        return call.picture.clone()
    sigmas = guided.start_at(call.sigmas, min(start, float(call.sigmas[0])))
    if strength == 1 and sigma is None and call.mask is None:
        call = replace(call, image=torch.zeros_like(call.image))  # nothing of it, not even 1 / sigma_max
    states = sdedit_stream(
        call.D, call.image, sigmas, noise=call.noise, mask=call.mask, repeats=repeats, sampler=call.run
    )  # fmt: skip
    return call.finish(states)


def variations(
    model: Model,
    image: Any,
    *,
    n: int = 4,
    strength: float = 0.6,
    sigma: float | None = None,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """Pictures like this one: `sdedit` of each image with n seeds.

    Args:
        n: how many of each image.
        labels: one for all, or one an image, or one a picture.
        seeds: one a picture that comes out, or the first of them.
        model, image, strength, sigma, prompt, guidance_scale, terms, steps, sampler, progress: as in `sdedit`.

    Returns:
        (N * n, C, H, W): n of the first image, n of the second, and so on.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    image = read_image(model, image)
    y = None if labels is None else model.labels(labels)
    if y is not None and len(y) == len(image):
        y = y.repeat_interleave(n, 0)
    return sdedit(
        model, image.repeat_interleave(n, 0), strength=strength, sigma=sigma, labels=y, prompt=prompt,
        guidance_scale=guidance_scale, terms=terms, steps=steps, sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
