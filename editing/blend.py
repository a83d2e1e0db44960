"""Blended diffusion: outside the mask the image, noised to the level of the moment, replaces the state after each step.

Source:
    Avrahami et al. 2022 (Blended Diffusion), Alg. 2; Song et al. 2021b, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Progress, Sampler, prepare, start_level
from editing.inputs import needed, read_mask
from guided import Model, NoiseFn, State, Term


def blend_stream(states: Iterable[State], image: Tensor, mask: Tensor, *, noise: NoiseFn) -> Iterator[State]:
    """The states of any sampler, held to the image where the mask is 0.

    Args:
        states: a sampler's stream, which reads `state.x` back.
        image: (N, C, H, W), what is known.
        mask: (N, 1, H, W) or one that `editing.inputs.read_mask` takes; 1 = paint, soft allowed.
        noise: one draw a step, but none at sigma = 0, where the known pixels are the image itself.

    Source:
        Avrahami et al. 2022, Alg. 2.
    """
    mask = read_mask(mask, image)
    for state in states:
        z = noise(image) if state.sigma > 0 else torch.zeros_like(image)
        state.x = join(state, image, mask, z)
        yield state


def join(state: State, image: Tensor, mask: Tensor, z: Tensor) -> Tensor:
    """The state's x where something is painted, image + sigma z where nothing is: all at the state's noise level.

    A soft mask says how much of what is painted shows in the end: m x + (1 - m) image at sigma = 0, whatever the number
    of steps. Mixing so at every level would leave m^steps of it, and less noise than the network takes it for.
    """
    s = float(state.sigma)
    if s == 0:
        return mask * state.x + (1 - mask) * image
    return torch.where(mask > 0, state.x, image + s * z)  # Avrahami et al. 2022, Alg. 2


def blend(
    model: Model,
    image: Any,
    mask: Any,
    *,
    strength: float = 1.0,
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
    """Paints the masked region of an image; the rest comes back to the bit.

    Fast, and good where condition or terms say what is to be painted. The painted region is not drawn from the exact
    conditional distribution given the rest: what is known enters a step late, so it fits the surroundings less
    than `repaint` makes it fit.

    Args:
        model: any.
        image: as `editing.inputs.read_image` takes it: a tensor (N, C, H, W) in [-1, 1], a path, a PIL image.
        mask: as `editing.inputs.read_mask` takes it; 1 = paint. An empty one gives the image back.
        strength, sigma: where to start, as in `sdedit`; below 1 the masked pixels are kept in part. At 1 they have no
            influence.
        labels, prompt, guidance_scale, terms, steps, sampler, seeds, progress: see `editing.call.prepare`; ddim by
            default.

    Returns:
        (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: mask and image are of two sizes, or an argument is not what `editing.call.prepare` takes.
    """
    start = start_level(model, strength, sigma)
    call = prepare(
        model, image, needed(mask), labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms,
        steps=steps, sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
    if start == 0 or not bool(call.mask.any()):
        return call.picture.clone()
    sigmas = guided.start_at(call.sigmas, min(start, float(call.sigmas[0])))
    fresh = math.isclose(start, model.sigma_max) or (strength == 1 and sigma is None)
    known = call.image * (call.mask == 0) if fresh else call.image
    x = known + float(sigmas[0]) * call.noise(call.image)
    states = call.run(call.D, x, sigmas, noise=call.noise)
    return call.finish(blend_stream(states, call.image, call.mask, noise=call.noise))
