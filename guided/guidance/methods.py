"""The ways to guide by the difference of two denoisers, by name: what the one-call forms and the command line offer."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from guided.guidance.classifier_free import cfg
from guided.guidance.per_picture import Window
from guided.guidance.scales import Scale
from guided.guidance.scales import cfgpp as cfgpp_scale
from guided.guidance.sparse import cfg_reuse
from guided.guidance.velocity import cfg_zero
from guided.types import Denoiser

Guidance = str | Callable[..., Denoiser]
"""A name of `METHODS`, or a function (D_c, D_u, guidance_scale, *, window) -> denoiser, its other options bound."""


def cfgpp(
    D_c: Denoiser,
    D_u: Denoiser,
    guidance_scale: float | Tensor,
    *,
    sigmas: Tensor | Sequence[float],
    eta: float = 0.0,
    window: Window | None = None,
) -> Denoiser:
    """CFG++: `cfg` with the scale `guided.scales.cfgpp`, which see. Here 1 is not off, and 0 is D_u.

    Args:
        guidance_scale: lambda of the paper, in [0, 1] there.
        sigmas: the levels the run walks, down or up.
        eta: the sampler's; 1 for `ddpm`. `sample` and `stream` tell it, as they do sigmas.
        window: (low, high]; outside it the result is D_c's own prediction.
    """
    return cfg(D_c, D_u, cfgpp_scale(guidance_scale, sigmas, eta=eta), window=window)


def apg(
    D_c: Denoiser,
    D_u: Denoiser,
    guidance_scale: Scale,
    *,
    window: Window | None = None,
    momentum: float = -0.5,
    parallel: float = 0.0,
    norm: float | None = 5.0,
) -> Denoiser:
    """Adaptive projected guidance: `cfg` with the options it is made of; see there.

    Args:
        norm: the paper takes 2.5 to 15. The embedded 64-pixel model's difference is 40 long in much noise, 4 at sigma
            0.7; 5 kept its colours and coverage up to a scale of 5 (`docs/study.md`). It grows with the pictures' side.

    Source:
        Sadat et al. 2025 (*Eliminating Oversaturation and Artifacts of High Guidance Scales*).
    """
    return cfg(D_c, D_u, guidance_scale, window=window, momentum=momentum, parallel=parallel, norm=norm)


METHODS: dict[str, Callable[..., Denoiser]] = {
    "cfg": cfg,
    "cfg++": cfgpp,
    "apg": apg,
    "cfg-zero": cfg_zero,
    "cfg-reuse": cfg_reuse,
}


def method(guidance: Guidance, sigmas: Tensor | None = None, eta: float | None = None) -> Callable[..., Denoiser]:
    """The function of a name, or of itself; one that takes the run's sigmas and has them not gets them bound.

    With them goes `eta`, the sampler's, where the function takes one and has none bound; None leaves its default.

    Raises:
        ValueError: the name is unknown (the nearest are suggested), or sigmas are wanted and not known here.
    """
    if isinstance(guidance, str) and guidance not in METHODS:
        close = difflib.get_close_matches(guidance, METHODS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown guidance {guidance!r}; {hint}there are {', '.join(METHODS)}")
    function = METHODS[guidance] if isinstance(guidance, str) else guidance
    takes = inspect.signature(function).parameters
    wanted = takes.get("sigmas")
    if wanted is None or wanted.default not in (None, inspect.Parameter.empty):
        return function
    if sigmas is None:
        raise ValueError(
            f"{getattr(function, '__name__', guidance)} needs the levels of the run, which are not known here: bind "
            "them, functools.partial(guided.cfgpp, sigmas=sigmas)"
        )
    told = {"sigmas": sigmas}
    if eta is not None and "eta" in takes and "eta" not in getattr(function, "keywords", {}):
        told["eta"] = eta
    return partial(function, **told)
