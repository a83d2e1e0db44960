"""Classifier-free guidance of the velocity, with the unconditional one fitted first: CFG-Zero*."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from guided.guidance.per_picture import Window, check_window, inside, per_picture, rows
from guided.guidance.scales import Scale, check_scale, is_off, scale_at
from guided.guidance.together import together
from guided.samplers.steps import check_sigmas
from guided.types import Denoiser, Prediction


def cfg_zero(
    D_c: Denoiser,
    D_u: Denoiser,
    guidance_scale: Scale,
    *,
    sigmas: Tensor | Sequence[float] | None = None,
    zero_steps: int = 1,
    window: Window | None = None,
) -> Denoiser:
    """CFG-Zero*: v = s v_u + guidance_scale (v_c - s v_u), with the s of each picture that brings v_u nearest to v_c.

    v = eps - x0 is the velocity of flow matching, whose coordinates are y = x / (1 + sigma); any model has it, as
    v = (x - (1 + sigma) D) / sigma. Where the network is poor, at first, s is small or negative, and guidance is weak.
    The first steps do not move at all (zero-init, see there).

    Args:
        D_c, D_u: as for `cfg`. The result has D_c's var_frac, and no grad.
        guidance_scale: as for `cfg`; 1 is off, zero-init included.
        sigmas: the levels the run walks, which tell where its first steps end.
        zero_steps: how many steps from the start have velocity 0; the paper takes 1, or 4 % of them. 0 is none, and
            needs no sigmas.
        window: (low, high]; outside it the result is D_c's own prediction.

    Raises:
        ValueError: an option is out of range, or sigmas are missing.

    Source:
        Fan et al. 2025 (*CFG-Zero**): the optimised scale, and zero-init.
    """
    check_window(window)
    check_scale(guidance_scale)
    if zero_steps < 0:
        raise ValueError(f"zero_steps must be at least 0, got {zero_steps}")
    if zero_steps and sigmas is None:
        raise ValueError("zero-init needs the levels of the run: give sigmas, or zero_steps=0 to leave it out")
    if not callable(guidance_scale) and is_off(guidance_scale):
        return D_c

    def guided_D(x: Tensor, sigma: Tensor) -> Prediction:
        on, scale = inside(window, sigma), scale_at(guidance_scale, sigma)
        if not on.any() or (callable(guidance_scale) and is_off(scale)):
            return D_c(x, sigma)
        pred, other = together((D_c, D_u), x, sigma)
        s = per_picture(sigma, x, "sigma")
        v_c, v_u = (x - (1 + s) * pred.x0) / s, (x - (1 + s) * other.x0) / s
        fitted = rows((v_c * v_u).flatten(1).sum(1) / (v_u**2).flatten(1).sum(1).clamp(min=1e-12), x) * v_u
        weight = (per_picture(scale, x, "guidance_scale") - 1) * per_picture(on, x, "sigma")
        # x0 = (x - s v) / (1 + s) of v = v_c + weight (v_c - fitted)
        return Prediction(pred.x0 - weight * s / (1 + s) * (v_c - fitted), pred.var_frac)

    return zero_init(guided_D, sigmas, zero_steps) if zero_steps else guided_D


def zero_init(D: Denoiser, sigmas: Tensor | Sequence[float], steps: int = 1) -> Denoiser:
    """D, but the velocity is 0 in a run's first steps: there x0 = x / (1 + sigma), and D is not called.

    In the coordinates of flow matching, y = x / (1 + sigma), the state stays where it is: noise that is a little less
    noisy. For models that are poor at the start of a run.

    Args:
        sigmas: the decreasing levels of the run; of its first `steps` steps.

    Raises:
        ValueError: sigmas are not strictly decreasing, or have no more than `steps` levels.

    Source:
        Fan et al. 2025 (*CFG-Zero**), zero-init.
    """
    levels = check_sigmas(sigmas)
    if not 1 <= steps < len(levels):
        raise ValueError(f"steps must lie in 1..{len(levels) - 1}, the run's own, got {steps}")
    above = levels[steps] * (1 + 1e-6)

    def still_D(x: Tensor, sigma: Tensor) -> Prediction:
        still = sigma > above
        if not still.any():
            return D(x, sigma)
        x0 = x / (1 + per_picture(sigma, x, "sigma"))
        if still.all():
            return Prediction(x0)
        pred, on = D(x, sigma), per_picture(still, x, "sigma")
        return Prediction(on * x0 + (1 - on) * pred.x0, pred.var_frac)

    return still_D
