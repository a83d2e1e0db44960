"""Where the few noise levels of a run should lie, for one model: found against a fine path of that model itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from guided.samplers import SAMPLERS
from guided.schedule import karras_sigmas, log_snr_sigmas
from guided.types import Denoiser

Sampler = Callable[..., Iterator]


@dataclass(frozen=True)
class Spacing:
    """A list of levels that was tried.

    Attributes:
        name: where it comes from: "log-snr", "karras", "path", or "search".
        levels: nfe decreasing levels, without the final 0.
        error: of a run's end against the fine path's, see `end_error`.
    """

    name: str
    levels: list[float]
    error: float


@dataclass(frozen=True)
class FinePath:
    """A run in many steps: levels (M,), states x (M, N, ...) at them, estimates x0 there, and where it ends."""

    levels: Tensor
    x: Tensor
    x0: Tensor
    end: Tensor


def fine_path(D: Denoiser, x: Tensor, sigmas: Tensor, every: int = 1) -> FinePath:
    """Follow the probability flow by the second-order multistep solver on a fine list; keep every so many levels."""
    kept = []
    start = x
    for state in SAMPLERS["dpmpp_2m"](D, x, sigmas):
        if state.step % every == 0:
            kept.append((float(sigmas[state.step]), start, state.x0))
        start = state.x
    levels, states, x0 = zip(*kept, strict=True)
    return FinePath(torch.tensor(levels, dtype=torch.float64), torch.stack(states), torch.stack(x0), start)


def path_levels(path: FinePath, nfe: int) -> list[float]:
    """The nfe levels of a fine path whose DDIM steps along it are wrong by the least in sum, the last one to 0.

    No evaluation of the model: what a step from level i to level j does is known from the estimate at i, and where it
    should have led is the path's state at j. The best subset is found by dynamic programming.

    Source:
        Chen et al. 2024 (*On the Trajectory Regularity of ODE-based Diffusion Sampling*, GITS).
    """
    m, levels = len(path.levels), path.levels
    if not 1 <= nfe <= m:
        raise ValueError(f"nfe must lie in 1..{m}, the levels of the fine path, got {nfe}")
    cost = torch.full((m + 1, m + 1), math.inf, dtype=torch.float64)  # from i to j; m is the end
    for i in range(m):
        ratio = torch.cat([levels[i + 1 :], torch.zeros(1, dtype=torch.float64)]) / levels[i]
        there = torch.cat([path.x[i + 1 :], path.end[None]])
        ratio = ratio.to(there).reshape(-1, *[1] * (there.ndim - 1))
        step = path.x0[i] + ratio * (path.x[i] - path.x0[i])  # Song et al. 2021, eq. 12
        cost[i, i + 1 :] = (step - there).flatten(2).norm(dim=2).mean(1).double().cpu()
    best, before = cost[:, m].clone(), []  # of one step from each level to the end
    for _ in range(nfe - 1):
        total = cost[:, :m] + best[:m]
        best, choice = total.min(1)
        before.append(choice)
    index, found = 0, [0]
    for choice in reversed(before):
        index = int(choice[index])
        found.append(index)
    return levels[found].tolist()


def end_error(D: Denoiser, x: Tensor, levels: list[float], end: Tensor, sampler: str = "unipc") -> float:
    """How far a run from noise x ends from where it should: root mean square a picture, their geometric mean."""
    run = SAMPLERS[sampler](D, levels[0] * x, torch.tensor([*levels, 0.0], dtype=torch.float64))
    for state in run:
        last = state.x
    each = (last - end).flatten(1).double().square().mean(1).sqrt()
    return float(each.clamp(min=1e-12).log().mean().exp())


def tune_steps(
    D: Denoiser,
    noise: Tensor,
    sigma_min: float,
    sigma_max: float,
    nfe: int,
    *,
    sampler: str = "unipc",
    fine: int = 120,
    trials: int = 40,
) -> Iterator[Spacing]:
    """Spacings as they are tried; the best is that of the least error.

    First the known ones and that of `path_levels`, then single levels of the best are moved, by less and less.

    Args:
        D: the denoiser of a run, with its condition and guidance.
        noise: (N, ...) standard normal, one a picture; the run starts at sigma_max times it.
        sigma_min, sigma_max: the model's range.
        nfe: evaluations of a run.
        sampler: a deterministic one with one evaluation a step.
        fine: steps of the path that is compared with.
        trials: runs of the search.

    Raises:
        ValueError: nfe is below 2, or not below `fine`.
    """
    if not 2 <= nfe < fine:
        raise ValueError(f"nfe must lie in 2..{fine - 1}, got {nfe}")
    path = fine_path(D, sigma_max * noise, torch.cat([log_snr_sigmas(fine, sigma_min, sigma_max), torch.zeros(1)]))

    def tried(name: str, levels: list[float]) -> Spacing:
        return Spacing(name, levels, end_error(D, noise, levels, path.end, sampler))

    starts = {"log-snr": log_snr_sigmas(nfe, sigma_min, sigma_max).tolist()}
    starts["karras"] = karras_sigmas(nfe, sigma_min, sigma_max).tolist()
    starts["path"] = path_levels(path, nfe)
    best = None
    for name, levels in starts.items():
        found = tried(name, levels)
        yield found
        best = found if best is None or found.error < best.error else best
    step, left = 0.5, trials  # in units of the gap to the neighbour
    while left > 0 and step > 0.03:
        better = False
        for i in range(1, nfe):
            for way in (-1, 1):
                levels = moved(best.levels, i, way * step, sigma_min)
                if left == 0 or levels == best.levels:
                    continue
                found, left = tried("search", levels), left - 1
                yield found
                if found.error < best.error:
                    best, better = found, True
                    break
        step = step if better else step / 2


def moved(levels: list[float], i: int, by: float, sigma_min: float) -> list[float]:
    """The levels with the i-th moved by a share of the way, in log sigma, to its neighbour; the last stays a level."""
    logs = [math.log(s) for s in levels]
    low = logs[i + 1] if i + 1 < len(logs) else min(math.log(sigma_min), logs[i])
    gap = logs[i - 1] - logs[i] if by > 0 else logs[i] - low
    logs[i] += by * gap
    return [math.exp(v) for v in logs]
