"""An edit whose strength differs from pixel to pixel, or from picture to picture in one batch.

Source:
    Levin & Fried 2023 (Differential Diffusion), Alg. 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Call, Progress, Sampler, prepare, start_level
from editing.inputs import needed, read_image
from guided import Denoiser, Model, NoiseFn, State, Term


def differential_stream(
    D: Denoiser, image: Tensor, sigmas: Tensor, starts: Tensor, *, noise: NoiseFn, sampler: Sampler = guided.ddim
) -> Iterator[State]:
    """As `sdedit_stream`, but every pixel has a level of its own at which its edit starts.

    Above that level it is held to image + sigma * noise, so at it the pixel is where `sdedit_stream` would start.

    Args:
        starts: (N, 1, H, W), (N, 1, 1, 1) for one level a picture, or what broadcasts so; 0 keeps the pixel exactly.
            Levels between two of `sigmas` wait for the lower one.

    Source:
        Levin & Fried 2023, Alg. 1.
    """
    z = noise(image)
    for state in sampler(D, image + float(sigmas[0]) * z, sigmas, noise=noise):
        held = (starts <= float(state.sigma) * (1 + 1e-9)).to(image.device)
        state.x = torch.where(held, image + float(state.sigma) * z, state.x)  # Levin & Fried 2023, Alg. 1
        yield state


def differential(
    model: Model,
    image: Any,
    strength: Any,
    *,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """`sdedit` with a map of strengths: soft transitions from what stays to what becomes new.

    Args:
        strength: a map in [0, 1] in any form of a mask: tensor (N, 1, H, W) or (H, W), path, PIL image. Pixels where it
            is 0 come back to the bit; there are as many different strengths as steps.
        model, image, labels, prompt, guidance_scale, terms, steps, sampler, seeds, progress: as in `sdedit`.

    Returns:
        (N, C, H, W) in [-1, 1].
    """
    call = prepare(
        model, image, needed(strength), labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms,
        steps=steps, sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
    strength = call.space.from_mask(call.shown)
    starts = guided.Schedule.linear().sigma_at(999 * strength)
    starts = torch.where(strength.cpu() == 0, 0, starts.clamp(max=model.sigma_max))
    call = replace(
        call,
        image=torch.where(strength == 1, 0, call.image),  # nothing of it, not even 1 / sigma_max
        shown=(call.shown > 0).to(call.shown),
    )
    return _walk(call, starts, call.sigmas)


def sweep(
    model: Model,
    image: Any,
    *,
    strengths: Sequence[float] = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """One image at several strengths, in one batched run: a strip to choose from.

    Args:
        image: one picture.
        strengths: in [0, 1]. Their levels are added to those of the steps, so that each starts at its own.
        seeds: one for all, so that the strip differs in strength alone.
        model, labels, prompt, guidance_scale, terms, steps, sampler, progress: as in `sdedit`.

    Returns:
        (len(strengths), C, H, W) in [-1, 1].
    """
    image = read_image(model, image)
    if len(image) != 1 or not strengths:
        raise ValueError(f"a sweep takes one image and some strengths, got {len(image)} and {len(strengths)}")
    levels = torch.tensor([start_level(model, s) for s in strengths], dtype=torch.float64)
    (seed,) = guided.resolve_seeds(seeds, 1)
    n = len(strengths)
    call = prepare(
        model, image.expand(n, -1, -1, -1), labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms,
        steps=steps, sampler=sampler, seeds=[seed] * n, progress=progress,
    )  # fmt: skip
    some = torch.tensor([strength != 1 for strength in strengths]).reshape(-1, 1, 1, 1)
    call = replace(call, image=call.image * some.to(call.image.device))  # of strength 1 it has nothing
    sigmas = call.sigmas
    for start in sorted({float(s) for s in levels if s > 0}):
        sigmas = torch.cat([sigmas[sigmas > start * (1 + 1e-3)], guided.start_at(sigmas, min(start, float(sigmas[0])))])
    return _walk(call, levels.reshape(-1, 1, 1, 1), sigmas)


def _walk(call: Call, starts: Tensor, sigmas: Tensor) -> Tensor:
    """The finished pictures of `differential_stream`, from the highest start on."""
    if not bool(starts.any()):
        return call.picture.clone()
    sigmas = guided.start_at(sigmas, min(float(starts.max()), float(sigmas[0])))
    states = differential_stream(call.D, call.image, sigmas, starts, noise=call.noise, sampler=call.run)
    kept = (starts == 0).flatten(1).all(dim=1).reshape(-1, 1, 1, 1)
    return torch.where(kept.to(call.picture.device), call.picture, call.finish(states))
