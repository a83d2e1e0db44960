"""Particle guidance: the pictures of a batch keep away from each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from guided.guidance.gradient import Term
from guided.guidance.per_picture import Window


def particles(
    scale: float = 1.0,
    wrt: str = "x0-frozen",
    window: Window | None = None,
    *,
    features: Callable[[Tensor], Tensor] | None = None,
    bandwidth: float | None = None,
) -> Term:
    """A diverse batch: minus half the sum of k(f_i, f_j) over the other pictures j, k = exp(-|f_i - f_j|^2 / h).

    Summed over the batch that is the log-potential of the paper. Pictures then depend on those that are drawn beside
    them, the one exception to "a picture is a function of its seed"; of one picture the term is 0.

    Args:
        wrt: "x" compares the noisy pictures, else the estimates.
        features: f(pictures) -> (N, ...), such as a network's embedding of pictures in [-1, 1]; None is the pixels.
        bandwidth: h, positive; None is median^2 / log(N) of the batch's distances, at each step.

    Raises:
        ValueError: bandwidth is not positive.

    Source:
        Corso et al. 2024 (*Particle Guidance*), its fixed potential; the median rule of Liu & Wang 2016 (SVGD).
    """
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, or None for the median rule, got {bandwidth}")

    def apart(x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        seen = x if wrt == "x" else x0
        f = (seen if features is None else features(seen)).flatten(1)
        n = len(f)
        if n == 1:
            return 0 * f.sum(dim=1)
        square = (f[:, None] - f[None, :]).square().sum(dim=2)
        others = ~torch.eye(n, dtype=torch.bool, device=f.device)
        h = bandwidth or float(square.detach()[others].median()) / math.log(n) or 1.0  # all in one place: any h
        return -0.5 * ((-square / h).exp() * others).sum(dim=1)

    return Term(apart, scale, wrt=wrt, window=window)
