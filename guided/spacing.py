"""Where the noise levels of a run lie on a model's chain."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from guided.processes import PROCESSES
from guided.schedule import Schedule, interpolate, karras_sigmas, log_snr_sigmas, space_timesteps


def continuous_chain(sigma_min: float, sigma_max: float, parametrization: str = "edm") -> Tensor:
    """A chain for a continuous model: 1000 increasing levels from sigma_min to sigma_max, float64.

    Uniform in the t of what the model was trained on: the process of a score model, flow matching's t = sigma / (1 +
    sigma); for all others the linear 1000-step chain's.
    """
    ends = torch.tensor([sigma_min, sigma_max], dtype=torch.float64)
    if parametrization in PROCESSES:
        process = PROCESSES[parametrization]
        low, high = process.t(ends).tolist()
        levels = process.sigma(torch.linspace(low, high, 1000, dtype=torch.float64))
        levels[0], levels[-1] = ends
        return levels
    if parametrization == "flow":
        low, high = ends / (1 + ends)
        t = torch.linspace(float(low), float(high), 1000, dtype=torch.float64)
        return t / (1 - t)
    linear = Schedule.linear()
    low, high = linear.t(ends)
    levels = linear.sigma_at(torch.linspace(float(low), float(high), 1000, dtype=torch.float64))
    levels[0], levels[-1] = ends  # also where they lie beyond the linear chain's
    return levels


def spaced(
    chain: Tensor, steps: int | str | Sequence[int], spacing: str | None = None, *, sigma_max: float | None = None
) -> Tensor:
    """Decreasing levels of a chain; arguments and errors as `Model.sigmas`, but without the final 0."""
    if isinstance(steps, str | list | tuple):
        if spacing is not None:
            raise ValueError(f"the respacing {steps!r} says where the steps lie: leave spacing out")
        return _respaced(chain, steps, sigma_max)
    try:
        steps = operator.index(steps)
    except TypeError:
        raise ValueError(f"steps must be a whole number or a respacing such as '250', got {steps!r}") from None
    low, high = float(chain[0]), float(chain[-1])
    top = high if sigma_max is None else float(sigma_max)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if low == high and steps > 1:
        raise ValueError(f"a chain of one timestep has one noise level: steps must be 1, got {steps}")
    if not (low < top or (low == top and steps == 1)) or top > high * (1 + 1e-9):
        raise ValueError(f"sigma_max must lie in ({low:.4g}, {high:.4g}], got {top:.4g}")
    if spacing in (None, "log-snr"):
        return log_snr_sigmas(steps, low, top)
    if spacing == "karras":
        return karras_sigmas(steps, low, top)
    if spacing == "uniform":
        return _uniform_in_t(chain, steps, top)
    raise ValueError(f"spacing must be log-snr, karras or uniform, got {spacing!r}")


def _respaced(chain: Tensor, sections: str | Sequence[int], sigma_max: float | None) -> Tensor:
    levels = chain[space_timesteps(len(chain), sections)].flip(0)
    if sigma_max is not None:
        levels = levels[levels <= sigma_max]
    if len(levels) == 0:
        below = "" if sigma_max is None else f" up to {sigma_max}"
        raise ValueError(f"the respacing {sections!r} leaves no level{below}")
    return levels


def _uniform_in_t(chain: Tensor, steps: int, top: float) -> Tensor:
    log_sigma, index = chain.log(), torch.arange(len(chain), dtype=torch.float64)
    start = float(interpolate(torch.tensor(top, dtype=torch.float64).log(), log_sigma, index))
    return interpolate(torch.linspace(start, 0, steps, dtype=torch.float64), index, log_sigma).exp()
