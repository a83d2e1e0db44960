"""Guidance that costs less: on at every k-th call only, or with a difference that is kept for some calls."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guided.guidance.per_picture import Window, check_window, inside, per_picture
from guided.guidance.scales import Scale, check_scale, is_off, scale_at
from guided.guidance.together import together
from guided.types import Denoiser, Prediction


def every(k: int, D_on: Denoiser, D_off: Denoiser) -> Denoiser:
    """D_on at the first call of a run and every k-th after it, D_off in between.

    With gradient terms that cost much, `every(2, guide(D, clf.term(y, scale=2 * s)), D)` keeps the strength and halves
    the price. A run ends where sigma does not fall, so one denoiser serves many; with samplers of two calls a step both
    count.

    Raises:
        ValueError: k is below 1.
    """
    count = _Count(k)

    def sparse_D(x: Tensor, sigma: Tensor) -> Prediction:
        return (D_on if count.due(sigma) else D_off)(x, sigma)

    return sparse_D


def cfg_reuse(
    D_c: Denoiser, D_u: Denoiser, guidance_scale: Scale, *, window: Window | None = None, k: int = 2
) -> Denoiser:
    """`guided.cfg` whose difference D_c - D_u is made at every k-th call and kept in between.

    A call costs 1 + 1/k evaluations. The difference changes slowly along a run. It is made anew where a run begins,
    where the window opens, and where the batch is another one.

    Args:
        D_c, D_u, guidance_scale, window: as `guided.cfg` takes them.
        k: 1 is `cfg` itself.

    Raises:
        ValueError: k is below 1, or another option is out of range.

    Source:
        After the CFG-Cache of Lv et al. 2024 (*FasterCache*), in its simplest form: the difference itself, unweighted.
    """
    check_window(window)
    check_scale(guidance_scale)
    count, kept = _Count(k), {}

    def guided_D(x: Tensor, sigma: Tensor) -> Prediction:
        on, scale = inside(window, sigma), scale_at(guidance_scale, sigma)
        if not on.any() or is_off(scale):
            kept.clear()
            count.restart()
            return D_c(x, sigma)
        if count.due(sigma) or kept["delta"].shape != x.shape:
            pred, other = together([D_c, D_u], x, sigma)
            kept["delta"] = pred.x0 - other.x0
        else:
            pred = D_c(x, sigma)
        weight = per_picture(scale, x, "guidance_scale") - 1
        return Prediction(pred.x0 + weight * per_picture(on, x, "sigma") * kept["delta"], pred.var_frac)

    return guided_D


class _Count:
    """Which call of a run this is, modulo k; a run ends where sigma does not fall."""

    def __init__(self, k: int):
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k
        self.restart()

    def restart(self) -> None:
        self.calls, self.sigma = 0, math.inf

    def due(self, sigma: Tensor) -> bool:
        level = float(torch.as_tensor(sigma).max())
        if level >= self.sigma:
            self.restart()
        self.sigma, self.calls = level, self.calls + 1
        return (self.calls - 1) % self.k == 0
