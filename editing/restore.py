"""Pictures drawn anew from what was measured of them, by a model that was never trained for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Progress, Sampler, first_order, is_first_order, prepare
from editing.inputs import read_image
from editing.operators import Blur, Operator
from editing.posterior import RULES, ddnm, measured, residual_of
from editing.repaint import repaint_path
from guided import Denoiser, Model, NoiseFn, State, Term


def travel_stream(
    D: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    jump: int = 1,
    resample: int = 1,
    noise: NoiseFn = torch.randn_like,
    sampler: Sampler = guided.ddpm,
) -> Iterator[State]:
    """A sampler's states, but each stretch of `jump` steps is walked `resample` times: after it back up, with noise.

    With `ddnm` the distribution of the pictures comes nearer to the exact conditional one the more often that is.

    Args:
        D, x, sigmas, noise: see `guided.samplers`.
        jump, resample: as in `editing.repaint.repaint_path`; resample=1 is the sampler itself.
        sampler: any; of first order where resample > 1.

    Raises:
        ValueError: resample > 1 and the sampler is of higher order, or jump or resample is not a positive whole number.

    Source:
        Wang et al. 2023, section 3.3 (time-travel); the path is that of Lugmayr et al. 2022.
    """
    check_travel(sampler, len(sigmas) - 1, jump, resample)
    if resample == 1:
        yield from sampler(D, x, sigmas, noise=noise)
        return
    moves = list(pairwise(repaint_path(len(sigmas) - 1, jump, resample)))
    steps, step, levels = sum(t_next < t for t, t_next in moves), 0, sigmas.flip(0)
    for t, t_next in moves:
        s, s_next = levels[t + 1], levels[t_next + 1]
        if t_next > t:
            x = x + float((s_next**2 - s**2).sqrt()) * noise(x)
            continue
        for state in sampler(D, x, torch.stack([s, s_next]), noise=noise):
            state.step, state.steps = step, steps
            yield state
            x, step = state.x, step + 1


def restore_stream(
    D: Denoiser,
    operator: Operator,
    y: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseFn = torch.randn_like,
    sampler: Sampler = guided.ddpm,
    rule: str = "ddnm",
    jump: int = 1,
    resample: int = 1,
    **options: Any,
) -> Iterator[State]:
    """States on the way from noise to a picture with A x = y.

    Args:
        D: a denoiser, not clamped where the rule is not "ddnm": a clamp cuts the gradient off; put one around by hand.
        operator, y: A and the measurement.
        sigmas: levels as `Model.sigmas` gives them.
        noise: like torch.randn_like; also draws the start.
        sampler, jump, resample: see `travel_stream`.
        rule: "ddnm", or one of `measured`; **options are those of `ddnm` or `measured`.
    """
    if rule == "ddnm":
        D = ddnm(D, operator, y, **options)
    else:
        D = guided.guide(D, measured(operator, y, rule=rule, **options))
    x = float(sigmas[0]) * noise(operator.pinv(y))
    yield from travel_stream(D, x, sigmas, jump=jump, resample=resample, noise=noise, sampler=sampler)


def restore(
    model: Model,
    y: Tensor,
    operator: Operator,
    *,
    rule: str = "ddnm",
    sigma_y: float = 0.0,
    jump: int = 2,
    resample: int | None = None,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """Pictures of which y is the measurement: what was masked, blurred or made smaller, drawn anew.

    Args:
        y: (N, ...) as operator.forward gives it, for pictures in [-1, 1].
        operator: `editing.operators.Mask`, `Downsample`, `Blur`, or any other `Operator`.
        rule: "ddnm" (one network call a step, nothing more; with resample > 1 the nearest to the exact conditional
            distribution), "pigdm" (a backward pass a step), "mmps" (more of them) or "dps"; see `measured`.
            A model in latents decodes its estimate for each, and by "ddnm" encodes it again; "mmps" it cannot.
        sigma_y: the measurement's noise; 0 is none.
        jump, resample: see `travel_stream`. None walks three times, which makes 146 steps of 50; but once with a
            sampler of higher order, or where no jump fits.
        labels, prompt, guidance_scale, terms, steps, sampler, seeds, progress: see `editing.call.prepare`; ddpm by
            default.

    Returns:
        (N, C, H, W) in [-1, 1]. Without noise A x = y, but for what the bounds cut off; where the operator has a method
        `within`, not even for that.

    Raises:
        ValueError: the rule is unknown, y is not finite, the picture's size does not fit the network, resample > 1 and
            the sampler is of higher order, or an argument is not what `measured` or `editing.call.prepare` takes.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if not bool(y.isfinite().all()):
        raise ValueError("the measurement holds values that are not finite")
    y = y.to(model.device)
    if rule == "mmps" and model.space.latent:
        raise ValueError("the rule 'mmps' needs a model of pixels: with latents use 'ddnm', 'pigdm' or 'dps'")
    options = {"sigma_y": sigma_y, "sigma_data": 0.5 if model.space.latent else model.sigma_data}
    term = None if rule == "ddnm" else measured(operator, y, rule=rule, **options)
    call = prepare(
        model, operator.pinv(y).clamp(-1, 1), labels=labels, prompt=prompt, guidance_scale=guidance_scale,
        terms=(*terms, *([] if term is None else [term])), steps=steps, sampler=sampler, seeds=seeds,
        progress=progress, default="ddpm",
    )  # fmt: skip
    residual_of(operator, y, call.picture)  # says what does not fit
    if resample is None:
        resample = 3 if is_first_order(call.run) and jump < len(call.sigmas) - 1 else 1
    check_travel(call.run, len(call.sigmas) - 1, jump, resample)
    D = call.among_images(lambda D: ddnm(D, operator, y, **options)) if term is None else call.D
    x = float(call.sigmas[0]) * call.noise(call.image)
    states = travel_stream(D, x, call.sigmas, jump=jump, resample=resample, noise=call.noise, sampler=call.run)
    x = call.finish(states)
    return agree(operator, x, y) if sigma_y == 0 else x


def check_travel(sampler: Sampler, steps: int, jump: int, resample: int) -> None:
    """ValueError where `travel_stream` cannot go this way; a warning where there is no room for a jump."""
    repaint_path(1, jump, resample)  # says what is wrong with the two
    if resample == 1:
        return
    try:
        first_order(sampler)
    except ValueError as error:
        raise ValueError(f"{error}; with resample=1 any goes") from None
    if jump >= steps:
        warnings.warn(f"no time-travel: jump={jump} is not below the {steps} steps", stacklevel=3)


def agree(operator: Operator, x: Tensor, y: Tensor) -> Tensor:
    """The picture in [-1, 1] next to x with A x = y, where the operator knows it; else x + A^+ (y - A x), cut."""
    y = y.to(x)
    if hasattr(operator, "within"):
        return operator.within(x, y)
    return (x + operator.pinv(residual_of(operator, y, x))).clamp(-1, 1)


def deblur(
    model: Model,
    image: Any,
    *,
    deviation: float,
    sigma_y: float = 0.02,
    rule: str = "ddnm",
    jump: int = 2,
    resample: int | None = None,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """`restore` for a picture under a Gaussian blur.

    Args:
        image: the blurred picture, as `editing.inputs.read_image` takes it.
        deviation: of the blur, in pixels.
        sigma_y: the noise on top; bytes alone have 0.002, and 0 believes every last digit, which the inverse of a blur
            makes 50 times as large (1 / `editing.Blur.floor`).
        others: as in `restore`.

    Returns:
        (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: deviation is not positive, or as `restore`.
    """
    operator = Blur(deviation)
    y = read_image(model, image)
    y = operator.forward(operator.pinv(y))  # what it cannot have let through was not in the picture
    return restore(
        model, y, operator, rule=rule, sigma_y=sigma_y, jump=jump, resample=resample, labels=labels, prompt=prompt,
        guidance_scale=guidance_scale, terms=terms, steps=steps, sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
