"""DiffEdit: what two conditions disagree about is what must change; the rest is held by inversion.

Source:
    Couairon et al. 2023 (DiffEdit).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Progress, Sampler, bind, check_class, prepare, start_level
from editing.inputs import read_mask
from editing.masks import dilate
from guided import Denoiser, Model, NoiseFn, State, Term


@torch.no_grad()
def contrast(D_a: Denoiser, D_b: Denoiser, image: Tensor, sigma: float, *, noise: NoiseFn, draws: int = 10) -> Tensor:
    """How much two conditions disagree about each pixel's noise, 0..1.

    Args:
        D_a, D_b: the same model under two conditions.
        image: (N, C, H, W).
        sigma: the noise that is put on it.
        draws: of the noise; the average over them.

    Returns:
        (N, 1, H, W): |eps_a - eps_b|, averaged, cut at three times its mean and divided by that, as outliers would
        else decide the scale.

    Source:
        Couairon et al. 2023, step 1.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    s = torch.tensor(sigma, dtype=torch.float64)
    total = torch.zeros_like(image[:, :1])
    for _ in range(draws):
        x = image + sigma * noise(image)
        total += (D_a(x, s).x0 - D_b(x, s).x0).abs().mean(1, keepdim=True) / (sigma * draws)
    top = 3 * total.mean((1, 2, 3), keepdim=True)
    return (total / top.clamp(min=1e-12)).clamp(max=1)


def diffedit_stream(
    D: Denoiser, image: Tensor, mask: Tensor, sigmas: Tensor, *, source: Denoiser, sampler: Sampler = guided.ddim,
    noise: NoiseFn = torch.randn_like,
) -> Iterator[State]:  # fmt: skip
    """The states of the edit: from the image inverted to sigmas[0] down, held outside the mask to the inversion.

    Args:
        D: the denoiser of the wanted condition.
        image, mask: (N, C, H, W) and (N, 1, H, W), 1 = edit.
        sigmas: decreasing, ends in 0.
        source: the denoiser that inverts, of the condition that the image has.
        sampler, noise: of the way down.

    Source:
        Couairon et al. 2023, steps 2 and 3.
    """
    mask = read_mask(mask, image)
    encoded = {float(sigmas[-2]): image, 0.0: image}
    if len(sigmas) > 2:
        for state in guided.ddim(source, image, sigmas[:-1].flip(0)):  # Couairon et al. 2023, step 2
            encoded[float(state.sigma)] = state.x
    for state in sampler(D, encoded[float(sigmas[0])], sigmas, noise=noise):
        state.x = mask * state.x + (1 - mask) * encoded[float(state.sigma)]  # Couairon et al. 2023, step 3
        yield state


def diffedit(
    model: Model,
    image: Any,
    *,
    source: Any = None,
    strength: float = 0.5,
    sigma: float | None = None,
    threshold: float = 0.5,
    draws: int = 10,
    grow: int = 1,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """Turns an image into another class without a mask: where to change is found; the rest comes back to the bit.

    Args:
        model: with classes or text.
        image: as `editing.inputs.read_image` takes it.
        source: label of what the image shows; None is the null class.
        labels, prompt: what it is to show.
        strength, sigma: the level to which it is inverted, and at which the mask is found; as in `sdedit`.
        threshold, draws, grow: see `diffedit_mask`.
        guidance_scale, terms, steps, sampler, seeds, progress: see `editing.call.prepare`.

    Returns:
        (N, C, H, W) in [-1, 1].

    Source:
        Couairon et al. 2023.
    """
    check_class(model, source, "source")
    start = start_level(model, strength, sigma)
    if labels is None and prompt is None:
        raise ValueError("diffedit needs labels or a prompt: what the image is to become")
    call = prepare(
        model, image, labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
        sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
    if start == 0:
        return call.picture.clone()
    n, sigmas = len(call.image), guided.start_at(call.sigmas, min(start, float(call.sigmas[0])))
    before, after = bind(model, source, n), bind(model, labels, n, prompt=prompt)
    contrasts = contrast(before, after, call.image, float(sigmas[0]), noise=call.noise, draws=draws)
    call = call.masked(binary(call.space.to_mask(contrasts), threshold=threshold, grow=grow))
    states = diffedit_stream(
        call.D, call.image, call.mask, sigmas, source=before, sampler=call.run, noise=call.noise
    )  # fmt: skip
    return call.finish(states)


def diffedit_mask(
    model: Model,
    image: Any,
    *,
    labels: Any = None,
    prompt: str | None = None,
    source: Any = None,
    strength: float = 0.5,
    sigma: float | None = None,
    threshold: float = 0.5,
    draws: int = 10,
    grow: int = 1,
    seeds: int | Sequence[int] | None = None,
) -> Tensor:
    """The mask that `diffedit` finds, for a look at it or for another editor: (N, 1, H, W), 1 = edit.

    Args:
        threshold: of the contrast, in (0, 1); lower ones change more.
        draws: of the noise.
        grow: pixels by which the mask is made wider.
        model, image, labels, prompt, source, strength, sigma, seeds: as in `diffedit`, which with the same seeds
            finds the same mask.
    """
    check_class(model, source, "source")
    start = start_level(model, strength, sigma)
    if not start > 0:
        raise ValueError("the contrast needs a strength above 0")
    call = prepare(model, image, labels=labels, prompt=prompt, seeds=seeds)
    n = len(call.image)
    before, after = bind(model, source, n), bind(model, labels, n, prompt=prompt)
    contrasts = contrast(before, after, call.image, start, noise=call.noise, draws=draws)
    return binary(call.space.to_mask(contrasts), threshold=threshold, grow=grow)


def binary(contrasts: Tensor, *, threshold: float, grow: int) -> Tensor:
    """A contrast (N, 1, H, W) as a mask of 0 and 1, grown by so many pixels."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie in (0, 1), got {threshold}")
    return dilate((contrasts >= threshold).to(contrasts.dtype), grow)
