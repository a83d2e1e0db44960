"""Super-resolution: one call, three ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

import guided
from editing.call import Progress, Sampler, prepare
from editing.ilvr import held_states
from editing.inputs import check_range
from editing.operators import Downsample
from editing.restore import agree, restore
from guided import Model, Term


def upscale(
    model: Model,
    image: Any,
    *,
    factor: int | None = None,
    method: str | None = None,
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
    **own: Any,
) -> Tensor:
    """Pictures `factor` times as large, of which the image is the block means.

    Args:
        image: the small picture: a float tensor (N, C, h, w) in [-1, 1], or what `guided.to_tensor` takes, at its own
            size.
        factor: a whole number from 2 on; None makes the model's image_size.
        method: "model", a network trained for it, which is told the image; "posterior", any model, the image as a
            measurement (see `editing.restore`); "ilvr", any model, held to the image at every level (see
            `editing.ilvr`), fast. None is "model" where the model is one, else "posterior".
        **own: further arguments of the method: rule, sigma_y, jump, resample (posterior); low (ilvr).
        labels, prompt, guidance_scale, terms, steps, sampler, seeds, progress: see `editing.call.prepare`; the
            sampler is ddim for "model" and else ddpm by default.

    Returns:
        (N, C, factor h, factor w) in [-1, 1]. By "posterior" and "ilvr" the blocks have the image's values as means, to
        rounding (unless sigma_y > 0 or low > 0). A network's picture agrees as well as it has learned to.

    Raises:
        ValueError: factor is no whole number from 2 on, or None and the sides do not divide the model's; a model
            without low_res for method="model"; an unknown method; or what the method raises.
        TypeError: an argument that the method has not.
    """
    small = read_small(model, image)
    factor = factor_for(model, small) if factor is None else factor
    operator = Downsample(factor)
    told = "low_res" in model.conditions
    method = ("model" if told else "posterior") if method is None else method
    how = {
        "labels": labels, "prompt": prompt, "guidance_scale": guidance_scale, "terms": terms, "steps": steps,
        "sampler": sampler, "seeds": seeds, "progress": progress,
    }  # fmt: skip
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if told and method != "model":
        raise ValueError("this model is told the small image: leave method out, or load one that is not")
    return METHODS[method](model, small, operator, **how, **own)


def by_model(model: Model, small: Tensor, operator: Downsample, **how: Any) -> Tensor:
    """Super-resolution by a network that was trained for it (Dhariwal & Nichol 2021, "Comparison to Upsampling")."""
    if "low_res" not in model.conditions:
        raise ValueError("method='model' needs a super-resolution network (low_res); use 'posterior' or 'ilvr'")
    call = prepare(model, operator.pinv(small), low_res=small, **how)
    x = float(call.sigmas[0]) * call.noise(call.image)
    return call.finish(call.run(call.D, x, call.sigmas, noise=call.noise))


def by_ilvr(model: Model, small: Tensor, operator: Downsample, *, low: float = 0.0, **how: Any) -> Tensor:
    """Super-resolution by ILVR: the small image is the low-pass that is held (Choi et al. 2021)."""
    if not low >= 0:
        raise ValueError(f"low must be at least 0, a noise level, got {low}")
    call = prepare(model, operator.pinv(small), default="ddpm", **how)
    x = call.finish(held_states(call, operator, small, low))
    return agree(operator, x, small) if low == 0 else x


METHODS = {"model": by_model, "posterior": restore, "ilvr": by_ilvr}


def read_small(model: Model, image: Any) -> Tensor:
    """The small picture, (N, C, h, w) in [-1, 1] on the model's device, at its own size."""
    if not (isinstance(image, Tensor) and image.is_floating_point() and image.ndim in (3, 4)):
        image = guided.to_tensor(image)
    image = image.detach()[None] if image.ndim == 3 else image.detach()
    image = (image if image.dtype in (torch.float32, torch.float64) else image.float()).to(model.device)
    if image.shape[1] != model.channels:
        raise ValueError(f"the image has {image.shape[1]} channels, the model {model.channels}")
    check_range(image, -1, 1, "the image")
    return image.clamp(-1, 1)


def factor_for(model: Model, small: Tensor) -> int:
    """By how much the image is smaller than the model's pictures.

    Raises:
        ValueError: it is not, or not by a whole number.
    """
    height, width = small.shape[2:]
    factor = model.image_size // max(height, width)
    if factor < 2 or factor * max(height, width) != model.image_size:
        raise ValueError(
            f"the image is {height}x{width}, and no whole factor from 2 on makes that {model.image_size}: "
            "give factor, or an image of another size"
        )
    return factor
