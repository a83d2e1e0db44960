"""RePaint: a path of noise levels that goes up and down again, so that what is painted agrees with what is known.

Source:
    Lugmayr et al. 2022 (RePaint), Alg. 1 and appendix B.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

import guided
from editing.blend import join
from editing.call import Progress, Sampler, first_order, prepare
from editing.inputs import needed, read_mask
from guided import Denoiser, Model, NoiseFn, State, Term

Turns = int | Sequence[int]
"""One number, or one for each of several nested kinds of jumps, the longest first."""


def repaint_path(
    steps: int, jump: Turns = 10, resample: Turns = 10, *, again: int = 1, start: float = math.inf
) -> list[int]:
    """The timesteps that RePaint visits, from steps - 1 to -1, which is the clean picture.

    Down one by one; at every multiple of `jump` below steps - jump it goes up again by `jump`, resample - 1 times.

    Args:
        steps: of the chain, T.
        jump: how far up (the paper's jump length j). Of several kinds of jumps the shorter are all made again
            after each longer one.
        resample: how often each stretch is walked down (the paper's r).
        again: how often each single step down is taken.
        start: nothing is walked again above this timestep.

    Returns:
        4,571 timesteps for 250 steps and the defaults: 2,410 moves down and 2,160 up.

    Source:
        Lugmayr et al. 2022, Alg. 1 and appendix B.
    """
    kinds = _kinds(steps, jump, resample, again)
    left, path, t = [{} for _ in kinds], [], steps
    while t > 0:
        t -= 1
        path += [t, *[t + 1, t] * (again - 1)] if t <= min(start, steps - 3) else [t]
        for k, (length, count) in reversed([*enumerate(kinds)]):
            turns = left[k].get(t, count - 1 if t in range(0, steps - length, length) else 0)
            if turns and t <= start - length:
                left[k][t] = turns - 1
                path += range(t + 1, t + length + 1)
                t += length
                left[k + 1 :] = [{} for _ in kinds[k + 1 :]]  # the shorter ones begin again
    return [*path, -1]


def _kinds(steps: int, jump: Turns, resample: Turns, again: int) -> list[tuple[int, int]]:
    """(length, how often) of each kind of jump, or a ValueError that names what is wrong."""
    lengths, counts = (list(value) if isinstance(value, Sequence) else [value] for value in (jump, resample))
    if len(lengths) != len(counts):
        raise ValueError(f"{len(lengths)} jumps and {len(counts)} resample: give one of each, or as many")
    for name, values in (("steps", [steps]), ("jump", lengths), ("resample", counts), ("again", [again])):
        for value in values:
            if value != int(value) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value}")
    return list(zip(lengths, counts, strict=True))


def repaint_stream(
    D: Denoiser,
    image: Tensor,
    mask: Tensor,
    sigmas: Tensor,
    *,
    jump: Turns = 10,
    resample: Turns = 10,
    noise: NoiseFn,
    sampler: Sampler = guided.ddpm,
) -> Iterator[State]:
    """The states after each denoising step; moves up lie between them.

    Args:
        D: the denoiser.
        image: (N, C, H, W), what is known; masked pixels have no influence where the mask is 1.
        mask: (N, 1, H, W), 1 = paint, soft allowed.
        sigmas: decreasing, the last 0 for a finished picture: the levels of timesteps steps - 1, ..., 0, -1.
        jump, resample: see `repaint_path`. With jump >= steps there are no jumps, and a warning says so.
        noise: the start's, the known pixels', the moves up, and the sampler's own.
        sampler: of first order.

    Source:
        Lugmayr et al. 2022, Alg. 1.
    """
    steps, mask, levels = len(sigmas) - 1, read_mask(mask, image), sigmas.flip(0)
    path = repaint_path(steps, jump, resample)
    if len(path) == steps + 1 and resample != 1:
        warnings.warn(f"no jumps: jump={jump} is not below the {steps} steps, so this is a plain run", stacklevel=2)
    evaluations = sum(t_next < t for t, t_next in pairwise(path))
    x, step = image * (mask == 0) + float(sigmas[0]) * noise(image), 0
    for t, t_next in pairwise(_turns_and_falls(path)):
        s, s_next = levels[t + 1], levels[t_next + 1]
        if t_next > t:
            x = x + float((s_next**2 - s**2).sqrt()) * noise(x)  # Lugmayr et al. 2022, Alg. 1, line 10
            continue
        (state,) = sampler(D, x, torch.stack([s, s_next]), noise=noise)
        z = noise(image) if s_next > 0 else torch.zeros_like(image)
        state.x = join(state, image, mask, z)  # Lugmayr et al. 2022, Alg. 1, line 8
        state.step, state.steps = step, evaluations
        yield state
        x, step = state.x, step + 1


def _turns_and_falls(path: list[int]) -> list[int]:
    """The path with each climb in one move: noise upon noise is noise, and one draw of it is enough."""
    inner = {i for i in range(1, len(path) - 1) if path[i - 1] < path[i] < path[i + 1]}
    return [t for i, t in enumerate(path) if i not in inner]


class Plan(NamedTuple):
    """Arguments of `repaint`, and how many evaluations of the denoiser they cost."""

    steps: int
    jump: int
    resample: int
    evaluations: int


def repaint_plan(nfe: int) -> Plan:
    """How to spend so many evaluations: about 2 sqrt(nfe) steps, short jumps, and resampling with the rest.

    Of plans with 100 evaluations, tried on Gaussian mixtures, those with 15 to 20 steps, jumps of 1 or 2 and 5 to 7
    walks over each stretch came nearest to the exact conditional distribution, and a plain run of 100 steps least near.

    Args:
        nfe: at least 1; the plan costs at most so many.
    """
    if nfe != int(nfe) or nfe < 1:
        raise ValueError(f"nfe must be a whole number of at least 1, got {nfe}")
    near = min(nfe, round(2 * nfe**0.5))
    plans = []
    for steps in range(max(1, near - near // 10), min(nfe, near + near // 10) + 1):
        for jump in range(1, max(1, steps // 10) + 1):
            turns = jump * len(range(0, steps - jump, jump))
            resample = 1 + (nfe - steps) // turns if turns else 1
            plans.append(Plan(steps, jump, resample, steps + turns * (resample - 1)))
    return max(plans, key=lambda plan: (plan.evaluations, plan.jump))


def repaint(
    model: Model,
    image: Any,
    mask: Any,
    *,
    jump: Turns = 10,
    resample: Turns = 10,
    nfe: int | None = None,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """Paints the masked region of an image so that it fits the rest; the rest comes back to the bit.

    The more resampling, the nearer to the exact conditional distribution. The paper's setting is steps=250 with jump=10
    and resample=10: 2,410 evaluations. The default of 50 steps makes 410; with `nfe` the budget decides.

    Args:
        model: any.
        image: as `editing.inputs.read_image` takes it: a tensor (N, C, H, W) in [-1, 1], a path, a PIL image.
        mask: as `editing.inputs.read_mask` takes it; 1 = paint. An empty one gives the image back.
        jump, resample: see `repaint_path`; with jump >= steps there are no jumps, and a warning says so.
        nfe: at most so many evaluations; chooses steps, jump and resample by `repaint_plan`.
        steps: levels uniform in t, as the paper's are; or a respacing.
        sampler: of first order; ddpm by default.
        labels, prompt, guidance_scale, terms, seeds, progress: see `editing.call.prepare`.

    Returns:
        (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: the sampler is not of first order, mask and image are of two sizes, or an argument is not what
            `editing.call.prepare` takes.
    """
    if nfe is not None:
        steps, jump, resample, _ = repaint_plan(nfe)
    repaint_path(1, jump, resample)  # says what is wrong with them
    call = prepare(
        model, image, needed(mask), labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms,
        steps=steps, sampler=sampler, seeds=seeds, progress=progress, default="ddpm",
        spacing="uniform" if isinstance(steps, int) else None,
    )  # fmt: skip
    if not bool(call.mask.any()):
        return call.picture.clone()
    states = repaint_stream(
        call.D, call.image, call.mask, call.sigmas, jump=jump, resample=resample, noise=call.noise,
        sampler=first_order(call.run),
    )  # fmt: skip
    return call.finish(states)
