"""Inpainting: one call, four ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

import guided
from editing.blend import blend
from editing.call import Sampler, prepare
from editing.inputs import read_mask
from editing.masks import dilate, feather
from editing.repaint import repaint
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
    progress: bool = False,
    **own: Any,
) -> Tensor:
    """Paints what the mask covers; pixels where it is 0 come back to the bit, whatever the method.

    Args:
        model: any; for method="model" one that was trained with a masked image and its mask as inputs.
        image: as `editing.inputs.read_image` takes it: a tensor (N, C, H, W) in [-1, 1], a path, a PIL image.
        mask: as `editing.inputs.read_mask` takes it; 1 = paint, soft allowed. An empty one gives the image back, one
            that covers all makes a picture of nothing but the condition.
        method: "blend", fast, see `editing.blend`; "repaint", slower, for what has to fit, see `editing.repaint`;
            "posterior", the mask as a measurement, see `editing.posterior`; "model", the network's own.
        seam: how many pixels of the painted side, along the edge of the mask, may be drawn once more after the joining,
            so that no edge shows. 0 is off. What the mask leaves out stays as it is.
        **own: further arguments of the method: strength, sigma (blend); jump, resample, nfe (repaint); those of
            `editing.posterior`.
        labels, prompt, guidance_scale, terms, steps, sampler, seeds, progress: see `editing.call.prepare`.

    Returns:
        (N, C, H, W) in [-1, 1].

    Raises:
        ValueError: an unknown method, a model that has not what method="model" needs, or what the method raises.
    """
    how = {
        "labels": labels, "prompt": prompt, "guidance_scale": guidance_scale, "terms": terms, "steps": steps,
        "sampler": sampler, "seeds": seeds, "progress": progress,
    }  # fmt: skip
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
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
    progress: bool = False,
) -> Tensor:
    """Inpainting by a network that is told the masked image and the mask; arguments as in `inpaint`.

    What is known also takes its place in the estimate of every step, as in GLIDE.

    Source:
        Nichol et al. 2022 (GLIDE), section 2.4.
    """
    missing = [key for key in ("image", "mask") if key not in model.conditions]
    if missing:
        raise ValueError("method='model' needs a model trained with image and mask as conditions; use another method")
    call = prepare(
        model, image, mask, labels=labels, prompt=prompt, guidance_scale=guidance_scale, terms=terms, steps=steps,
        sampler=sampler, seeds=seeds, progress=progress, told=True,
    )  # fmt: skip
    if not bool(call.mask.any()):
        return call.image.clone()

    def D(x: Tensor, sigma: Tensor) -> Prediction:
        pred = call.D(x, sigma)
        return Prediction(call.mask * pred.x0 + (1 - call.mask) * call.image, pred.var_frac)

    x = call.image * (1 - call.mask) + float(call.sigmas[0]) * call.noise(call.image)
    return call.finish(call.run(D, x, call.sigmas, noise=call.noise))


METHODS = {"blend": blend, "repaint": repaint, "model": by_model}
SECOND_PASS = 1 << 40  # added to the seeds of the first
