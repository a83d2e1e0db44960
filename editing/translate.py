"""Translation between two models by the noise that both make their pictures of (DDIB).

Source:
    Su et al. 2023 (Dual Diffusion Implicit Bridges), Alg. 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Progress, Sampler, check_class, prepare
from editing.inputs import read_image
from editing.invert import invert_stream, levels_up_to
from guided import Denoiser, Model, NoiseFn, State, Term


def translate_stream(
    D: Denoiser,
    D_target: Denoiser,
    image: Tensor,
    sigmas: Tensor,
    target_sigmas: Tensor,
    *,
    evaluations: int = 5,
    noise: NoiseFn = torch.randn_like,
    sampler: Sampler = guided.ddim,
) -> Iterator[State]:
    """States up to the common noise by one denoiser, then down by the other.

    Args:
        D, D_target: of the image's kind, and of the kind it is to become.
        image: (N, C, H, W).
        sigmas, target_sigmas: decreasing levels of the two ways, with one and the same first.
        evaluations: of D, a step up; see `editing.invert_stream`.
        noise, sampler: of the way down.

    Raises:
        ValueError: the ways have different tops.

    Source:
        Su et al. 2023, Alg. 1.
    """
    if abs(float(sigmas[0]) / float(target_sigmas[0]) - 1) > 1e-6:
        raise ValueError(f"the ways must share their top, got {float(sigmas[0])} and {float(target_sigmas[0])}")
    steps, x = len(sigmas) + len(target_sigmas) - 2, image
    for state in invert_stream(D, image, sigmas, evaluations=evaluations):
        state.steps = steps
        yield state
        x = state.x
    for state in sampler(D_target, x, target_sigmas, noise=noise):
        state.step, state.steps = len(sigmas) - 1 + state.step, steps
        yield state


def translate(
    model: Model,
    image: Any,
    target: Model,
    *,
    to: Any = None,
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
    """The picture that the target makes of the noise of which the model makes the image.

    Args:
        model: of pictures like the image.
        image: as `editing.inputs.read_image` takes it.
        target: of pictures like the result; as many channels (and the same autoencoder, where it works in latents),
            another chain and parametrization if it likes. Its levels meet the model's at the lower of the two
            sigma_max.
        to: its classes, as `labels`, which are the model's.
        evaluations: of the model, a step up.
        prompt: the target's.
        guidance_scale, terms, sampler, seeds: of the way down; sampler is any, ddim by default.
        steps, progress: see `editing.call.prepare`.

    Returns:
        (N, C, H, W) in [-1, 1], the image's size.

    Raises:
        ValueError: the image does not fit one of the models, or what `editing.call.prepare` raises.

    Source:
        Su et al. 2023, Alg. 1.
    """
    check_class(model, labels, "labels")
    if prompt is None:
        check_class(target, to, "to")
    image = read_image(model, image)
    read_image(target, image)  # says what does not fit
    if not model.space.is_that_of(target.space):
        raise ValueError(
            "the two models' noise lies in different spaces: both need pixels or one and the same autoencoder"
        )
    down = prepare(
        target, image, labels=to, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
        sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
    up = prepare(model, down.picture, labels=labels, steps=steps, seeds=down.noise.seeds)
    top = min(float(up.sigmas[0]), float(down.sigmas[0]))
    states = translate_stream(
        up.D, down.D, up.image, levels_up_to(up.sigmas, top), levels_up_to(down.sigmas, top),
        evaluations=evaluations, noise=down.noise, sampler=down.run,
    )  # fmt: skip
    return down.finish(states)
