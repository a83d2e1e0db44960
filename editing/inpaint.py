"""Inpainting: one call, four ways."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

import guided
from editing.blend import blend
from editing.call import Progress, Sampler, count, prepare
from editing.inputs import needed, read_image, read_mask
from editing.masks import dilate, feather
from editing.operators import Mask
from editing.repaint import repaint
from editing.restore import restore
from guided import Model, Prediction, Term


def inpaint(
    model: Model,
    image: Any,
    mask: Any,
    *,
    method: str = "blend",
    seam: float = 0.0,
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
    """Paints what the mask covers; pixels where it is 0 come back to the bit, whatever the method.

    Args:
        model: any; for method="model" one that was trained with a masked image and its mask as inputs.
        image: as `editing.inputs.read_image` takes it: a tensor (N, C, H, W) in [-1, 1], a path, a PIL image.
        mask: as `editing.inputs.read_mask` takes it; 1 = paint, soft allowed. An empty one gives the image back, one
            that covers all makes a picture of nothing but the condition.
        method: "blend", fast, see `editing.blend`; "repaint", slower, for what has to fit, see `editing.repaint`;
            "posterior", the known pixels as a measurement, see `editing.restore`; "model", the network's own.
        seam: how many pixels of the painted side, along the edge of the mask, may be drawn once more after the joining,
            so that no edge shows. 0 is off. What the mask leaves out stays as it is.
        **own: further arguments of the method: strength, sigma (blend); jump, resample, nfe (repaint); rule,
            sigma_y, jump, resample (posterior).
        labels, prompt, guidance_scale, terms, steps, sampler, seeds, progress: see `editing.call.prepare`.

    Returns:
        (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: an unknown method, a model that has not what method="model" needs, or what the method raises.
        TypeError: the method has no such argument; names those it has.
    """
    how = {
        "labels": labels, "prompt": prompt, "guidance_scale": guidance_scale, "terms": terms, "steps": steps,
        "sampler": sampler, "seeds": seeds, "progress": progress,
    }  # fmt: skip
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    takes = [name for name in inspect.signature(METHODS[method]).parameters if name not in (*how, *PICTURES)]
    for name in own:
        if name not in takes:
            raise TypeError(f"method {method!r} takes no {name!r}; it takes {', '.join(takes) or 'nothing more'}")
    if not seam >= 0:
        raise ValueError(f"seam must be at least 0 pixels, got {seam}")
    painted = METHODS[method](model, image, mask, **how, **own)
    if not seam:
        return painted
    mask = read_mask(mask, painted)
    band = feather((mask - dilate(mask, -round(seam))).clamp(min=0), seam / 2, inward=True)
    others = None if seeds is None else [seed + SECOND_PASS for seed in guided.resolve_seeds(seeds, len(painted))]
    return blend(model, painted, band, strength=0.4, **how | {"seeds": others})


def by_model(
    model: Model,
    image: Any,
    mask: Any,
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
    """Inpainting by a network that is told the masked image and the mask; arguments as in `inpaint`.

    What is known also takes its place in the estimate of every step, as in GLIDE.

    Source:
        Nichol et al. 2022 (GLIDE), section 4.3.
    """
    missing = [key for key in ("image", "mask") if key not in model.conditions]
    if missing:
        raise ValueError("method='model' needs a model trained with image and mask as conditions; use another method")
    call = prepare(
        model, image, needed(mask), labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms,
        steps=steps, sampler=sampler, seeds=seeds, progress=progress,
    )  # fmt: skip
    if not bool(call.mask.any()):
        return call.picture.clone()

    painted = call.mask > 0

    def D(x: Tensor, sigma: Tensor) -> Prediction:
        pred = call.D(x, sigma)
        return Prediction(torch.where(painted, pred.x0, call.image), pred.var_frac)

    x = torch.where(painted, 0, call.image) + float(call.sigmas[0]) * call.noise(call.image)
    x = call.finish(call.run(D, x, call.sigmas, noise=call.noise))
    return torch.where(painted, call.mask * x + (1 - call.mask) * call.image, call.image)


def by_measurement(
    model: Model,
    image: Any,
    mask: Any,
    *,
    rule: str = "ddnm",
    sigma_y: float = 0.0,
    jump: int = 2,
    resample: int | None = None,
    **how: Any,
) -> Tensor:
    """Inpainting as the restoration of what was measured: the pixels outside the mask; see `editing.restore`."""
    image = read_image(model, image)
    mask = read_mask(needed(mask), image)
    n = count(images=image, masks=mask)
    image, mask = image.expand(n, -1, -1, -1), mask.expand(n, -1, -1, -1)
    if not bool(mask.any()):
        return image.clone()
    operator = Mask((mask > 0).to(mask))
    painted = restore(
        model, operator.forward(image), operator, rule=rule, sigma_y=sigma_y, jump=jump, resample=resample, **how
    )
    return torch.where(mask == 0, image, mask * painted + (1 - mask) * image)


METHODS = {"blend": blend, "repaint": repaint, "posterior": by_measurement, "model": by_model}
PICTURES = ("model", "image", "mask", "how")
SECOND_PASS = 1 << 40  # added to the seeds of the first
