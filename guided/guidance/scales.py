"""Guidance scales that follow the noise level: functions scale(sigma), for `cfg` and what is like it.

Time here is that of the linear 1000-step chain, in [0, 1], as an editor's strength is, whatever the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from guided.samplers.steps import check_not_negative, check_sigmas, split
from guided.schedule import Schedule

Scale = float | Tensor | Callable[[Tensor], float | Tensor]
"""A guidance scale: a number, (N,), or a function of sigma, () or (N,), that gives one of these; 1 is off."""


def scale_at(scale: Scale, sigma: Tensor) -> float | Tensor:
    """The scale at a noise level."""
    return scale(sigma) if callable(scale) else scale


def check_scale(scale: Scale, name: str = "guidance_scale") -> None:
    """ValueError unless the scale is finite, or a function, which is asked later."""
    if not callable(scale) and not bool(torch.as_tensor(scale).isfinite().all()):
        raise ValueError(f"{name} must be finite, got {scale}")


def is_off(scale: float | Tensor) -> bool:
    """Whether a scale at one level is 1 for every picture."""
    return bool((torch.as_tensor(scale) == 1).all())


def points(*pairs: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """The scale through (sigma, scale) pairs, linear in log sigma between them and constant beyond::

        guided.cfg(D_c, D_u, guided.scales.points((40.0, 1.0), (4.0, 3.0), (0.2, 1.0)))

    Raises:
        ValueError: there is no pair, a sigma is not positive or given twice, or a scale is not finite.
    """
    if not pairs:
        raise ValueError("points needs at least one pair (sigma, scale)")
    pairs = sorted((float(s), float(w)) for s, w in pairs)
    levels, values = zip(*pairs, strict=True)
    if not all(0 < s < math.inf and math.isfinite(w) for s, w in pairs) or len(set(levels)) < len(levels):
        raise ValueError(f"points needs different positive sigmas and finite scales, got {pairs}")
    return lambda sigma: _interpolated(sigma, np.log(levels), np.asarray(values))


def linear(scale: float, least: float = -math.inf) -> Callable[[Tensor], Tensor]:
    """1 + 2 (scale - 1) (1 - t): from none at all in noise to twice the guidance at the end, `scale` on average over t.

    Args:
        least: the scale where the line is below it.

    Source:
        Wang et al. 2024 (*Analysis of Classifier-Free Guidance Weight Schedulers*), "linear" and, with `least`,
        "clamp-linear".
    """
    check_scale(scale)
    return lambda sigma: (1 + 2 * (scale - 1) * (1 - chain_time(sigma))).clamp(min=least)


def cosine(scale: float, power: float = 1.0) -> Callable[[Tensor], Tensor]:
    """1 + (scale - 1) (1 - cos(pi (1 - t)^power)): from none in noise to twice the guidance at the end.

    Args:
        power: positive; the larger it is, the later guidance sets in. At 1 the average over t is `scale`.

    Raises:
        ValueError: power is not positive.

    Source:
        Wang et al. 2024, "cosine" and its powers, there halved.
    """
    check_scale(scale)
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}")
    return lambda sigma: 1 + (scale - 1) * (1 - (math.pi * (1 - chain_time(sigma)) ** power).cos())


def cfgpp(
    scale: float | Tensor, sigmas: Tensor | Sequence[float], *, eta: float = 0.0
) -> Callable[[Tensor], float | Tensor]:
    """CFG++ as a scale of `cfg`: scale s / (s - s') on the step from s to s'.

    CFG++ removes the noise that the guided prediction sees and puts back what the one without condition sees:
    x' = D_w + (s'/s) (x - D_u), D_w = D_u + scale (D_c - D_u). A first-order step x0 + (s'/s) (x - x0) makes just that
    of x0 = D_u + scale s / (s - s') (D_c - D_u). So no sampler needs to know of it: `ddim` and `euler` are then CFG++
    exactly, others take the same weights. Upwards (inversion) the roles change, x' = D_u + (s'/s) (x - D_w), which is
    scale s' / (s' - s). On levels uniform in log sigma, h apart, it is plain cfg of scale / (1 - e^-h), but for the
    last step.

    Args:
        scale: lambda of the paper, in [0, 1] there; 0 is D_u, not D_c. A number or (N,).
        sigmas: the levels the run walks, down or up. Levels between two of them take the scale of the step they lie in.
        eta: of `ddim` or `euler_ancestral`, whose step goes to a lower level than s' and adds noise; 1 is `ddpm` too.

    Raises:
        ValueError: sigmas are not strictly monotone (decreasing, where eta > 0), or eta is negative.

    Source:
        Chung et al. 2025 (*CFG++*), Alg. 2, and its inversion.
    """
    check_scale(scale)
    check_not_negative(eta=eta)
    levels = check_sigmas(sigmas, up=eta == 0)
    rising = levels[-1] > levels[0]
    starts = np.asarray(levels[:-1])
    ends = np.asarray([split(s, s_next, eta)[0] for s, s_next in pairwise(levels)])  # where the step itself arrives
    factors = np.maximum(starts, ends) / np.abs(starts - ends)
    order = starts if rising else -starts  # increasing either way

    def weight(sigma: Tensor) -> float | Tensor:
        s = sigma.detach().cpu().double().numpy()
        key = s * (1 + 1e-6) if rising else -s * (1 - 1e-6)  # a level of the list finds itself though it was rounded
        place = (np.searchsorted(order, key, side="right") - 1).clip(0, len(factors) - 1)
        factor = torch.as_tensor(factors[place])
        return factor * scale if isinstance(scale, Tensor) or factor.ndim else float(factor) * scale

    return weight


def chain_time(sigma: Tensor) -> Tensor:
    """t in [0, 1] of the linear chain's level sigma, () or (N,) float64 on the CPU: the inverse of a strength."""
    return (_CHAIN.t(sigma.detach().cpu()) / 999).clamp(0, 1)


def _interpolated(sigma: Tensor, log_levels: np.ndarray, values: np.ndarray) -> Tensor:
    log_sigma = sigma.detach().cpu().double().log().numpy()
    return torch.as_tensor(np.interp(log_sigma, log_levels, values), dtype=torch.float64)


_CHAIN = Schedule.linear()
