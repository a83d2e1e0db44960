"""Pictures beyond their edges: larger canvases than the model's, by windows that overlap.

Source:
    Bar-Tal et al. 2023 (MultiDiffusion), eq. 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from editing.blend import blend_stream
from editing.call import Progress, Sampler, bind, first_order, prepare, told
from editing.inputs import read_image
from editing.repaint import repaint_plan, repaint_stream
from guided import Denoiser, Model, Prediction, Term

Place = tuple[Any, ...]
"""Which part of pictures (N, C, H, W) a window shows, as an index."""


def windows(D: Denoiser, size: int | tuple[int, int], *, overlap: float = 0.5) -> Denoiser:
    """A denoiser for pictures larger than D's: the average of what D says about overlapping windows.

    Args:
        D: for pictures of `size`.
        size: side or (height, width) of a window.
        overlap: at least this share of a window is also seen by its neighbour, in [0, 1).

    Returns:
        A denoiser of pictures that are at least one window large. Each window costs one call of D; a window's word
        counts less toward its edges.

    Source:
        Bar-Tal et al. 2023, eq. 5, with weights.
    """
    return tiled(lambda at: D, size, overlap=overlap)


def tiled(D_at: Callable[[Place], Denoiser], size: int | tuple[int, int], *, overlap: float = 0.5) -> Denoiser:
    """`windows` where each has a denoiser of its own: D_at of the window's place in a picture, x[place]."""
    height, width = (size, size) if isinstance(size, int) else size
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must lie in [0, 1), got {overlap}")

    def windowed_D(x: Tensor, sigma: Tensor) -> Prediction:
        if x.shape[2] < height or x.shape[3] < width:
            raise ValueError(f"the canvas {x.shape[2]}x{x.shape[3]} is smaller than a window, {height}x{width}")
        weight = (_tent(height)[:, None] * _tent(width)).to(x.dtype).to(x.device)
        total = torch.zeros_like(x[:1, :1])
        sums: dict[str, Tensor] = {}
        for top in _places(x.shape[2], height, overlap):
            for left in _places(x.shape[3], width, overlap):
                at = (..., slice(top, top + height), slice(left, left + width))
                pred = D_at(at)(x[at], sigma)
                total[at] += weight
                for name in ("x0", "var_frac", "grad"):
                    part = getattr(pred, name)
                    if part is not None:
                        sums.setdefault(name, torch.zeros_like(x))[at] += weight * part
        return Prediction(**{name: part / total for name, part in sums.items()})

    return windowed_D


def outpaint(
    model: Model,
    image: Any,
    size: int | tuple[int, int],
    *,
    at: tuple[int, int] | None = None,
    overlap: float = 0.5,
    method: str = "repaint",
    labels: Any = None,
    prompt: str | None = None,
    guidance_scale: float | Tensor = 1.0,
    terms: Iterable[Term] = (),
    steps: int | str | Sequence[int] = 50,
    sampler: str | Sampler | None = None,
    seeds: int | Sequence[int] | None = None,
    progress: Progress = False,
) -> Tensor:
    """Paints around an image until it fills a canvas; the image itself comes back to the bit.

    Args:
        model: any; its image_size is the window's side.
        image: as `editing.inputs.read_image` takes it; (N, C, h, w) in [-1, 1].
        size: of the canvas, side or (height, width): at least the image's and the model's, in multiples that the
            network takes.
        at: (top, left) of the image in the canvas; None is the middle.
        overlap: of windows, see `windows`.
        method: "repaint" spends twice the steps on resampling, by `repaint_plan`; "blend" is faster.
        terms: see windows, not the canvas.
        labels, prompt, guidance_scale, steps, sampler, seeds, progress: see `editing.call.prepare`.

    Returns:
        (N, C, height, width) in [-1, 1].

    Raises:
        ValueError: the canvas is too small, the image does not lie in it, or an unknown method.
    """
    if method not in ("repaint", "blend"):
        raise ValueError(f"method must be repaint or blend, got {method!r}")
    image = read_image(model, image)
    canvas, mask = _on_canvas(image, size, at)
    if min(canvas.shape[2:]) < model.image_size:
        raise ValueError(f"the canvas must be at least {model.image_size} on each side, got {tuple(canvas.shape[2:])}")
    repainted = method == "repaint"
    plan = repaint_plan(2 * steps) if repainted and isinstance(steps, int) and steps > 0 else None
    how = {"prompt": prompt, "guidance_scale": guidance_scale, "terms": tuple(terms)}
    call = prepare(
        model, canvas, mask, labels=labels, **how,
        steps=plan.steps if plan else steps, sampler=sampler, seeds=seeds, progress=progress,
        default="ddpm" if repainted else "ddim", spacing="uniform" if plan else None,
    )  # fmt: skip
    if not bool(mask.any()):
        return call.picture.clone()

    def D_at(at: Place) -> Denoiser:  # a network that is told what is known is told it of its window
        part = told(model, call.image[at], call.mask[at])
        return bind(model, labels, len(call.image), run=call.run, **how, **part) if part else call.D

    D = tiled(D_at, model.image_size // call.space.factor, overlap=overlap)
    if repainted:
        jump, resample = (plan.jump, plan.resample) if plan else (10, 10)
        states = repaint_stream(
            D, call.image, call.mask, call.sigmas, jump=jump, resample=resample, noise=call.noise,
            sampler=first_order(call.run),
        )  # fmt: skip
    else:
        x = call.image + float(call.sigmas[0]) * call.noise(call.image)
        states = blend_stream(
            call.run(D, x, call.sigmas, noise=call.noise), call.image, call.mask, noise=call.noise
        )  # fmt: skip
    return call.finish(states)


def _on_canvas(image: Tensor, size: int | tuple[int, int], at: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """The canvas with the image on it and 0 elsewhere, and the mask of what is to be painted."""
    height, width = (size, size) if isinstance(size, int) else size
    h, w = image.shape[2:]
    top, left = ((height - h) // 2, (width - w) // 2) if at is None else at
    if not (0 <= top <= height - h and 0 <= left <= width - w):
        raise ValueError(f"an image of {h}x{w} at {(top, left)} does not lie in a canvas of {height}x{width}")
    border = (left, width - w - left, top, height - h - top)
    return F.pad(image, border), F.pad(torch.zeros_like(image[:1, :1]), border, value=1.0)


def _places(length: int, window: int, overlap: float) -> list[int]:
    """Where windows start: evenly, from one end to the other, with at least that overlap."""
    gaps = -(-(length - window) // max(1, int(window * (1 - overlap))))
    return [0] if gaps == 0 else [round(i * (length - window) / gaps) for i in range(gaps + 1)]


def _tent(length: int) -> Tensor:
    """Weights that fall from the middle to the ends, positive throughout."""
    x = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return torch.minimum(x, 1 - x)
