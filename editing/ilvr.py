"""ILVR: pictures whose low frequencies are those of a reference.

Source:
    Choi et al. 2021 (ILVR), Alg. 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from editing.call import Call, Progress, Sampler, prepare
from editing.inputs import read_image
from editing.operators import Downsample, Operator
from editing.posterior import ddnm, residual_of
from editing.restore import agree
from guided import Model, NoiseFn, State, Term


def ilvr_stream(
    states: Iterable[State], operator: Operator, y: Tensor, *, noise: NoiseFn, low: float = 0.0
) -> Iterator[State]:
    """States that agree with a measurement at every level: x + A^+ (y + sigma A z - A x), z noise.

    The paper's low-pass filter is A^+ A of its downsampling. With a true pseudo-inverse, as here, A x = y holds at the
    end to rounding.

    Args:
        states: a sampler's stream, which reads `state.x` back.
        operator, y: A and what A of the picture is to be.
        noise: one draw a step, but none at sigma = 0.
        low: the constraint is on down to this level; below it the sampler is free.

    Source:
        Choi et al. 2021, Alg. 1.
    """
    for state in states:
        s = float(state.sigma)
        if s >= low:
            goal = y.to(state.x) if s == 0 else y.to(state.x) + s * operator.forward(noise(state.x))
            state.x = state.x + operator.pinv(residual_of(operator, goal, state.x))  # Choi et al. 2021, Alg. 1
        yield state


def held_states(call: Call, operator: Operator, y: Tensor, low: float) -> Iterator[State]:
    """`ilvr_stream` of a call. A model in latents has no noisy pictures to hold: there the estimate of each step is
    brought to agree (`editing.ddnm`), down to the level `low`.
    """
    x = float(call.sigmas[0]) * call.noise(call.image)
    if not call.space.latent:
        states = call.run(call.D, x, call.sigmas, noise=call.noise)
        return ilvr_stream(states, operator, y, noise=call.noise, low=low)
    held = call.among_images(lambda D: ddnm(D, operator, y))
    return call.run(lambda x, s: (held if float(s) >= low else call.D)(x, s), x, call.sigmas, noise=call.noise)


def ilvr(
    model: Model,
    image: Any,
    *,
    factor: int = 8,
    low: float = 0.0,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """New pictures with the layout and colours of a reference: the means of its blocks of factor x factor pixels.

    Args:
        image: the reference, as `editing.inputs.read_image` takes it.
        factor: at least 2, a divisor of the sides; the larger, the freer the result.
        low: the noise level down to which the reference rules; above 0 the result is freer and the means not exact.
        labels, prompt, guidance_scale, terms, steps, sampler, seeds, progress: see `editing.call.prepare`; ddpm, the
            paper's, by default.

    Returns:
        (N, C, H, W) in [-1, 1]; with low = 0 its blocks have the reference's means to rounding.

    Raises:
        ValueError: factor does not divide the image's sides, low is negative, or what `editing.call.prepare` raises.
    """
    operator = Downsample(factor)
    y = operator.forward(read_image(model, image))
    if not low >= 0:
        raise ValueError(f"low must be at least 0, a noise level, got {low}")
    call = prepare(
        model, image, labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
        sampler=sampler, seeds=seeds, progress=progress, default="ddpm",
    )  # fmt: skip
    x = call.finish(held_states(call, operator, y, low))
    return agree(operator, x, y) if low == 0 else x
